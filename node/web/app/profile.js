// Who one is here: shown below the rooms, and changed in a dialog.
import { $, byteLength, el, kept } from "./dom.js";
import { offerNotices } from "./notices.js";
import { avatar, nameElement } from "./people.js";

/** The name that was chosen in this browser, if one was. */
export function chosenName() {
  const name = kept.get("name");
  return typeof name === "string" ? name : undefined;
}

export class Profile {
  #chat;
  #me = $("me");
  #dialog = $("name-dialog");
  #field = $("name");
  #problem = $("name-problem");

  constructor(chat) {
    this.#chat = chat;
    for (const button of [this.#me, $("invite")]) button.addEventListener("click", () => this.#open());
    offerNotices();
    $("name-cancel").addEventListener("click", () => this.#dialog.close());
    this.#field.addEventListener("input", () => (this.#problem.textContent = ""));
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(this.#field.value.trim());
    });
    chat.on("welcome", () => this.#draw());
    chat.on("renamed", ({ name }) => {
      kept.set("name", name);
      this.#draw();
    });
    kept.on("name", (name) => typeof name === "string" && name !== chat.user?.name && chat.rename(name)); // by another tab
    this.#draw();
  }

  #draw() {
    const { user } = this.#chat;
    const known = user ?? { name: chosenName() ?? "…" };
    const hint = user?.guest === false ? "" : user?.name ? "Change your name" : "Choose a name";
    this.#me.replaceChildren(avatar(known), el("span", {}, nameElement(known), el("small", { textContent: hint })));
    this.#me.disabled = user?.guest === false; // the token says who one is
  }

  #open() {
    this.#field.value = this.#chat.user?.name ?? "";
    this.#problem.textContent = "";
    this.#dialog.showModal();
    this.#field.select();
  }

  #save(name) {
    if (byteLength(name) > (this.#chat.limits.name ?? 64)) {
      this.#problem.textContent = "That name is too long";
      return;
    }
    this.#dialog.close();
    if (name === (this.#chat.user?.name ?? "")) return;
    kept.set("name", name);
    this.#chat.rename(name);
  }
}
