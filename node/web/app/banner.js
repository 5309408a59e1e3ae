// Says what is wrong with the connection: not at once, since most breaks mend themselves before they matter, and then what
// was missed. The countdown is for the eye only; a screen reader hears each state once.
import { $, plural } from "./dom.js";

const PATIENCE = 2000; // ms that a broken connection may mend itself unmentioned
const FIRST_PATIENCE = 4000; // the same for the first connection of the page
const GOOD_NEWS = 4000; // ms that these stay
const GAP_NEWS = 12_000;

export class Banner {
  #chat;
  #node = $("banner");
  #text = $("banner-text");
  #countdown = $("banner-countdown");
  #action = $("banner-action");
  #state = { state: "connecting" };
  #brokenSince = Date.now();
  #timer = null; // until it alarms, counts on, or goes away
  #opened = false;
  #waiting = new Set(); // rooms that have not caught up yet
  #news = { missed: 0, gap: false };
  #noted = false; // a note stands there

  constructor(chat) {
    this.#chat = chat;
    chat.on("state", (state) => this.#become(state));
    this.#action.addEventListener("click", () => (chat.state === "closed" ? location.reload() : chat.reconnect()));
    this.#wait(FIRST_PATIENCE);
  }

  /** Notes that a room is live again, and what came meanwhile. */
  caughtUp(room, { resumed, missed, gap }) {
    if (resumed) this.#news.missed += missed;
    this.#news.gap ||= gap;
    this.dropped(room);
  }

  /** Notes that a room is not waited for: it is live, was refused, or was left. */
  dropped(room) {
    if (this.#waiting.delete(room) && !this.#waiting.size) this.#tellNews();
  }

  /** Says something that is not about the connection. */
  note(text) {
    if (this.#node.className === "bad" && !this.#node.hidden && this.#state.state !== "open") return;
    this.#noted = true;
    clearTimeout(this.#timer);
    this.#say("gap", text);
    this.#timer = setTimeout(() => this.#hide(), GAP_NEWS);
  }

  #become(state) {
    this.#state = state;
    if (state.state === "open") {
      clearTimeout(this.#timer);
      this.#brokenSince = null;
      this.#waiting = new Set(this.#chat.rooms.values());
      this.#news = { missed: 0, gap: false };
      this.#opened = true;
      if (!this.#waiting.size) this.#hide();
      return;
    }
    const patience = this.#opened ? PATIENCE : FIRST_PATIENCE;
    this.#brokenSince ??= Date.now();
    if (state.state === "closed") this.#alarm();
    else if (this.#node.hidden || this.#node.className === "good") this.#wait(patience - (Date.now() - this.#brokenSince));
    else this.#alarm();
  }

  #wait(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#alarm(), Math.max(0, ms));
  }

  #alarm() {
    clearTimeout(this.#timer);
    const { state, retryAt, offline, crowded, reason } = this.#state;
    const seconds = Math.ceil((retryAt - Date.now()) / 1000);
    const countdown = seconds > 0 ? `Trying again in ${seconds} s` : "";
    if (state === "closed") this.#say("bad", `The connection was closed${reason && `: ${reason}`}.`, "", "Connect again");
    else if (offline) this.#say("bad", "You are offline. What you write is sent when you are back.", "", "Retry now");
    else if (crowded) this.#say("bad", "No answer. If this page is open in many tabs, close some: a browser opens only six connections to a server.", countdown, "Retry now");
    else if (state === "connecting") this.#say("bad", "Connecting…");
    else this.#say("bad", "No connection. What you write is kept.", countdown, "Retry now");
    if (state === "waiting") this.#timer = setTimeout(() => this.#alarm(), 1000);
  }

  #tellNews() {
    const { missed, gap } = this.#news;
    const alarmed = !this.#node.hidden;
    if (gap) this.#say("gap", "Back again, but the history has a gap: some messages are lost.");
    else if (missed) this.#say("good", `Caught up, ${plural(missed, "message")} missed.`);
    else if (alarmed && !this.#noted) this.#say("good", "Connected again, nothing missed.");
    else return;
    this.#timer = setTimeout(() => this.#hide(), gap ? GAP_NEWS : GOOD_NEWS);
  }

  #say(kind, text, countdown = "", action = "") {
    this.#node.className = kind;
    this.#node.hidden = false;
    if (this.#text.textContent !== text) this.#text.textContent = text;
    this.#countdown.textContent = countdown;
    this.#action.hidden = !action;
    this.#action.textContent = action;
  }

  #hide() {
    clearTimeout(this.#timer);
    this.#node.hidden = true;
    this.#noted = false;
    this.#text.textContent = "";
  }
}
