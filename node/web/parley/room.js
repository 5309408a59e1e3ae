// A room that one is in: its messages in order and once each, its members, and what one says, until it is acknowledged.
import { AGAIN, backoff, compareIds, Emitter, ParleyError, refusal, settleable } from "./common.js";

const KEY_LIFE = 10 * 60_000; // nodes remember the key of a send for so long: until then a repeat is safe

const hex = (byte) => byte.toString(16).padStart(2, "0");
const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), hex).join("");

/** Made by Parley.join. What begins with _ is for the connection to call. */
export class Room extends Emitter {
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
    const { key, text, data, tried = Date.now(), user = this.chat.user.id } = out;
    this.#outbox.set(key, Object.assign(out, { tried, user }));
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
    if (out.user && out.user !== this.chat.user.id) {
      this.#fail(out, "failed", { code: "forbidden", message: "written as somebody else" });
    } else if (Date.now() - out.tried > KEY_LIFE) {
      this.#fail(out, "unconfirmed", { code: "expired", message: "no answer came" });
    }
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
