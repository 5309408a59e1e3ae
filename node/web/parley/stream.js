// Parley without WebSockets, for networks that block them: one stream of Server-Sent Events brings what comes of all rooms; what
// one says is plain HTTP. It takes and gives the frames of parley.v1, so that Parley sees no difference. Paths are relative to
// the WebSocket's: a node may be under a prefix.

const ANSWER = 10_000; // ms in which what was posted is answered on the stream, or its node is gone
const POSTED = ["join", "leave", "signal"];

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
  #fresh = {}; // the last hello with another token: it is ours once the node has said welcome
  #patience = 60_000; // a stream that says nothing for so long, no comment either, is dead
  #stream = new AbortController();
  #path; // where to post to it
  #turns = new Map(); // room → the last that was posted of it: two may go over two connections, and overtake
  #answers = new Map(); // request → the time by which its answer has to come

  constructor(url, on) {
    this.#url = url;
    this.#base = new URL("v1/", url.replace(/^ws/, "http"));
    this.#on = on;
    queueMicrotask(() => this.#on.open());
  }

  async send(frame) {
    const { op, req, room } = frame;
    try {
      if (POSTED.includes(op) || (op === "hello" && this.#path)) {
        if (frame.token) this.#fresh = frame;
        const turn = (this.#turns.get(room) ?? Promise.resolve()).catch(() => {}).then(() => this.#post(frame));
        this.#turns.set(room, turn);
        await turn;
      } else this.#on.frame({ op: "ok", ...(await this.#do(op, frame)), req });
    } catch (error) {
      if (error.code) this.#on.frame({ ...error, op: "error", req });
      else this.#on.lost({ reason: String(error) });
    }
  }

  close() {
    this.#on = { open() {}, frame() {}, heard() {}, lost() {} };
    this.#stream.abort();
    for (const timer of this.#answers.values()) clearTimeout(timer);
    this.#answers.clear();
  }

  #do(op, { room, key, text, data, before, limit, ...who }) {
    if (op === "hello") return this.#open(who);
    if (op === "ping") return reach(this.#url);
    const path = `rooms/${encodeURIComponent(room)}`;
    if (op === "history") return this.#json(`${path}/messages`, { before, limit });
    if (op === "members") return this.#json(`${path}/members`);
    if (op !== "send") throw { code: "unsupported", message: `${op} needs a WebSocket` };
    const headers = { "Idempotency-Key": key };
    return this.#json(`${path}/messages`, { name: this.#name }, { headers, body: { text, data } });
  }

  // Opens the stream as somebody, who is told by its first frame.
  async #open({ token, session, name }) {
    this.#stream.abort();
    const stream = (this.#stream = new AbortController());
    this.#headers = {};
    if (token) this.#headers.Authorization = `Bearer ${token}`;
    else if (session) this.#headers["Parley-Session"] = session;
    this.#name = name;
    const { body } = await this.#fetch("events", { name }, { signal: stream.signal });
    const frames = this.#frames(body);
    const { value: welcome } = await frames.next();
    if (welcome?.op !== "welcome") {
      if (welcome) this.#on.frame(welcome); // a node that cannot serve it now says bye
      throw new Error("the stream ended");
    }
    if (welcome.session) this.#headers["Parley-Session"] = welcome.session;
    this.#path = `events/${welcome.stream}`;
    this.#patience = welcome.ping * 2500;
    this.#follow(frames, stream.signal);
    return welcome;
  }

  // What comes of it, comes on the stream.
  async #post(frame) {
    const late = () => this.#on.lost({ reason: "no answer" });
    this.#answers.set(frame.req, setTimeout(late, ANSWER));
    try {
      await this.#fetch(this.#path, {}, { body: frame });
    } catch (error) {
      this.#answered(frame.req);
      throw error;
    }
  }

  #answered(req) {
    clearTimeout(this.#answers.get(req));
    this.#answers.delete(req);
  }

  async #follow(frames, signal) {
    try {
      for await (const frame of frames) {
        this.#answered(frame.req);
        if (frame.op === "welcome" && frame.req && frame.req === this.#fresh.req) this.#headers.Authorization = `Bearer ${this.#fresh.token}`;
        if (frame.op === "bye") return this.#on.lost(frame);
        this.#on.frame(frame);
      }
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
      const { value, done } = await reader.read().finally(() => clearTimeout(silent));
      if (done) return;
      this.#on.heard();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.split("\n").find((line) => line.startsWith("data:")); // a text has other ends of lines too
        if (data) yield JSON.parse(data.slice(5));
      }
    }
  }

  async #json(path, query, init) {
    return (await this.#fetch(path, query, init)).json();
  }

  async #fetch(path, query, { headers, body, signal } = {}) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
    const said = body && { method: "POST", body: JSON.stringify(body) };
    const type = body && { "Content-Type": "application/json" };
    const response = await fetch(url, { ...said, headers: { ...this.#headers, ...type, ...headers }, cache: "no-store", signal });
    if (response.ok) return response;
    const { code, detail, title } = await response.json().catch(() => ({}));
    if (!code || code === "not_found") throw new Error(`HTTP ${response.status}`); // not from a node, or the stream is gone
    const seconds = Number(response.headers.get("Retry-After"));
    throw { code, message: detail ?? title ?? response.statusText, retry_after: seconds ? seconds * 1000 : undefined };
  }
}
