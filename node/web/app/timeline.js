// The messages of one room on the screen. Only a window of them is in the page: what is far off is dropped, and drawn again
// when the reader comes near. Whatever is added or dropped, what the reader looks at stays where it is.
import { $, oncePerFrame, plural } from "./dom.js";
import { chosenName } from "./profile.js";
import { rowsOf } from "./rows.js";

const WINDOW = 160; // items in the page, at most
const FIRST = 60; // items that a room is opened with: all at once would hold up the page
const STEP = 20; // items that come at an end of the window, when the reader gets near it or the room has just been opened
const NEAR = 900; // px from an end that count as near
const BOTTOM = 40; // px from the end within which the reader follows what comes

export class Timeline {
  #scroller;
  #list;
  #top;
  #jump;
  #conversation = null;
  #from = 0; // the window: items by number
  #to = 0;
  #following = true; // at the end, and staying there
  #rows = new Map(); // key → { node, sig }
  #views = new WeakMap(); // conversation → where its reader was
  #update = oncePerFrame(() => this.#redraw());
  #widen = oncePerFrame(() => this.#grow());
  #stuckAt = 0; // where it was left, following: only the reader goes above
  #onChange = () => this.#update();
  #onReady = () => this.#following && this.#open();

  constructor({ scroller, list, top, jump }) {
    [this.#scroller, this.#list, this.#top, this.#jump] = [scroller, list, top, jump];
    scroller.addEventListener("scroll", oncePerFrame(() => this.#scrolled()), { passive: true });
    scroller.addEventListener("keydown", (event) => this.#pressed(event));
    jump.addEventListener("pointerdown", (event) => event.preventDefault()); // focus stays where it is
    jump.addEventListener("click", () => this.toEnd());
    document.addEventListener("visibilitychange", () => this.#watch());
    let stood = 0;
    new ResizeObserver(() => {
      const moved = scroller.offsetTop - stood; // by the banner
      stood += moved;
      if (this.#following) this.#stick();
      else scroller.scrollTop += moved;
    }).observe(scroller);
  }

  /** Whether the reader is at the end. */
  get following() {
    return this.#following;
  }

  show(conversation) {
    const left = this.#conversation;
    if (left === conversation) return;
    if (left) {
      this.#views.set(left, this.#following ? null : this.#anchor());
      left.removeEventListener("change", this.#onChange);
      left.removeEventListener("ready", this.#onReady);
      left.turnAway();
    }
    this.#conversation = conversation;
    this.#rows.clear();
    this.#list.replaceChildren();
    conversation.addEventListener("change", this.#onChange);
    conversation.addEventListener("ready", this.#onReady);
    this.#open(this.#views.get(conversation));
  }

  /** Goes to a message, however far back. Resolves with whether it is there. */
  async goTo(id) {
    const conversation = this.#conversation;
    conversation.reading = true; // what is loaded stays
    const item = await conversation.find(id);
    if (this.#conversation !== conversation) return true;
    if (!item) return false;
    this.#open([{ key: item.itemKey, top: this.#scroller.clientHeight / 3 }]);
    const { node } = this.#rows.get(item.itemKey);
    for (const other of this.#list.querySelectorAll(".target")) other.classList.remove("target");
    node.classList.add("target");
    return true;
  }

  /** Goes to the newest message, and stays with what comes. */
  async toEnd() {
    const conversation = this.#conversation;
    if (conversation.detached) await conversation.reattach();
    if (this.#conversation !== conversation) return;
    this.#following = true;
    if (this.#to < conversation.end) this.#from = conversation.end - FIRST;
    this.#to = conversation.end;
    this.#widen();
    const focused = document.activeElement === this.#jump;
    this.#stick();
    this.#draw();
    this.#fill();
    if (focused) this.#scroller.focus({ preventScroll: true });
  }

  // Opens a room where its reader was, or at the first unread message if those don't fit, or at the end.
  #open(view) {
    const { divider, offset, items, end } = this.#conversation;
    const place = view?.find(({ key }) => items.some((item) => item.itemKey === key));
    const at = items.findIndex((item) => (place ? item.itemKey === place.key : divider && item.id === divider));
    this.#following = at < 0;
    this.#from = Math.max(offset, this.#following ? end - FIRST : offset + at - FIRST / 2);
    this.#to = Math.min(end, this.#from + FIRST);
    this.#draw();
    this.#widen();
    if (at < 0) return this.#fill();
    const { node } = this.#rows.get(place?.key ?? "unread");
    this.#scroller.scrollTop += this.#topOf(node) - (place?.top ?? this.#scroller.clientHeight * 0.15);
    this.#scrolled();
  }

  // Draws with what is above, where the reader is near. That comes at once with the loss of the day and the name which stood on
  // top: by itself the loss could leave less above than it takes to keep the reader's place.
  #redraw() {
    if (this.#scroller.scrollTop < NEAR && this.#from > this.#conversation.offset) {
      this.#from -= STEP;
      this.#to = Math.min(this.#to, this.#from + WINDOW);
    }
    this.#draw();
    this.#fill();
  }

  // Fills the window of a room that was just opened, a portion a frame: the reader can scroll at once, on both sides.
  #grow() {
    const { offset, end } = this.#conversation;
    const [from, to] = [this.#from, this.#to];
    const portion = () => Math.min(STEP, WINDOW - (this.#to - this.#from));
    this.#from = Math.max(offset, from - portion());
    this.#to = Math.min(end, to + portion());
    if (this.#from === from && this.#to === to) return;
    this.#draw();
    this.#widen();
  }

  #draw() {
    const conversation = this.#conversation;
    const { offset, end } = conversation;
    if (this.#following && this.#below() > BOTTOM && this.#scroller.scrollTop < this.#stuckAt) this.#following = false;
    if (this.#following) [this.#from, this.#to] = [Math.min(Math.max(this.#from, end - WINDOW), end - FIRST), end];
    this.#from = Math.max(offset, this.#from);
    this.#to = Math.min(end, Math.max(this.#to, this.#from + FIRST)); // what comes below is no bother
    const anchors = this.#following ? [] : this.#anchor();
    this.#place(rowsOf(conversation, this.#from, this.#to));
    this.#ends();
    if (this.#following) this.#stick();
    const same = anchors.find(({ key, node }) => this.#rows.get(key)?.node === node); // another may have another height
    const kept = same ?? anchors.find(({ key }) => this.#rows.has(key));
    if (kept) this.#scroller.scrollTop += this.#topOf(this.#rows.get(kept.key).node) - kept.top;
    this.#watch();
  }

  // Has what is above drawn, or loaded, where the reader is near: also without a scroll, as at the very top there is none.
  #fill() {
    const conversation = this.#conversation;
    if (this.#scroller.scrollTop >= NEAR) return;
    if (this.#from <= conversation.offset) conversation.loadOlder();
    else if (!this.#following) this.#redraw();
  }

  // A browser goes there by and by, and forgets about it when rows are added on the way.
  #pressed(event) {
    const { key, altKey, ctrlKey, metaKey, shiftKey } = event;
    if ((key !== "Home" && key !== "End") || altKey || ctrlKey || metaKey || shiftKey) return;
    event.preventDefault();
    if (key === "End") this.toEnd();
    else this.#scroller.scrollTop = 0;
  }

  // Makes the list show the rows, touching only what changed.
  #place(rows) {
    const wanted = new Set(rows.map((row) => row.key));
    for (const [key, { node }] of this.#rows) {
      if (wanted.has(key)) continue;
      node.remove();
      this.#rows.delete(key);
    }
    let next = this.#list.firstChild;
    for (const { key, sig, draw } of rows) {
      let row = this.#rows.get(key);
      if (row?.sig !== sig) {
        const node = draw();
        if (row?.node === next) next = node;
        row?.node.replaceWith(node);
        row = { node, sig };
        this.#rows.set(key, row);
      }
      if (row.node === next) next = next.nextSibling;
      else this.#list.insertBefore(row.node, next);
    }
  }

  // What stands above the first message, and the way back to the last one.
  #ends() {
    const { more, offset, items, name, ready, error, waiting, unread, detached, end } = this.#conversation;
    this.#top.hidden = !ready && !error && !waiting;
    this.#top.classList.toggle("error", !!error);
    if (!ready && waiting) this.#top.textContent = `#${name} can't be reached just now, and is tried again: ${waiting.message}`;
    else if (error) this.#top.textContent = `This room can't be joined: ${error.message}`;
    else if (this.#from > offset || more) this.#top.textContent = "Loading older messages…";
    else this.#top.textContent = items.length ? `The beginning of #${name}` : `Nothing was said in #${name} yet. Say hello!`;
    this.#top.classList.toggle("empty", (ready && !items.length && !more) || (!ready && !!waiting));
    const { user } = this.#conversation.room.chat;
    $("invite").hidden = !ready || items.length > 0 || more || !user?.guest || chosenName() !== undefined;
    this.#list.classList.toggle("waiting", !ready && !error && !waiting && !items.length);
    this.#jump.hidden = this.#following;
    this.#jump.textContent = unread ? `${plural(unread, "new message")} ↓` : "Jump to the newest ↓";
    this.#jump.classList.toggle("news", unread > 0 || detached || this.#to < end);
  }

  #scrolled() {
    const conversation = this.#conversation;
    const below = this.#below();
    this.#following = below < BOTTOM && this.#to >= conversation.end && !conversation.detached;
    conversation.reading = !this.#following;
    if (this.#scroller.scrollTop >= NEAR && below < NEAR && this.#to < conversation.end) {
      this.#to = Math.min(conversation.end, this.#to + STEP);
      this.#from = Math.max(this.#from, this.#to - WINDOW);
      this.#draw();
    } else this.#ends();
    this.#fill();
    this.#watch();
  }

  #watch() {
    const conversation = this.#conversation;
    if (conversation) conversation.watched = this.#following && conversation.ready && !document.hidden;
  }

  #stick() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#stuckAt = this.#scroller.scrollTop;
  }

  #below() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return scrollHeight - clientHeight - scrollTop;
  }

  #topOf(node) {
    return node.getBoundingClientRect().top - this.#scroller.getBoundingClientRect().top;
  }

  // The rows on the screen, and where they are: whichever of them is still there after a change has to be there again.
  #anchor() {
    const anchors = [];
    for (const [key, { node }] of this.#rows) {
      const top = this.#topOf(node);
      if (top + node.offsetHeight > 0 && top < this.#scroller.clientHeight) anchors.push({ key, node, top });
    }
    return anchors.sort((a, b) => a.top - b.top);
  }
}
