// Parley in the browser: rooms that outlive the connection. parley.d.ts says what everything takes and gives.
//
//   const chat = new Parley("wss://host", { name: "Ada" });
//   const room = chat.join("lobby");
//   room.on("message", ({ from, text }) => console.log(from.name, text));
//   await room.send("hi"); // resolves once the room has it, over however many connections that takes
import { StreamLink } from "./parley-sse.js";

const KEY_LIFE = 10 * 60_000; // nodes remember the key of a send for so long: until then a repeat is safe
const MAX_WAIT = 30_000; // between two attempts to connect
const AGAIN = ["lost", "unavailable", "rate_limited", "not_joined"]; // errors that repeating helps

/** Why a request was refused (a code of the wire), or not answered: "lost" with the connection, "closed" by close(). */
export class ParleyError extends Error {
  constructor({ code, message = code, retry_after }) {
    super(message);
    Object.assign(this, { name: "ParleyError", code, retryAfter: retry_after });
  }
}

/** Orders message ids: as two integers, never as strings. */
export function compareIds(a, b) {
  const [[aMs, aSeq], [bMs, bSeq]] = [a.split("-"), b.split("-")];
  return compareDecimals(aMs, bMs) || compareDecimals(aSeq, bSeq);
}

// They have no leading zeros.
const compareDecimals = (a, b) => a.length - b.length || (a > b) - (a < b);

const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

// Grows exponentially. Half of it is chance, so that a crowd does not come back at once.
const backoff = (attempt) => Math.min(MAX_WAIT, 500 * 2 ** attempt) * (0.5 + Math.random() / 2);

