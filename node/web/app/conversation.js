// What the page knows of one room: the messages that are loaded, what is on its way, what is unread, who types.
import { compareIds } from "../parley.js";
import { kept } from "./dom.js";
import { mentions } from "./markup.js";
import { nameOf, Names } from "./people.js";

const KEEP = 3000; // items of one room; past it the oldest go, or, while somebody reads those, the newest don't come
const MOST = 10_000; // items of one room while somebody reads back: past it the newest go
const PAGE = 50;
const MOST_OF_A_PAGE = 200; // what a node gives at once
const AGAIN = { unavailable: 2000, rate_limited: 2000 }; // ms until history is asked for again
const TYPING = 6000; // ms until somebody who fell silent counts as not typing
const MANY = 50; // members of a room from which on it is only counted who comes and goes

const isId = (id) => typeof id === "string" && /^\d+-\d+$/.test(id); // what the browser kept may be anything

/** Fires "change" when the timeline has, "people" when those who are here or type have, "unread" when that count has, "ready"
 * once, and "arrival" with each new message. */
export class Conversation extends EventTarget {
  items = []; // { kind: "message" | "gap" | "presence", key, … }, oldest first
  offset = 0; // items[i] is number offset + i, for good
  outgoing = new Map(); // key → message of ours that has not come back from the room
  typing = new Map(); // user id → user
  more = true; // there may be older messages in the log
  unread = 0;
  divider = null; // the id of the first message that was unread
  reading = false; // somebody looks at older messages: those must stay
  detached = false; // so far back that what is new is only counted
  error = null; // why the room can't be joined
  waiting = null; // why it can't be joined just now
  ready = false; // it was live once
  names = new Names();
  #ids = new Set();
  #timers = new Map();
  #loading = null;
  #seeking = 0; // searches that load: what they did stays
  #watched = false;
  #readUntil;
  #catchingUp = false; // what was missed comes, and some of it has
  #saving = null;
  #runs = 0;
  #listeners;

