// Parley without WebSockets, for networks that block them: each room is a stream of Server-Sent Events, all else is a plain
// HTTP request. It takes and gives the frames of parley.v1, so that Parley sees no difference, but that it can't signal. Paths
// are relative to the WebSocket's: a node may be under a prefix.

const ROOMS = 4; // browsers open six connections to a host, and sending needs one

/** Resolves if the node answers plain HTTP. What it answers, a page of another origin may not read. */
export async function reach(url) {
  const { ok, type } = await fetch(new URL("healthz", url.replace(/^ws/, "http")), { mode: "no-cors", cache: "no-store" });
  if (!ok && type !== "opaque") throw new Error("the node is away");
}

export class StreamLink {
  transport = "sse";
  #url;
  #base;
  #on;
  #name;
  #headers = {}; // who we are
  #patience = 60_000; // a stream that says nothing for so long, no comment either, is dead
  #streams = new Map(); // room → what ends its stream
  #turn = Promise.resolve(); // rooms are joined one after the other: the first may tell a new guest's session

  constructor(url, on) {
    this.#url = url;
    this.#base = new URL("v1/rooms/", url.replace(/^ws/, "http"));
    this.#on = on;
    queueMicrotask(() => this.#on.open());
  }

  async send({ op, req, ...fields }) {
    try {
      if (op === "join") await (this.#turn = this.#turn.catch(() => {}).then(() => this.#join(req, fields)));
      else this.#on.frame({ ...(await this.#do(op, fields)), op: "ok", req });
    } catch (error) {
      if (error.code) this.#on.frame({ ...error, op: "error", req });
      else this.#on.lost({ reason: String(error) });
    }
  }

  close() {
    this.#on = { open() {}, frame() {}, heard() {}, lost() {} };
    for (const stream of this.#streams.values()) stream.abort();
  }

  #do(op, { room, key, text, data, before, limit, ...who }) {
    const path = encodeURIComponent(room);
    if (op === "hello") return this.#hello(who);
    if (op === "ping") return reach(this.#url);
    if (op === "leave") return this.#leave(room);
    if (op === "history") return this.#json(`${path}/messages`, { before, limit });
    if (op === "members") return this.#json(`${path}/members`);
    if (op !== "send") throw { code: "unsupported", message: `${op} needs a WebSocket` };
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    const body = JSON.stringify({ text, data });
    return this.#json(`${path}/messages`, { name: this.#name }, { method: "POST", headers, body });
  }

  async #hello({ token, session, name }) {
    if (token) this.#headers.Authorization = `Bearer ${token}`;
    if (session) this.#headers["Parley-Session"] = session;
    this.#name = name;
    await reach(this.#url);
    return { ping: 25 }; // each stream begins with the true welcome
  }

  // A stream begins with a welcome and the answer to the join.
  async #join(req, { room, since, limit }) {
    if (this.#streams.size === ROOMS) throw { code: "unsupported", message: `only ${ROOMS} rooms without WebSockets` };
    const stream = new AbortController();
    this.#streams.set(room, stream);
    try {
      const query = { since, limit, name: this.#name };
      const { body } = await this.#fetch(`${encodeURIComponent(room)}/events`, query, { signal: stream.signal });
      const frames = this.#frames(body);
      const [{ value: welcome }, { value: joined }] = [await frames.next(), await frames.next()];
      if (welcome?.op === "bye") this.#on.frame(welcome); // a node that cannot serve it now
      if (!joined) throw new Error("the stream ended");
      if (welcome.session) this.#headers["Parley-Session"] = welcome.session;
      this.#patience = welcome.ping * 2500;
      this.#on.frame(welcome);
      this.#on.frame({ ...joined, req });
      this.#follow(frames, stream.signal);
    } catch (error) {
      this.#leave(room);
      throw error;
    }
  }

  #leave(room) {
    this.#streams.get(room)?.abort();
    this.#streams.delete(room);
  }

  async #follow(frames, signal) {
    try {
      for await (const frame of frames) this.#on.frame(frame);
      throw new Error("the stream ended");
    } catch (error) {
      if (!signal.aborted) this.#on.lost({ reason: String(error) });
    }
  }

  // An event's data is one line, and a frame of its own; its name and id, and comments, don't matter here.
  async *#frames(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const silent = setTimeout(() => reader.cancel(), this.#patience);
      const { value, done } = await reader.read();
      clearTimeout(silent);
      if (done) return;
      this.#on.heard();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.match(/^data: ?(.*)/m)?.[1];
        if (data) yield JSON.parse(data);
      }
    }
  }

  async #json(path, query, init) {
    return (await this.#fetch(path, query, init)).json();
  }

  async #fetch(path, query = {}, { headers, ...init } = {}) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
    const response = await fetch(url, { ...init, headers: { ...this.#headers, ...headers }, cache: "no-store" });
    if (response.ok) return response;
    const { code, detail, title } = await response.json().catch(() => ({}));
    if (!code) throw new Error(`HTTP ${response.status}`); // not from a node
    const seconds = Number(response.headers.get("Retry-After"));
    throw { code, message: detail ?? title ?? response.statusText, retry_after: seconds ? seconds * 1000 : undefined };
  }
}
