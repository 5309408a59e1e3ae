// Tells screen readers what is new, and only that: the log itself is silent, as it also takes in history.
import { el, plural } from "./dom.js";
import { nameOf } from "./people.js";

const PAUSE = 1500; // ms between two announcements
const AT_ONCE = 3; // more messages than this are only counted

export class Announcer {
  #region;
  #waiting = [];
  #timer = null;

  constructor(region) {
    this.#region = region;
  }

  message({ from, text = "" }) {
    this.#waiting.push(`${nameOf(from)}: ${text.slice(0, 300)}`);
    if (this.#waiting.length > 1000) this.#waiting.shift();
    this.#timer ??= setTimeout(() => this.#speak(), 100);
  }

  #speak() {
    const spoken = this.#waiting.length > AT_ONCE ? [plural(this.#waiting.length, "new message")] : this.#waiting;
    this.#waiting = [];
    this.#region.replaceChildren(...spoken.map((line) => el("p", { textContent: line })));
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#waiting.length) this.#speak();
    }, PAUSE);
  }
}
