// Parley without WebSockets, for networks that block them: each room is a stream of Server-Sent Events, all else is a plain
// HTTP request. It takes and gives the frames of parley.v1, so that parley.js sees no difference, but for signals: there are none.

const ROOMS = 4; // browsers open six connections to a host, and sending needs one

export class StreamLink {
  #base;
  #on;
  #name;
  #headers = {}; // who we are
  #streams = new Map(); // room → what ends its stream
  #turn = Promise.resolve(); // rooms are joined one after the other: the first may tell a new guest's session

  constructor(url, on) {
    this.#base = new URL("/v1/rooms/", url.replace(/^ws/, "http"));
    this.#on = on;
    queueMicrotask(() => this.#on.open());
  }

  async send({ op, req, ...fields }) {
    try {
      this.#on.frame({ ...(await this.#do(op, fields)), op: "ok", req });
    } catch (error) {
      if (error.code) this.#on.frame({ ...error, op: "error", req });
      else this.#on.lost({ reason: String(error) });
    }
  }

  close() {
    this.#on = { open() {}, frame() {}, heard() {}, lost() {} };
    for (const stream of this.#streams.values()) stream.abort();
  }

  #do(op, { room, key, text, data, before, limit, since, ...who }) {
    const path = encodeURIComponent(room);
    if (op === "hello") return this.#hello(who);
    if (op === "ping") return this.#reach();
    if (op === "join") return (this.#turn = this.#turn.catch(() => {}).then(() => this.#join(room, path, { since, limit })));
    if (op === "leave") return this.#leave(room);
    if (op === "history") return this.#json(`${path}/messages`, { before, limit });
    if (op === "members") return this.#json(`${path}/members`);
    if (op !== "send") throw { code: "unsupported", message: `${op} needs a WebSocket` };
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    return this.#json(`${path}/messages`, {}, { method: "POST", headers, body: JSON.stringify({ text, data }) });
  }

  async #hello({ token, session, name }) {
    if (token) this.#headers.Authorization = `Bearer ${token}`;
    if (session) this.#headers["Parley-Session"] = session;
    this.#name = name;
    await this.#reach();
    return { ping: 25 }; // each stream begins with the true welcome
  }

  // Whether the node is there. A page of another origin may not read its answer, and need not.
  async #reach() {
    await fetch(new URL("/healthz", this.#base), { mode: "no-cors", cache: "no-store" });
  }

  async #join(room, path, query) {
    if (this.#streams.has(room)) return {};
    if (this.#streams.size === ROOMS) throw { code: "unsupported", message: `without WebSockets only ${ROOMS} rooms at once` };
    const stream = new AbortController();
    this.#streams.set(room, stream);
    try {
      const { body } = await this.#fetch(`${path}/events`, { ...query, name: this.#name }, { signal: stream.signal });
      const frames = this.#frames(body);
      const { value: welcome } = await frames.next();
      if (welcome.session) this.#headers["Parley-Session"] = welcome.session;
      this.#on.frame(welcome);
      this.#follow(frames, stream.signal);
      return await this.#json(`${path}/members`);
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

  // An event's data is one line; comments, and all but the id, don't matter here.
  async *#frames(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      this.#on.heard();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const field = (name) => event.match(new RegExp(`^${name}: ?(.*)`, "m"))?.[1];
        if (field("data")) yield { last: field("id"), ...JSON.parse(field("data")) };
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
    const { code = "unavailable", detail, title } = await response.json().catch(() => ({}));
    const seconds = Number(response.headers.get("Retry-After"));
    throw { code, message: detail ?? title ?? response.statusText, retry_after: seconds ? seconds * 1000 : undefined };
  }
}
