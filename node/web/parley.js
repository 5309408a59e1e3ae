// Parley in the browser: rooms that outlive the connection. parley.d.ts says what everything takes and gives.
//
//   const chat = new Parley("wss://host", { name: "Ada" });
//   const room = chat.join("lobby");
//   room.on("message", ({ from, text }) => console.log(from.name, text));
//   await room.send("hi"); // resolves once the room has it, over however many connections that takes
import { abortable, AGAIN, backoff, Emitter, Latch, ParleyError, quiet, refusal, settleable } from "./parley/common.js";
import { Memory } from "./parley/memory.js";
import { Room } from "./parley/room.js";
import { DetourLink, SocketLink } from "./parley/socket.js";

export { compareIds, ParleyError } from "./parley/common.js";

const HOME = import.meta.url; // of the node that served it; null in the package

const CLIMB = [15_000, 300_000]; // ms until a WebSocket is first tried again from streams, and at most between two tries

const RENEW = { share: 0.8, most: 2 ** 31 - 1, again: 5000 }; // of a token's time; ms that a timer can wait; ms if there is none

const MOST_REFUSED = 4; // tokens of a function, one after the other, until it is over: one of the second of a revocation is

const REFUSED = ["bad_request", "forbidden", "conflict", "too_large"]; // a name or a session, by hello

export class Parley extends Emitter {
  static events = ["state", "open", "close", "welcome", "renamed", "refused", "error"];
  state = "connecting"; // or "open", "waiting" to connect again, "closed" for good
  user = null;
  limits = {};
  rooms = new Map();
  _over = new ParleyError({ code: "closed" }); // what is asked once it is
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
  #asking = null; // for a token
  #given = false; // one was
  #refused = 0; // one after the other
  #renames = new Set(); // under way, with what the name was before each
  #renewal; // to when a fresh one is brought
  #renewAt = Infinity; // by the clock, which goes on while timers sleep
  #timer; // to the next attempt, or this one's deadline
  #watch; // for silence
  #climber; // to the next try of a WebSocket from streams
  #better = null; // that WebSocket
  #ready = new Latch();
  #end = new AbortController();

