// The rooms one is in: a link each, so that they can be opened, copied and bookmarked; and a field to join another.
import { $, byteLength, el } from "./dom.js";

export const linkTo = (name) => `?room=${encodeURIComponent(name)}`;

/** What is wrong with a room's name, or nothing. */
export function roomProblem(name, limit = 128) {
  if (byteLength(name) > limit) return "That name is too long";
  if (/[\p{Cc}\u2028\u2029]/u.test(name)) return "A name is one line";
  return "";
}

export class Rooms {
  #list = $("room-list");
  #field = $("join-name");
  #current = null;

  constructor({ onopen, onleave }) {
    this.onleave = onleave;
    this.#list.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      onopen(link.dataset.room);
    });
    $("join").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = this.#field.value.trim().replace(/^#+(?=.)/, "");
      const problem = roomProblem(name);
      this.#field.setCustomValidity(problem);
      if (problem) this.#field.reportValidity();
      if (!name || problem) return;
      this.#field.value = "";
      onopen(name);
    });
    this.#field.addEventListener("input", () => this.#field.setCustomValidity(""));
  }

  focus() {
    this.#field.focus();
  }

  draw(conversations, current) {
    const focused = document.activeElement?.dataset?.room;
    this.#list.replaceChildren(...conversations.map((conversation) => this.#entry(conversation, conversation === current)));
    if (current !== this.#current) this.#list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
    this.#current = current;
    this.#list.classList.toggle("single", conversations.length === 1); // the last one can't be left
    if (focused) this.#list.querySelector(`a[data-room="${CSS.escape(focused)}"]`)?.focus();
  }

  #entry({ name, unread }, current) {
    const count = unread > 99 ? "99+" : String(unread);
    const link = el(
      "a",
      { href: linkTo(name), title: name, "aria-current": current && "page", className: unread ? "has-unread" : "" },
      el("span", { className: "hash", textContent: "#", "aria-hidden": "true" }),
      el("bdi", { textContent: name }),
      unread > 0 && el("span", { className: "badge" }, count, el("span", { className: "sr", textContent: " unread" })),
    );
    link.dataset.room = name;
    const leave = el("button", { className: "leave", textContent: "×", title: "Leave", "aria-label": `Leave ${name}` });
    leave.addEventListener("click", () => this.onleave(name));
    return el("li", {}, link, leave);
  }
}