class Emitter extends EventTarget {
  on(type, listener) {
    const handle = (event) => listener(event.detail, event);
    this.addEventListener(type, handle);
    return () => this.removeEventListener(type, handle);
  }
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export class Parley extends Emitter {
  state = "connecting"; // or "open", "waiting" to connect again, "closed" for good
  user = null;
  limits = {};
  rooms = new Map();
  #options;
  #memory;
  #link = null; // the connection
  #replies = new Map(); // request number → its promise's ends, of this connection
  #requests = 0;
  #patience = 10_000; // a connection that says nothing for so long, when asked, is dead
  #attempt = 0;
  #unopened = 0; // WebSockets in a row that did not open
  #openedAt = Infinity;
  #heardAt = 0;
  #bye = {};
  #timer; // to the next attempt, or this one's deadline
  #watch; // for silence
  #end = new AbortController();

  constructor(url = new URL("/", import.meta.url), options = {}) {
    super();
    this.url = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    this.#options = options;
    this.#memory = new Memory(`parley:${new URL(this.url).host}:`, options.persist ?? true);
    for (const type of ["online", "offline", "pageshow", "visibilitychange"]) {
      globalThis.addEventListener?.(type, () => this.#nudged(type), { signal: this.#end.signal });
    }
    this.reconnect();
  }

  /** Joins a room, with its last messages, and stays in it over all connections until leave(). */
  join(name, { limit } = {}) {
    if (!this.rooms.has(name)) {
      const room = new Room(this, name, limit, this.#memory.outbox(name));
      this.rooms.set(name, room);
      if (this.state === "open") room._join();
    }
    return this.rooms.get(name);
  }

  /** Asks the node: any op of parley.v1. Resolves with its `ok`, rejects with a ParleyError. */
  request(op, fields) {
    return this.state === "open" ? this.#ask(op, fields) : refusal("lost");
  }

  /** Goes by another name from now on. */
  rename(name) {
    this.#options = { ...this.#options, name };
    this.reconnect();
  }

  /** Connects now, rather than when the wait is over. */
  reconnect() {
    if (this.state === "closed") return;
    this.#drop("lost");
    this.#become("connecting");
    // Two WebSockets that did not open may mean that something on the way blocks them: every third attempt does without.
    const Link = this.#unopened % 3 === 2 ? StreamLink : SocketLink;
    this.#bye = {};
    const link = (this.#link = new Link(this.url, {
      open: () => this.#hello(Object.assign(link, { opened: true })),
      heard: () => (this.#heardAt = Date.now()),
      frame: (frame) => this.#link === link && this.#take(frame),
      lost: (how) => this.#lost(link, how),
    }));
    this.#timer = setTimeout(() => this.#lost(link, { reason: "no answer" }), this.#patience);
  }

  /** Leaves for good. What was not acknowledged stays in the tab, and is repeated when the room is next joined. */
  close(code = 1000, reason = "") {
    if (this.state === "closed") return;
    this.#end.abort();
    this.#drop("closed", code, reason);
    for (const room of this.rooms.values()) room._closed();
    this.#become("closed", { code, reason });
  }

  async #hello(link) {
    const { token, name } = this.#options;
    const { session } = this.#memory;
    try {
      const bearer = typeof token === "function" ? await token() : token;
      const welcome = await this.#ask("hello", { token: bearer, session, name });
      if (this.#link === link) this.#welcomed(welcome);
    } catch ({ code, message, retryAfter }) {
      const final = code === "unauthorized" ? 4401 : 1008;
      this.#lost(link, { code: !code || AGAIN.includes(code) ? 1006 : final, reason: message, retry_after: retryAfter });
    }
  }

  #welcomed({ ping }) {
    clearTimeout(this.#timer);
    this.#openedAt = Date.now();
    this.#patience = ping * 400;
    this.#watch = setInterval(() => Date.now() - this.#heardAt >= ping * 1000 && this.#probe(), ping * 1000);
    this.#become("open", { user: this.user });
    for (const room of this.rooms.values()) room._join();
  }

  #take(frame) {
    this.#heardAt = Date.now();
    const { op, req } = frame;
    const reply = this.#replies.get(req);
    if (op === "welcome" && (reply || this.state === "open")) {
      Object.assign(this, { user: frame.user, limits: frame.limits }); // the first of a WebSocket knows nothing of us yet
      if (frame.session) this.#memory.session = frame.session;
      this.emit(op, frame);
    }
    if (reply) {
      this.#replies.delete(req);
      if (op === "error") reply.reject(new ParleyError(frame));
      else reply.resolve(frame);
    } else if (op === "bye") this.#bye = frame;
    else if (op === "error") this.emit("error", new ParleyError(frame));
    else this.rooms.get(frame.room)?._take(frame);
  }

  #ask(op, fields) {
    const frame = { op, req: ++this.#requests, ...fields };
    if (new Blob([JSON.stringify(frame)]).size > this.limits.frame) return refusal("too_large");
    const reply = settleable();
    this.#replies.set(frame.req, reply);
    this.#link.send(frame);
    return reply.promise;
  }

  #lost(link, { code = 1006, reason = "", retry_after = this.#bye.retry_after ?? 0 }) {
    if (this.#link !== link) return;
    if (!link.opened) this.#unopened++;
    else if (link instanceof SocketLink) this.#unopened = 0;
    const final = code === 1008 || code === 4403 || (code === 4401 && typeof this.#options.token !== "function");
    if (final) return this.close(code, reason);
    if (Date.now() - this.#openedAt > this.#patience) this.#attempt = 0; // it was a good one
    this.#drop("lost");
    const wait = retry_after + backoff(this.#attempt++);
    this.#timer = setTimeout(() => this.reconnect(), wait);
    this.#become("waiting", { code, reason, retryAt: Date.now() + wait, offline: globalThis.navigator?.onLine === false });
  }

  // Ends the connection, if there is one, and what waits for its answers.
  #drop(why, code, reason) {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    const [link, replies] = [this.#link, this.#replies];
    this.#link = null;
    this.#replies = new Map();
    this.#openedAt = Infinity;
    link?.close(code, reason);
    for (const room of this.rooms.values()) room.live = false;
    for (const { reject } of replies.values()) reject(new ParleyError({ code: why }));
  }

  // Something happened to the network or the page: what we believed about the connection may be wrong.
  #nudged(type) {
    if (this.state === "open") this.#probe();
    else if (this.state === "waiting" && type !== "offline" && !globalThis.document?.hidden) this.reconnect();
  }

  #probe() {
    const [link, askedAt] = [this.#link, Date.now()];
    this.#ask("ping");
    setTimeout(() => this.#heardAt < askedAt && this.#lost(link, { reason: "silent" }), this.#patience);
  }

  #become(state, detail) {
    this.state = state;
    this.emit("state", { state, ...detail });
    if (state === "open") this.emit("open", detail);
    if (state === "closed") this.emit("close", detail);
  }
}

// A connection over a WebSocket. StreamLink is one over plain HTTP.
class SocketLink {
  #socket;

  constructor(url, on) {
    this.#socket = Object.assign(new WebSocket(url, "parley.v1"), {
      onopen: on.open,
      onmessage: ({ data }) => on.frame(JSON.parse(data)),
      onclose: on.lost,
    });
  }
  send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }
  close(code = 1000, reason) {
    Object.assign(this.#socket, { onopen: null, onmessage: null, onclose: null });
    this.#socket.close(code < 3000 ? 1000 : code, reason);
  }
}