  constructor(room) {
    super();
    this.room = room;
    const read = kept.get(`read:${room.name}`);
    this.#readUntil = isId(read) ? read : null;
    for (const out of room.outgoing) this.outgoing.set(out.key, out);
    this.#listeners = [
      room.on("message", (message) => this.#message(message)),
      room.on("outgoing", (out) => this.#outgoing(out)),
      room.on("gap", (gap) => this.#gap(gap)),
      room.on("presence", (presence) => this.#presence(presence)),
      room.on("signal", (signal) => this.#signal(signal)),
      room.on("error", (error) => this.#changed((this.error = error))),
      room.on("waiting", (error) => this.#changed((this.waiting = error))),
      room.on("live", () => this.#live()),
      kept.on(`read:${room.name}`, (id) => this.#readElsewhere(id)),
    ];
    if (room.live) this.#load().then(() => this.#live()); // it was about to be left
  }

  /** Leaves the room: once what was said in it is sent. */
  leave() {
    for (const stop of this.#listeners) stop();
    this.room.leave();
  }

  get name() {
    return this.room.name;
  }

  get end() {
    return this.offset + this.items.length;
  }

  /** The item of that number. */
  at(number) {
    return this.items[number - this.offset];
  }

  /** My name, as others may address me. */
  get me() {
    const { user } = this.room.chat;
    return user ? nameOf(user) : "";
  }

  /** Whether somebody looks at the newest messages right now. Whoever does has read them. */
  set watched(watched) {
    this.#watched = watched;
    if (watched) this.#read();
  }

  /** Somebody turned to another room: when they come back, what they have read needs no line. */
  turnAway() {
    this.#watched = this.reading = false;
    if (!this.unread) this.divider = null;
  }

  send(text) {
    this.divider = null;
    this.room.send(text);
  }

  discard(key) {
    this.outgoing.delete(key);
    this.room.discard(key);
    this.#changed();
  }

  /** Loads a page of older messages. Does nothing while one is on its way, or when there are none. */
  loadOlder() {
    if (!this.more || !this.ready) return;
    const oldest = this.items.find((item) => item.kind === "message");
    this.#loading ??= this.#load(oldest?.id).finally(() => (this.#loading = null));
  }

  /** Loads as far back as a message, and gives it; undefined if the log has it no more. */
  find(id) {
    return this.#seek(() => this.items.find((item) => item.id === id), (oldest) => oldest && compareIds(oldest, id) < 0);
  }

  /** The next message before another, or before the end, in whose text some words are, in lower case; undefined if there is none.
   * Loads as far back as that takes. Or the next one after another, of what is loaded. */
  search(words, { from, newer = false, signal }) {
    const beyond = (id) => !from || (newer ? compareIds(id, from) > 0 : compareIds(id, from) < 0);
    const fits = ({ kind, id, text }) => kind === "message" && !!text?.toLowerCase().includes(words) && beyond(id);
    return this.#seek(() => (newer ? this.items.find(fits) : this.items.findLast(fits)), () => newer || signal.aborted);
  }

  // Loads older messages until what is sought is there, or is no more to be had.
  async #seek(there, over) {
    this.#seeking++;
    try {
      for (let found; ; ) {
        if ((found = there()) || !this.more || this.items.length >= MOST) return found;
        const oldest = this.items.find((item) => item.kind === "message")?.id;
        if (over(oldest)) return;
        this.#loading ??= this.#load(oldest, MOST_OF_A_PAGE).finally(() => (this.#loading = null));
        await this.#loading;
      }
    } finally {
      this.#seeking--;
    }
  }

  /** After detached: forgets what was loaded, and shows the newest again. */
  async reattach() {
    this.detached = false;
    this.offset = this.end;
    this.items = [];
    this.#ids.clear();
    this.more = true;
    await this.#loading;
    this.#loading = this.#load().finally(() => (this.#loading = null));
    await this.#loading;
  }

  async #load(before, size = PAGE) {
    try {
      const { messages, more } = await this.room.history(before, size);
      const older = messages.filter(({ id }) => !this.#ids.has(id));
      for (const { id } of older) this.#ids.add(id);
      this.items.unshift(...older.map((message) => this.#item(message)));
      this.offset -= older.length;
      this.more = more;
      for (const { id } of this.items.splice(MOST)) {
        this.#ids.delete(id);
        this.detached = true;
      }
    } catch ({ code, retryAfter = AGAIN[code] }) {
      if (retryAfter) await new Promise((done) => setTimeout(done, retryAfter));
      else this.more = false; // it can't be had
    }
    this.#changed();
  }

  #item(message) {
    this.names.note(message.from);
    const mine = message.from.id === this.room.chat.user?.id;
    return { ...message, mine, kind: "message", itemKey: mine && message.key ? `k${message.key}` : `i${message.id}` };
  }

  #message(message) {
    const { id, key, from, mine } = message;
    if (this.#ids.has(id)) return;
    if (mine) this.outgoing.delete(key);
    this.#stopTyping(from.id);
    const old = !this.#readUntil || compareIds(id, this.#readUntil) <= 0;
    if (mine || (this.#watched && message.live)) this.#noteRead(id);
    else if (!old) this.#countUnread(message);
    if (this.reading && this.items.length >= KEEP) this.detached = true;
    if (!this.detached) {
      this.#ids.add(id);
      this.#append(this.#item(message));
    }
    if (message.live && !mine) this.#fire("arrival", { message, addressed: mentions(message.text ?? "", this.me) });
    this.#changed();
  }

  #append(item) {
    this.items.push(item);
    const over = this.items.length - KEEP;
    if (over < PAGE || this.reading || this.#seeking) return;
    for (const { id } of this.items.splice(0, over)) this.#ids.delete(id);
    this.offset += over;
    this.more = true;
  }

  #outgoing(out) {
    const itemKey = `k${out.key}`;
    if (out.state === "sent" ? this.#ids.has(out.id) : this.items.some((item) => item.itemKey === itemKey)) this.outgoing.delete(out.key);
    else this.outgoing.set(out.key, out);
    this.#changed();
  }

  #gap({ after }) {
    this.#readUntil = "0-0"; // whatever comes now was not read
    if (this.items.length) this.#append({ kind: "gap", itemKey: `g${after}${this.#runs++}`, after });
    this.#changed();
  }

  #live() {
    this.error = this.waiting = null;
    this.#catchingUp = false;
    if (!this.#readUntil) this.#noteRead(this.room.last ?? "0-0");
    if (!this.ready) {
      this.ready = true;
      if (!this.items.length) this.more = false;
      this.#fire("ready");
    }
    this.#changed();
  }

  // Comings and goings one after the other share a line.
  #presence({ event, user, count }) {
    for (const member of user ? [user] : this.room.members.values()) this.names.note(member);
    if ((event === "join" || event === "leave") && user.id !== this.room.chat.user?.id && !this.detached) {
      let line = this.items.at(-1);
      if (line?.kind !== "presence") {
        line = { kind: "presence", itemKey: `p${this.#runs++}`, joined: new Map(), left: new Map(), version: 0 };
        this.#append(line);
      }
      const [here, there] = event === "join" ? [line.joined, line.left] : [line.left, line.joined];
      if (!there.delete(user.id)) here.set(user.id, user);
      line.version++;
      line.many = count > MANY;
    }
    if (event === "leave") this.#stopTyping(user.id);
    this.#changed();
    this.#fire("people");
  }

  #signal({ kind, user, data }) {
    if (kind !== "typing" || user.id === this.room.chat.user?.id) return;
    this.#stopTyping(user.id);
    if (data?.on !== false) {
      this.typing.set(user.id, user);
      this.#timers.set(user.id, setTimeout(() => this.#stopTyping(user.id), TYPING));
    }
    this.#fire("people");
  }

  #stopTyping(id) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
    if (this.typing.delete(id)) this.#fire("people");
  }

  // The line stays before the first that was missed, though that may be read before the last has come.
  #countUnread({ id, live }) {
    if (!this.unread && !(this.#catchingUp && !live)) this.divider = id;
    this.#catchingUp = !live;
    this.unread++;
    this.#fire("unread");
  }

  #read() {
    if (this.room.last) this.#noteRead(this.room.last);
    if (!this.unread) return;
    this.unread = 0;
    this.#fire("unread");
    this.#changed();
  }

  // Another tab has read on.
  #readElsewhere(id) {
    if (!isId(id) || (this.#readUntil && compareIds(id, this.#readUntil) <= 0)) return;
    this.#readUntil = id;
    const unread = this.items.filter((item) => item.kind === "message" && !item.mine && compareIds(item.id, id) > 0);
    if (unread.length >= this.unread) return;
    this.unread = unread.length;
    this.divider = unread[0]?.id ?? null;
    this.#fire("unread");
    this.#changed();
  }

  #noteRead(id) {
    this.#readUntil = id;
    this.#saving ??= setTimeout(() => {
      this.#saving = null;
      kept.set(`read:${this.name}`, this.#readUntil);
    }, 500);
  }

  #changed() {
    this.#fire("change");
  }

  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
