// How a person appears: a name that can be read, a colour, initials.
import { el } from "./dom.js";

// What takes no space on the screen: controls, formats, fillers that are letters by the book.
const INVISIBLE = /[\p{C}\p{Z}\p{M}\u115f\u1160\u3164\uffa0\u2800]/gu;

/** A name that can be seen. A user who has none, or an invisible one, is called by the id. */
export function nameOf(user) {
  const name = (user?.name ?? "").replace(/\p{Bidi_Control}/gu, "").replace(/\s+/g, " ").trim();
  return name.replace(INVISIBLE, "") ? name : `Guest ${(user?.id ?? "").slice(-4)}`;
}

/** An element with the name, whose direction stays its own; with the end of the id where others have the same name. */
export function nameElement(user, known) {
  const name = el("bdi", { className: "name", textContent: nameOf(user) });
  if (known?.isShared(user)) name.append(el("small", { textContent: ` ${user.id.slice(-4)}` }));
  return name;
}

/** Who goes by which name. */
export class Names {
  #ids = new Map(); // name → the ids that have been seen under it

  /** Returns whether it was news. */
  note(user) {
    const name = nameOf(user);
    const ids = this.#ids.get(name);
    if (!ids) this.#ids.set(name, new Set([user.id]));
    else if (ids.size > 1 || ids.has(user.id)) return false;
    else ids.add(user.id);
    return true;
  }
  isShared(user) {
    return this.#ids.get(nameOf(user))?.size > 1;
  }
}

/** A square with initials, in the person's colour. For the eye only: the name stands beside it. */
export function avatar(user) {
  const letters = nameOf(user).match(/[\p{L}\p{N}\p{Extended_Pictographic}]/gu) ?? ["?"];
  const words = nameOf(user).split(" ").map((word) => word.match(/[\p{L}\p{N}]/u)?.[0]).filter(Boolean);
  const initials = (words.length > 1 ? words[0] + words.at(-1) : letters[0]).toUpperCase();
  return tint(el("span", { className: "avatar", "aria-hidden": "true", textContent: initials }), user);
}

/** Gives an element the person's colour, the same in every browser. */
export function tint(node, user) {
  let hash = 0;
  for (const c of user?.id ?? "") hash = (hash * 31 + c.codePointAt(0)) >>> 0;
  node.style.setProperty("--hue", String((hash % 24) * 15));
  return node;
}