  constructor(url = HOME && new URL(".", HOME), options = {}) {
    super();
    if (!url) throw new TypeError('Parley needs the URL of a server, such as new Parley("wss://chat.example.org"): a package has none of its own');
    this.url = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    this.#options = options;
    options.signal?.addEventListener("abort", () => this.close(), { signal: this.#end.signal });
    this.#memory = new Memory(`parley:${new URL(this.url).host}:`, options.persist ?? true);
    for (const type of ["online", "offline", "pageshow", "visibilitychange"]) {
      globalThis.addEventListener?.(type, () => this.#nudged(type), { signal: this.#end.signal });
    }
    this.reconnect();
    if (options.signal?.aborted) this.close();
  }

  /** What it goes over: "websocket", or "sse" where those are blocked; null while there is no connection. */
  get transport() {
    return this.state === "open" ? this.#link.transport : null;
  }

  /** Resolves with the user once it is connected; rejects if it is closed for good. */
  get ready() {
    return this.#ready.promise;
  }

  /** Joins a room, with its last messages, and stays in it over all connections until each who joined it left it. */
  join(name, { limit, keep, signal } = {}) {
    const room = this.#room(name, limit, keep)._hold();
    if (signal?.aborted) room.leave();
    else signal?.addEventListener("abort", () => room.leave(), { once: true, signal: this.#end.signal });
    return room;
  }

  #room(name, limit, keep) {
    if (this.rooms.has(name)) return this.rooms.get(name);
    const room = new Room(this, name, { limit, keep }, this.#memory.outbox(name));
    this.rooms.set(name, room);
    if (this.state === "open") room._join();
    if (this.state === "closed") room._closed();
    return room;
  }

  /** Asks the node, once there is a connection: any op of parley.v1. Resolves with its `ok`, rejects with a ParleyError. */
  request(op, fields, { signal } = {}) {
    const ask = () => (this.state === "open" ? this._ask(op, fields) : this.ready.then(ask));
    return abortable(quiet(signal?.aborted ? Promise.reject(signal.reason) : ask()), signal);
  }

  /** Goes by another name from now on. */
  async rename(name) {
    const rename = { before: this.#options.name };
    this.#options = { ...this.#options, name };
    if (this.transport !== "websocket") return this.reconnect();
    const link = this.#link;
    this.#renames.add(rename);
    try {
      const token = await this.#token();
      if (this.#link === link) await this._ask("hello", { token, session: this.#memory.session, name });
    } catch (error) {
      if (this.#link !== link) return; // the next connection says it
      if (error.code === "forbidden") return this.reconnect(); // a node that takes no other name once a room is joined
      const { before } = rename;
      if (this.#options.name === name) this.#options = { ...this.#options, name: before };
      for (const other of this.#renames) if (other.before === name) other.before = before; // nobody goes back to it
      this.emit("refused", { what: "name", value: name, error });
    } finally {
      this.#renames.delete(rename);
    }
  }

  // Asks for one token at a time, whoever needs it.
  async #token() {
    const { token } = this.#options;
    if (typeof token !== "function") return token;
    return (this.#asking ??= this.#fresh(token).finally(() => (this.#asking = null)));
  }

  // Who had a token does not become a guest for want of the next.
  async #fresh(token) {
    let why = "the function gave none";
    try {
      const fresh = await token();
      if (fresh || !this.#given) return (this.#given = !!fresh) ? fresh : undefined;
    } catch (error) {
      why = error?.message ?? error;
    }
    throw new ParleyError({ code: "unavailable", message: `No token came: ${why}` });
  }

  // A fresh token is brought over the connection that there is, before the one that it was opened with expires.
  #renewIn(expires) {
    clearTimeout(this.#renewal);
    this.#renewAt = Infinity;
    if (expires === undefined || typeof this.#options.token !== "function") return;
    this.#renewAt = Date.now() + expires * RENEW.share;
    this.#renewal = setTimeout(() => this.#renew(), Math.min(RENEW.most, expires * RENEW.share));
  }

  async #renew() {
    const link = this.#link;
    this.#renewIn();
    try {
      const token = await this.#token();
      if (this.#link !== link) return;
      await this._ask("hello", { token });
      if (this.#link === link) for (const room of this.rooms.values()) if (room.error) room._join(); // the right may be back
    } catch ({ code }) {
      if (this.#link !== link) return;
      if (!AGAIN.includes(code)) return this.reconnect(); // somebody else's
      this.#renewal = setTimeout(() => this.#renew(), RENEW.again); // as long as the old one holds
    }
  }

  /** A room tells that we go by another name, which another of our connections chose. */
  _renamed({ name = "", info }) {
    const before = this.user.name;
    this.user = { ...this.user, name, info };
    if (before === name) return;
    this.#options = { ...this.#options, name };
    this.emit("renamed", this.user);
  }

  /** Connects now, rather than when the wait is over. */
  reconnect() {
    if (this.state !== "closed") this.#connect();
  }

  // orphaned is of a link that is shared: the tab that led does not answer.
  #connect(orphaned) {
    this.#drop("lost");
    this.#become("connecting");
    const { WebSocket, shared } = this.#options;
    const Link = this.#unopened < 2 ? SocketLink : DetourLink;
    this.#bye = {};
    const begin = shared ?? ((url, on) => new Link(url, on));
    const token = shared && quiet(this.#token()); // who one is decides with whom it is shared
    const link = (this.#link = begin(this.url, {
      WebSocket,
      ...(shared && { Link, token, orphaned, session: () => this.#memory.known(), instead: (orphaned) => this.#link === link && this.#connect(orphaned) }),
      open: () => this.#hello(Object.assign(link, { opened: true })),
      heard: () => (this.#heardAt = Date.now()),
      frame: (frame) => this.#link === link && this.#take(frame),
      lost: (how) => this.#lost(link, how),
    }));
    link.token = token;
    this.#timer = setTimeout(() => this.#lost(link, { reason: "no answer" }), this.#patience);
  }

  /** Leaves for good. What was not acknowledged stays in the tab, and is repeated when the room is next joined. */
  close(code = 1000, reason = "") {
    if (this.state === "closed") return;
    this.#end.abort();
    if (reason) this._over = new ParleyError({ code: "closed", message: `${this._over.message}: ${reason}` });
    this.#drop("closed", code, reason);
    for (const room of this.rooms.values()) room._closed();
    this.#become("closed", { code, reason });
  }

  async #hello(link) {
    try {
      const token = await (link.token ?? this.#token());
      if (this.#link !== link) return;
      const [welcome, refused] = await this.#introduce(token);
      if (this.#link !== link) return;
      this.#welcomed(welcome);
      for (const what of refused) this.emit("refused", what);
    } catch ({ code, message, retryAfter }) {
      if (this.#link !== link) return;
      const dead = ["unauthorized", "expired"].includes(code);
      if (dead) this.#refused++;
      const close = dead ? 4401 : !code || AGAIN.includes(code) ? 1006 : 1008;
      this.#lost(link, { code: close, reason: message, retry_after: retryAfter });
    }
  }

  // Says who we are. What the node refuses of that is dropped, rather than locking us out for good.
  async #introduce(token) {
    const [{ name }, { session }] = [this.#options, this.#memory];
    const known = Object.entries({ name, session }).filter(([, value]) => value !== undefined);
    const tries = known.length < 2 ? [known, []] : [known, [known[1]], [known[0]], []];
    for (let error, [now, ...later] = tries; ; [now, ...later] = later) {
      try {
        const welcome = await this._ask("hello", { token, ...Object.fromEntries(now), named: this.#memory.named(name) });
        const refused = known.filter((it) => !now.includes(it)).map(([what, value]) => ({ what, value, error }));
        if (refused.some(({ what }) => what === "name")) this.#options = { ...this.#options, name: undefined };
        return [welcome, refused];
      } catch (failure) {
        if (!now.length || !REFUSED.includes(failure.code)) throw failure;
        error = failure;
      }
    }
  }

  #welcomed({ ping }) {
    clearTimeout(this.#timer);
    this.#refused = 0;
    this.#openedAt = Date.now();
    this.#patience = Math.max(3000, ping * 400);
    this.#watch = setInterval(() => {
      this.#due();
      if (Date.now() - this.#heardAt >= ping * 1000) this.#probe();
    }, ping * 1000);
    if (this.#link.transport === "sse") this.#climb();
    this.#become("open", { user: this.user });
    for (const room of this.rooms.values()) room._join();
  }

  // Streams are the second choice. Once a WebSocket gets through, frames and all, it takes over.
  #climb(wait = CLIMB[0]) {
    if (this.#link.follows) return; // the tab that leads does
    clearTimeout(this.#climber);
    this.#climber = setTimeout(() => {
      this.#better?.close();
      this.#better = new SocketLink(this.url, {
        WebSocket: this.#options.WebSocket,
        open() {},
        frame: () => {
          this.#unopened = 0;
          this.reconnect();
        },
        lost: () => this.#climb(Math.min(CLIMB[1], 2 * wait)),
      });
    }, wait * (0.5 + Math.random() / 2));
  }

  #take(frame) {
    this.#heardAt = Date.now();
    const { op, req } = frame;
    const reply = this.#replies.get(req);
    if (op === "welcome" && (reply || this.state === "open")) {
      Object.assign(this, { user: frame.user, limits: frame.limits }); // the first of a WebSocket knows nothing of us yet
      if (frame.session) this.#memory.session = frame.session;
      if (frame.named) {
        this.#options = { ...this.#options, name: frame.user.name }; // another tab may have chosen another since
        this.#memory.setNamed(frame.user.name, frame.named);
      }
      this.#renewIn(frame.expires);
      this.emit(op, frame);
    }
    if (reply) {
      this.#replies.delete(req);
      if (op === "error") reply.reject(new ParleyError(frame));
      else reply.resolve((reply.before?.(frame), frame));
    } else if (op === "bye") this.#bye = frame;
    else if (op === "error") this.emit("error", new ParleyError(frame));
    else this.rooms.get(frame.room)?._take(frame);
  }

  /** For rooms: request, but over this connection or not at all. before() gets the `ok` before the next frame is taken. */
  _ask(op, fields, before) {
    if (!this.#link?.opened) return refusal(this.state === "closed" ? this._over : "lost");
    const frame = { op, req: ++this.#requests, ...fields };
    if (new Blob([JSON.stringify(frame)]).size > this.limits.frame) return refusal("too_large");
    const reply = Object.assign(settleable(), { before });
    this.#replies.set(frame.req, reply);
    this.#link.send(frame);
    return reply.promise;
  }

  #lost(link, { code = 1006, reason = "", retry_after = this.#bye.retry_after ?? 0 }) {
    if (this.#link !== link) return;
    if (!link.opened) this.#unopened++;
    else if (link.transport === "websocket") this.#unopened = 0;
    const dead = code === 4401 && (typeof this.#options.token !== "function" || this.#refused >= MOST_REFUSED);
    if (dead || code === 1008 || code === 4403) return this.close(code, reason);
    if (Date.now() - this.#openedAt > this.#patience) this.#attempt = 0; // it was a good one
    this.#drop("lost");
    const wait = retry_after + backoff(this.#attempt++);
    this.#timer = setTimeout(() => this.reconnect(), wait);
    const offline = globalThis.navigator?.onLine === false;
    const crowded = reason === "no answer" && link instanceof DetourLink && !offline;
    this.#become("waiting", { code, reason, retryAt: Date.now() + wait, offline, crowded });
  }

  // Ends the connection, if there is one, and what waits for its answers.
  #drop(why, code, reason) {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    clearTimeout(this.#climber);
    this.#renewIn();
    this.#better?.close();
    this.#better = null;
    const [link, replies] = [this.#link, this.#replies];
    this.#link = null;
    this.#replies = new Map();
    this.#openedAt = Infinity;
    link?.close(code, reason);
    for (const room of this.rooms.values()) room._lost();
    for (const { reject } of replies.values()) reject(why === "closed" ? this._over : new ParleyError({ code: why }));
  }

  // Something happened to the network or the page: what we believed about the connection may be wrong.
  #nudged(type) {
    if (this.state === "open") {
      this.#due();
      this.#probe();
    }
    if (this.state === "open" && type === "online" && this.#link.transport === "sse") this.#climb(1000);
    else if (this.state === "waiting" && type !== "offline" && !globalThis.document?.hidden) this.reconnect();
  }

  // Timers that were to renew the token may have slept.
  #due() {
    if (Date.now() >= this.#renewAt) this.#renew();
  }

  #probe() {
    const [link, askedAt] = [this.#link, Date.now()];
    this._ask("ping");
    setTimeout(() => this.#heardAt < askedAt && this.#lost(link, { reason: "silent" }), this.#patience);
  }

  #become(state, detail) {
    this.state = state;
    const transport = this.transport;
    this.#options.log?.([state, transport && `over ${transport}`, detail?.reason].filter(Boolean).join(" "), { transport, ...detail });
    if (state === "open") this.#ready.open(this.user);
    else if (state === "closed") this.#ready.fail(this._over);
    else this.#ready.shut();
    this.emit("state", { state, transport, ...detail });
    if (state === "open") this.emit("open", detail);
    if (state === "closed") this.emit("close", detail);
  }
}