class Room extends Emitter {
  live = false; // false while there is no connection, or the backlog comes
  last = null; // the newest id seen: where to resume
  members = new Map(); // id → user; of a large room some
  count = 0;
  #limit;
  #outbox; // key → message that is not acknowledged, in order
  #promises = new Map(); // key → what send() returned, with resolve and reject
  #recent = new Set(); // sender and key of the last messages
  #busy = false; // one send at a time: whatever fails, the order stays
  #back = {}; // what live will tell

  constructor(chat, name, limit, outbox) {
    super();
    this.name = name;
    this.chat = chat;
    this.#limit = limit;
    this.#outbox = outbox;
  }

  /** What is not acknowledged yet, in order, also from before a reload. */
  get outgoing() {
    return [...this.#outbox.values()];
  }

  /** Says something. Resolves with its id, rejects if it is refused; until then it is repeated as needed. */
  send(text, { data, key = randomKey() } = {}) {
    if (this.chat.state === "closed") return refusal("closed");
    if (!this.#promises.has(key)) {
      this.#promises.set(key, settleable());
      this.#mark({ key, text, data, at: Date.now(), user: this.chat.user?.id }, "pending");
      this.#flush();
    }
    return this.#promises.get(key).promise;
  }

  /** Tries again what failed or could not be confirmed. */
  retry(key) {
    const out = this.#outbox.get(key);
    if (!out?.error) return;
    this.#mark({ ...out, error: undefined, tried: undefined, user: this.chat.user?.id }, "pending");
    this.#flush();
  }

  /** Gives up on a message. If its state was "unconfirmed", the room may have it nevertheless. */
  discard(key) {
    this.#outbox.delete(key);
    this.#finish(key, "reject", new ParleyError({ code: "discarded" }));
  }

  /** Tells those who are here now, such as that one is typing. Nothing is kept. */
  signal(kind, data) {
    return this.chat.request("signal", { room: this.name, kind, data });
  }

  /** Messages before an id, oldest first, and whether there are `more`. */
  history(before, limit) {
    return this.chat.request("history", { room: this.name, before, limit });
  }

  leave() {
    if (!this.#here()) return;
    this.chat.request("leave", { room: this.name });
    this.chat.rooms.delete(this.name);
    this.live = false;
    for (const { key } of this.outgoing) this.discard(key);
  }

  async _join() {
    const since = this.last ?? undefined;
    this.#back = { resumed: !!since, missed: 0, gap: false };
    try {
      const joined = await this.chat.request("join", { room: this.name, since, limit: this.#limit });
      this.#back.last = joined.last;
      this._take({ ...joined, op: "presence", event: "sync" });
    } catch (error) {
      if (!AGAIN.includes(error.code)) this.emit("error", error);
      else if (error.code !== "lost") setTimeout(() => this.#here() && this._join(), error.retryAfter ?? backoff(1));
    }
  }

  _closed() {
    for (const key of this.#promises.keys()) this.#finish(key, "reject", new ParleyError({ code: "closed" }));
  }

  _take(frame) {
    const { op, event, user, members = [], count } = frame;
    if (op === "message") this.#message(frame);
    if (op === "signal") this.emit(op, frame);
    if (op === "gap") {
      this.#back.gap = true;
      this.last = null; // the order starts anew
      this.emit(op, frame);
    }
    if (op === "live") {
      this.live = true;
      this.last ??= this.#back.last ?? null; // nothing came, but the room is at some id
      this.emit(op, { ...this.#back });
      this.#flush();
    }
    if (op === "presence") {
      if (event === "sync") this.members = new Map(members.map((member) => [member.id, member]));
      if (event === "join") this.members.set(user.id, user);
      if (event === "leave") this.members.delete(user.id);
      this.count = count ?? this.members.size;
      this.emit(op, frame);
    }
  }

  #here() {
    return this.chat.rooms.get(this.name) === this;
  }

  #message(message) {
    const { id, from, key } = message;
    if (this.last && compareIds(id, this.last) <= 0) return;
    this.last = id;
    const repeat = key && `${from.id} ${key}`;
    if (this.#recent.has(repeat)) return;
    if (key) this.#recent.add(repeat);
    if (this.#recent.size > 1000) this.#recent.delete(this.#recent.values().next().value);
    const mine = from.id === this.chat.user?.id;
    if (!mine) this.#back.missed++;
    this.emit("message", { ...message, mine, live: this.live });
    if (mine) this.#sent(this.#outbox.get(key), id);
  }

  async #flush() {
    const out = this.live && !this.#busy && this.outgoing.find((out) => !out.error && this.#mayRepeat(out));
    if (!out) return;
    this.#busy = true;
    const { key, text, data, tried = Date.now() } = out;
    this.#outbox.set(key, Object.assign(out, { tried }));
    try {
      this.#sent(out, (await this.chat.request("send", { room: this.name, text, data, key })).id);
    } catch ({ code, message, retryAfter = backoff(1) }) {
      if (!this.#outbox.has(key)) retryAfter = 0; // its echo came first, or it was given up
      else if (!AGAIN.includes(code)) this.#fail(out, "failed", { code, message });
      else if (code === "lost" || code === "unavailable") this.#mark(out, "unconfirmed");
      if (AGAIN.includes(code) && this.live) await new Promise((done) => setTimeout(done, retryAfter));
    }
    this.#busy = false;
    this.#flush();
  }

  // What was tried so long ago that its key may be forgotten, or as somebody else, is not repeated unasked.
  #mayRepeat(out) {
    const other = out.user && out.user !== this.chat.user.id;
    if (other) this.#fail(out, "failed", { code: "forbidden", message: "written as somebody else" });
    else if (Date.now() - out.tried > KEY_LIFE) this.#fail(out, "unconfirmed", { code: "expired", message: "no answer came" });
    return !out.error;
  }

  #fail(out, state, error) {
    this.#mark(Object.assign(out, { error }), state);
    if (state === "failed") this.#finish(out.key, "reject", new ParleyError(error));
  }

  #sent(out, id) {
    if (!out || !this.#outbox.delete(out.key)) return; // its echo came first, or its answer
    this.emit("outgoing", { ...out, state: "sent", id });
    this.#finish(out.key, "resolve", { id });
  }

  #mark(out, state) {
    this.#outbox.set(out.key, Object.assign(out, { state }));
    this.emit("outgoing", { ...out });
  }

  #finish(key, how, value) {
    this.#promises.get(key)?.[how](value);
    this.#promises.delete(key);
  }
}

// A promise and its ends. Those who don't wait for it don't want to hear of it.
function settleable() {
  const it = Promise.withResolvers();
  it.promise.catch(() => {});
  return it;
}

function refusal(code) {
  const { promise, reject } = settleable();
  reject(new ParleyError({ code }));
  return promise;
}

// What outlives the page, where the browser lets it: who we are, for all tabs, and per tab what is not acknowledged. A copied
// tab has both: it repeats the same messages with the same keys, which is harmless.
class Memory {
  #prefix;
  #tab;
  #shared;

  constructor(prefix, persist) {
    this.#prefix = prefix;
    try {
      if (persist) [this.#tab, this.#shared] = [globalThis.sessionStorage, globalThis.localStorage];
    } catch {} // not for this page
  }
  get session() {
    const name = this.#prefix + "session";
    return (this.#own ??= this.#tab?.getItem(name) ?? this.#shared?.getItem(name) ?? undefined);
  }
  set session(token) {
    this.#own = token;
    for (const storage of [this.#tab, this.#shared]) keep(storage, this.#prefix + "session", token);
  }
  #own;
  outbox(room) {
    return new Outbox(this.#tab, `${this.#prefix}out:${encodeURIComponent(room)}:`);
  }
}

// A Map from key to message, in the order of saying, with an entry of the tab's storage each.
class Outbox extends Map {
  #tab;
  #prefix;
  #n = 0;

  constructor(tab, prefix) {
    super();
    const names = Object.keys(tab ?? {}).filter((name) => name.startsWith(prefix));
    const kept = names.map((name) => JSON.parse(tab.getItem(name))).sort((a, b) => a.n - b.n);
    for (const out of kept) super.set(out.key, out);
    this.#tab = tab;
    this.#prefix = prefix;
    this.#n = kept.at(-1)?.n ?? 0;
  }
  set(key, out) {
    out.n ??= ++this.#n;
    keep(this.#tab, this.#prefix + key, JSON.stringify(out));
    return super.set(key, out);
  }
  delete(key) {
    this.#tab?.removeItem(this.#prefix + key);
    return super.delete(key);
  }
}

function keep(storage, name, value) {
  try {
    storage?.setItem(name, value);
  } catch {} // it is full: then for this page only
}
