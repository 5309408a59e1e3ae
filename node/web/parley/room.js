// A room that one is in: its messages in order and once each, its members, and what one says, until it is acknowledged.
import { abortable, AGAIN, backoff, compareIds, Emitter, Latch, ParleyError, print, quiet, refusal, settleable, sleep } from "./common.js";

const KEY_LIFE = 10 * 60_000; // nodes remember the key of a send for so long: until then a repeat is safe

const KEEP = 500; // messages in a snapshot
const RECENT = 1000; // messages that are known again
const REPEATED = KEY_LIFE + 60_000; // ms after which the same words with the same key are said anew: a repeat is on its way for less than a minute
const TYPING_EVERY = 3000; // ms between two signals
const TYPING = 6000; // ms until somebody who fell silent counts as not typing

const hex = (byte) => byte.toString(16).padStart(2, "0");
const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), hex).join("");

// The same key of the same sender with another content names another message: an application that speaks for a user has keys of its own.
const content = ({ text = "", data = null }) => print(JSON.stringify([text, data]));

/** Made by Parley.join. What begins with _ is for the connection to call. */
export class Room extends Emitter {
  static events = ["message", "outgoing", "live", "gap", "presence", "signal", "waiting", "error"];
  live = false; // false while there is no connection, or the backlog comes
  last = null; // the newest id seen: where to resume
  members = new Map(); // id → user; of a large room some
  count = 0;
  error = null; // why it can't be joined
  #holders = 0; // who joined it, and has not left
  #left = null; // when the last one does, or did
  #ready = new Latch(); // live
  #turn = 0; // of joining: whatever belongs to an earlier one is over
  #joined = false; // what comes is of this turn
  #link = new AbortController(); // aborted with the connection
  #messages = []; // the newest, up to #keep
  #keep;
  #typists = new Map(); // id → { user, timer }
  #typedAt = -Infinity;
  #snapshot = null; // until something changes
  #limit;
  #outbox; // key → message that is not acknowledged, in order
  #promises = new Map(); // key → what send() returned, with resolve and reject
  #recent = new Map(); // what tells the last messages from others → when they were said
  #before = new Map(); // the same of those before the last gap
  #busy = false; // one send at a time: whatever fails, the order stays
  #heard = new Map(); // key → id of what has come back without an answer: it may be no other's yet, as replicas may have to have it first
  #back = {}; // what live will tell

