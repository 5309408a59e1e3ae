// Elements in few words. All text goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** Makes an element: properties, attributes for names with a dash or "role", and children, of which strings become text. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === false) continue;
    if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== undefined && child !== false && child !== null));
  return node;
}

/** Runs f at the next paint, however often it is asked to until then. */
export function oncePerFrame(f) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      f();
    });
  };
}

/** A counted thing: "1 message", "1,200 messages". */
export const plural = (n, thing) => `${n.toLocaleString()} ${thing}${n === 1 ? "" : "s"}`;

/** The length that the node counts. */
export const byteLength = (text) => new TextEncoder().encode(text).length;

/** What the browser keeps for this site, if it lets us. */
export const kept = {
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(`parley-page:${name}`));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`parley-page:${name}`, JSON.stringify(value));
    } catch {} // then for this page only
  },
  /** Calls a listener when another tab sets it. Returns what ends that. */
  on(name, listener) {
    const changed = ({ key }) => key === `parley-page:${name}` && listener(kept.get(name));
    addEventListener("storage", changed);
    return () => removeEventListener("storage", changed);
  },
};

/** What the tab keeps for itself, over a reload. */
export const drafts = {
  get(room) {
    try {
      return sessionStorage.getItem(`parley-page:draft:${room}`) ?? "";
    } catch {
      return "";
    }
  },
  set(room, text) {
    try {
      if (text) sessionStorage.setItem(`parley-page:draft:${room}`, text);
      else sessionStorage.removeItem(`parley-page:draft:${room}`);
    } catch {} // then it is lost with the page
  },
};
