// While one writes @ and the beginning of a name: who is here, to choose from.
import { $, el } from "./dom.js";
import { nameOf } from "./people.js";

const MOST = 6;
const BEGUN = /(?<![\p{L}\p{N}\p{M}_.-])@([^@\n]{0,40})$/u;

export class Suggestions {
  #field;
  #list = $("suggestions");
  #conversation = null;
  #names = [];
  #chosen = 0;

  constructor(field) {
    this.#field = field;
    field.setAttribute("aria-autocomplete", "list");
    field.addEventListener("input", () => this.#look());
    field.addEventListener("blur", () => this.#offer([]));
    field.addEventListener("keydown", (event) => this.#pressed(event));
    this.#list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the field keeps the focus
      const at = [...this.#list.children].indexOf(event.target.closest("li"));
      if (at >= 0) this.#take(at);
    });
  }

  show(conversation) {
    this.#conversation = conversation;
    this.#offer([]);
  }

  #begun() {
    const { value, selectionStart, selectionEnd } = this.#field;
    return selectionStart === selectionEnd ? value.slice(0, selectionStart).match(BEGUN)?.[1] : undefined;
  }

  #look() {
    const begun = this.#begun()?.toLocaleLowerCase();
    if (begun === undefined) return this.#offer([]);
    const { room, me } = this.#conversation;
    const names = [...new Set([...room.members.values()].map(nameOf))].filter((name) => name !== me);
    const fits = (name) => name.startsWith(begun) || (begun && name.includes(` ${begun}`));
    this.#offer(names.filter((name) => fits(name.toLocaleLowerCase())).sort().slice(0, MOST));
  }

  #offer(names, chosen = 0) {
    [this.#names, this.#chosen] = [names, chosen];
    this.#list.hidden = !names.length;
    this.#list.replaceChildren(
      ...names.map((name, i) => el("li", { id: `suggestion-${i}`, role: "option", "aria-selected": String(i === chosen) }, el("bdi", {}, name))),
    );
    if (names.length) this.#field.setAttribute("aria-activedescendant", `suggestion-${chosen}`);
    else this.#field.removeAttribute("aria-activedescendant");
  }

  #pressed(event) {
    if (!this.#names.length || event.isComposing || event.shiftKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.#offer(this.#names, (this.#chosen + step + this.#names.length) % this.#names.length);
    else if (event.key === "Enter" || event.key === "Tab") this.#take(this.#chosen);
    else if (event.key === "Escape") this.#offer([]);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  #take(at) {
    const { selectionStart } = this.#field;
    this.#field.setRangeText(`${this.#names[at]} `, selectionStart - this.#begun().length, selectionStart, "end");
    this.#field.dispatchEvent(new Event("input"));
    this.#offer([]);
  }
}