  constructor(chat, name, { limit, keep = KEEP }, outbox) {
    super();
    this.name = name;
    this.chat = chat;
    this.#limit = limit;
    this.#keep = keep;
    for (const type of Room.events) this.addEventListener(type, () => this.#changed());
    this.#outbox = outbox;
  }

  /** The newest messages, oldest first. A gap empties it: what it holds has no hole. */
  get messages() {
    return this.snapshot().messages;
  }

  /** Who is typing. */
  get typists() {
    return this.snapshot().typists;
  }

  /** All that is known of the room now. It stays the same object until something changes. */
  snapshot = () =>
    (this.#snapshot ??= Object.freeze({
      messages: this.#messages.slice(),
      outgoing: this.outgoing.filter(({ key }) => !this.#heard.has(key)), // what is heard is there once
      members: [...this.members.values()],
      count: this.count,
      typists: [...this.#typists.values()].map(({ user }) => user),
      live: this.live,
      error: this.error,
    }));

  /** Calls a listener when the snapshot has changed. Returns what ends that. Both are bound, as useSyncExternalStore wants. */
  subscribe = (listener) => {
    this.addEventListener("change", listener);
    return () => this.removeEventListener("change", listener);
  };

  /** What is not acknowledged yet, in order, also from before a reload. */
  get outgoing() {
    return [...this.#outbox.values()];
  }

  /** Resolves once it is live; rejects if it can't be joined, or was left. */
  get ready() {
    return this.#ready.promise;
  }

  /** Says something. Resolves with its id, rejects if it is refused; until then it is repeated as needed. */
  send(text, { data, key = randomKey(), signal } = {}) {
    if (signal?.aborted) return quiet(Promise.reject(signal.reason));
    if (this.chat.state === "closed") return refusal(this.chat._over);
    if (this.#left) return refusal("left");
    if (!this.#promises.has(key)) {
      this.#promises.set(key, settleable());
      this.#mark({ key, text, data, at: Date.now(), user: this.chat.user?.id }, "pending");
    }
    const promise = abortable(this.#promises.get(key).promise, signal);
    const giveUp = () => this.discard(key);
    signal?.addEventListener("abort", giveUp, { once: true });
    promise.then(() => signal?.removeEventListener("abort", giveUp), () => {}); // what failed can still be given up
    this.#flush();
    return promise;
  }

  /** Tries again what failed or could not be confirmed. */
  retry(key) {
    const out = this.#outbox.get(key);
    if (!out?.error) return;
    this.#mark({ ...out, error: undefined, tried: undefined, user: this.chat.user?.id }, "pending");
    if (this.error && this.chat.state === "open") this._join();
    this.#flush();
  }

  /** Gives up on a message. If its state was "unconfirmed", the room may have it nevertheless. */
  discard(key) {
    this.#outbox.delete(key);
    this.#finish(key, "reject", new ParleyError({ code: "discarded" }));
    this.#changed();
    this.#flush();
  }

  /** Tells those who are here now, once it is live. Nothing is kept. */
  signal(kind, data) {
    return quiet(this.ready.then(() => this.chat._ask("signal", { room: this.name, kind, data })));
  }

  /** Tells the others that one is typing; call it at each key: it is said every few seconds, and only while live. */
  typing() {
    if (!this.live || Date.now() - this.#typedAt < TYPING_EVERY) return;
    this.#typedAt = Date.now();
    this.signal("typing");
  }

  /** All messages before an id, one by one, newest first: for await (const message of room.past()) … */
  async *past(before, { limit, signal } = {}) {
    for (let more = true; more; ) {
      const page = await this.history(before, limit, { signal });
      yield* page.messages.toReversed?.() ?? [...page.messages].reverse();
      before = page.messages[0]?.id;
      more = page.more && !!before;
    }
  }

  /** Messages before an id, oldest first, and whether there are `more`. Waits for a connection, as often as it takes. */
  history(before, limit, options) {
    const ask = () => this.chat.request("history", { room: this.name, before, limit }, options).catch((error) => {
      if (error.code !== "lost") throw error;
      return ask();
    });
    return quiet(ask());
  }

  /** Leaves, if nobody else holds the room: once what is queued was sent. */
  leave() {
    if (this.#left) return this.#left.promise;
    if (--this.#holders > 0) return Promise.resolve();
    this.#left = settleable();
    const { promise } = this.#left;
    this.#flush();
    return promise;
  }

  /** Somebody joins. */
  _hold() {
    this.#holders++;
    this.#left?.resolve();
    this.#left = null;
    return this;
  }

  async _join() {
    const turn = ++this.#turn;
    const since = this.last ?? undefined;
    this.#back = { resumed: !!since, missed: 0, gap: false };
    this.live = this.#joined = false;
    this.error = null;
    this.#ready.shut();
    try {
      await this.chat._ask("join", { room: this.name, since, limit: this.#limit }, (joined) => {
        if (turn !== this.#turn) return;
        this.#joined = true;
        this.#back.last = joined.last;
        this._take({ ...joined, op: "presence", event: "sync" });
      });
    } catch (error) {
      if (turn !== this.#turn || error.code === "lost") return;
      if (!AGAIN.includes(error.code)) return this.#refused(error);
      this.emit("waiting", error);
      await sleep(error.retryAfter ?? backoff(1), this.#link.signal);
      if (turn === this.#turn) this._join();
    }
  }

  /** The connection is gone, and what waited for it. */
  _lost() {
    this.#turn++;
    this.live = this.#joined = false;
    this.error = null;
    this.#ready.shut();
    for (const { user } of [...this.#typists.values()]) this.#types(user, false);
    this.#changed();
    this.#link.abort();
    this.#link = new AbortController();
  }

  _closed() {
    for (const key of this.#promises.keys()) this.#finish(key, "reject", this.chat._over);
    this.#ready.fail(this.chat._over);
    this.#left?.resolve();
  }

  _take(frame) {
    const { op, event, user, members = [], count } = frame;
    if (!this.#joined) return; // it belongs to when the room was last joined
    if (op === "message") this.#message(frame);
    if (op === "signal") {
      if (frame.kind === "typing" && user.id !== this.chat.user?.id) this.#types(user, frame.data?.on !== false);
      this.emit(op, frame);
    }
    if (op === "left") { // the right to be here was taken away
      this.#turn++;
      this.live = this.#joined = false;
      this.#ready.shut();
      this.#refused(new ParleyError(frame));
    }
    if (op === "gap") {
      this.#messages = [];
      this.#before = new Map([...this.#before, ...this.#recent].slice(-RECENT));
      this.#recent.clear();
      this.#heard.clear(); // it may be among what is lost
      this.#back.gap = true;
      this.last = frame.last ?? null; // the order starts anew
      this.emit(op, frame);
    }
    if (op === "live") {
      this.live = true;
      this.last ??= this.#back.last ?? null; // nothing came, but the room is at some id
      this.emit(op, { ...this.#back });
      this.#ready.open(this);
      this.#flush();
    }
    if (op === "presence") {
      if (event === "sync") this.members = new Map(members.map((member) => [member.id, member]));
      if (event === "join" || event === "update") this.members.set(user.id, user);
      if (event === "update" && user.id === this.chat.user?.id) this.chat._renamed(user);
      if (event === "leave") this.members.delete(user.id);
      if (event === "leave") this.#types(user, false);
      this.count = count ?? this.members.size;
      this.emit(op, frame);
    }
  }

  #types(user, on) {
    clearTimeout(this.#typists.get(user.id)?.timer);
    if (!on && !this.#typists.delete(user.id)) return;
    if (on) this.#typists.set(user.id, { user, timer: setTimeout(() => this.#types(user, false), TYPING) });
    this.#changed();
  }

  #changed() {
    this.#snapshot = null;
    this.dispatchEvent(new Event("change"));
  }

  #refused(error) {
    this.error = error;
    this.#ready.fail(error);
    this.emit("error", error);
    this.#flush();
  }

  // The last holder left, and nothing waits to be sent.
  #leave() {
    const left = this.#left;
    this.chat.rooms.delete(this.name);
    this._lost();
    for (const { key } of this.outgoing) this.discard(key);
    this.#ready.fail("left");
    if (this.chat.state !== "open") return left.resolve();
    this.chat._ask("leave", { room: this.name }).then(left.resolve, left.resolve); // without a connection one is not there either
  }

  #message(message) {
    const { id, from, key } = message;
    if (this.last && compareIds(id, this.last) <= 0) return;
    this.last = id;
    const same = key ? JSON.stringify([from.id, key]) + content(message) : id;
    const at = parseInt(id);
    const isRepeat = (seen) => at - seen.get(same) < REPEATED;
    if (isRepeat(this.#recent)) return;
    this.#recent.delete(same); // the newest is the last
    this.#recent.set(same, at);
    if (this.#recent.size > RECENT) this.#recent.delete(this.#recent.keys().next().value);
    const mine = from.id === this.chat.user?.id;
    const arrival = { ...message, mine, live: this.live };
    this.#messages.push(arrival);
    if (this.#messages.length > this.#keep) this.#messages.shift();
    const out = mine && this.#outbox.get(key);
    const echo = out && content(out) === content(message);
    if (echo && !out.error) this.#heard.set(key, id);
    if (isRepeat(this.#before)) return this.#changed();
    if (!mine) this.#back.missed++;
    this.#types(from, false);
    this.emit("message", arrival);
    if (echo && out.error) this.#sent(out, id);
  }

  async #flush() {
    if (this.#busy || this.chat.rooms.get(this.name) !== this) return;
    for (const out of this.error ? this.outgoing : []) if (!out.error) this.#fail(out, "failed", this.error);
    const out = this.live && this.outgoing.find((out) => !out.error && this.#mayRepeat(out));
    if (this.#left && this.outgoing.every(({ error }) => error)) return this.#leave();
    if (!out) return;
    this.#busy = true;
    const link = this.#link.signal;
    const { key, text, data, tried = Date.now(), user = this.chat.user.id } = out;
    this.#outbox.set(key, Object.assign(out, { tried, user }));
    try {
      this.#sent(out, (await this.chat._ask("send", { room: this.name, text, data, key })).id);
    } catch (error) {
      const { code, retryAfter = backoff(1) } = error;
      const unanswered = ["lost", "closed", "unavailable"].includes(code);
      if (code === "not_joined" && !link.aborted) this._join();
      if (!this.#outbox.has(key)); // it was given up
      else if (unanswered) this.#mark(out, "unconfirmed");
      else if (!AGAIN.includes(code)) this.#fail(out, "failed", error);
      if (AGAIN.includes(code) && this.#outbox.has(key)) await sleep(retryAfter, link);
    }
    this.#busy = false;
    this.#flush();
  }

  // What was tried so long ago that its key may be forgotten, or as somebody else, is not repeated unasked.
  #mayRepeat(out) {
    if (out.user && out.user !== this.chat.user.id) {
      this.#fail(out, "failed", { code: "forbidden", message: "written as somebody else" });
    } else if (Date.now() - out.tried > KEY_LIFE) {
      this.#fail(out, "unconfirmed", { code: "expired" });
    }
    return !out.error && this.#outbox.has(out.key);
  }

  #fail(out, state, why) {
    if (this.#heard.has(out.key)) return this.#sent(out, this.#heard.get(out.key)); // it is not asked for again, and there
    const { code, message } = why instanceof ParleyError ? why : new ParleyError(why);
    this.#mark(Object.assign(out, { error: { code, message } }), state);
    this.#finish(out.key, "reject", new ParleyError({ code, message }));
  }

  #sent(out, id) {
    if (!this.#outbox.delete(out.key)) return; // it was given up
    this.emit("outgoing", { ...out, state: "sent", id });
    this.#finish(out.key, "resolve", { id });
  }

  #mark(out, state) {
    this.#outbox.set(out.key, Object.assign(out, { state }));
    this.emit("outgoing", { ...out });
  }

  #finish(key, how, value) {
    this.#heard.delete(key);
    this.#promises.get(key)?.[how](value);
    this.#promises.delete(key);
  }
}
