// Finding in a room: in what is loaded, then page by page in the log. The browser's own search sees only what is on the screen.
import { $ } from "./dom.js";
import { nameOf } from "./people.js";

const when = new Intl.DateTimeFormat([], { dateStyle: "long", timeStyle: "short" });

export class Find {
  #timeline;
  #conversation = null;
  #form = $("find");
  #field = $("find-text");
  #status = $("find-status");
  #found = null; // the message that was found last, of #words
  #words = "";
  #search = new AbortController();

  constructor(timeline, { onclose }) {
    this.#timeline = timeline;
    this.onclose = onclose;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#go();
    });
    this.#form.addEventListener("keydown", (event) => {
      const { key, shiftKey, isComposing } = event;
      if (isComposing || (key !== "Escape" && !(key === "Enter" && shiftKey))) return;
      event.preventDefault();
      event.stopPropagation();
      if (key === "Escape") this.close();
      else this.#go(true);
    });
    $("find-newer").addEventListener("click", () => this.#go(true));
    $("find-close").addEventListener("click", () => this.close());
    $("show-find").addEventListener("click", () => (this.#form.hidden ? this.open() : this.close()));
  }

  /** Whether the field has the focus: whoever asks for it once more means the browser's own. */
  get focused() {
    return document.activeElement === this.#field;
  }

  /** Turns to another room, where nothing is looked for yet. */
  show(conversation) {
    if (conversation === this.#conversation) return;
    this.#conversation = conversation;
    this.#stop();
    this.#form.hidden = true;
  }

  open() {
    this.#form.hidden = false;
    $("show-find").setAttribute("aria-expanded", "true");
    this.#field.select();
  }

  close() {
    this.#stop();
    this.#form.hidden = true;
    this.onclose();
  }

  #stop() {
    this.#search.abort();
    this.#found = null;
    this.#status.textContent = "";
    $("show-find").setAttribute("aria-expanded", "false");
    this.#mark(null);
  }

  // Goes to the next message before the one that was found last, or after it.
  async #go(newer = false) {
    this.#search.abort();
    const { signal } = (this.#search = new AbortController());
    const words = this.#field.value.trim().toLowerCase();
    if (words !== this.#words) this.#found = null;
    this.#words = words;
    if (!words) return;
    this.#status.textContent = "Searching…";
    const conversation = this.#conversation;
    const found = await conversation.search(words, { from: this.#found?.id, newer, signal });
    if (signal.aborted) return;
    if (!found) {
      const all = newer || !conversation.more;
      if (all) this.#status.textContent = this.#found ? `Nothing ${newer ? "newer" : "older"} is found` : "Nothing is found";
      else this.#status.textContent = "Nothing is found as far back as this page goes";
      return;
    }
    this.#found = found;
    await this.#timeline.goTo(found.id);
    if (signal.aborted) return;
    this.#status.textContent = `${nameOf(found.from)}, ${when.format(found.at)}`;
    this.#mark(document.querySelector("#timeline .target .text"));
  }

  // Marks what was looked for, where the browser can without touching the page.
  #mark(node) {
    if (!globalThis.CSS?.highlights) return;
    const marks = new Highlight();
    const walker = node && document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walker?.nextNode()) {
      const part = walker.currentNode;
      const text = part.data.toLowerCase();
      if (text.length !== part.length) continue; // a letter that is two in lower case
      for (let at = text.indexOf(this.#words); at >= 0; at = text.indexOf(this.#words, at + this.#words.length)) {
        marks.add(new StaticRange({ startContainer: part, startOffset: at, endContainer: part, endOffset: at + this.#words.length }));
      }
    }
    CSS.highlights.set("found", marks);
  }
}
