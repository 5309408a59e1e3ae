// What outlives the page, where the browser lets it.

/** Who we are, for all tabs, and per tab what is not acknowledged. A copied tab has both: it repeats the same messages with
 * the same keys, which is harmless. */
export class Memory {
  #prefix;
  #tab;
  #shared;
  #session;
  #named = null;

  constructor(prefix, persist) {
    this.#prefix = prefix;
    try {
      if (persist) [this.#tab, this.#shared] = [globalThis.sessionStorage, globalThis.localStorage];
    } catch {} // not for this page
  }
  get session() {
    const name = this.#prefix + "session";
    return (this.#session ??= this.#tab?.getItem(name) ?? this.#shared?.getItem(name) ?? undefined);
  }
  set session(token) {
    this.#session = token;
    for (const storage of [this.#tab, this.#shared]) keep(storage, this.#prefix + "session", token);
  }
  /** The session; one that begins now, if there is none yet: 128 random bits, as a node's are. */
  known() {
    const random = () => btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16))));
    return (this.session ??= random().replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", ""));
  }
  /** When a name was chosen, if it is the one that was chosen last: who comes back with it does not choose it anew. */
  named(name) {
    try {
      const last = JSON.parse(this.#shared?.getItem(this.#prefix + "named") ?? this.#named);
      return last?.name === name ? last.at : undefined;
    } catch {} // no JSON
  }
  setNamed(name, at) {
    this.#named = JSON.stringify({ name, at });
    keep(this.#shared, this.#prefix + "named", this.#named);
  }
  outbox(room) {
    return new Outbox(this.#tab, `${this.#prefix}out:${encodeURIComponent(room)}:`);
  }
}

// A Map from key to message, in the order of saying, with an entry of the tab's storage each.
class Outbox extends Map {
  #tab;
  #prefix;
  #n = 0;

  constructor(tab, prefix) {
    super();
    const names = Object.keys(tab ?? {}).filter((name) => name.startsWith(prefix));
    const kept = names.map((name) => JSON.parse(tab.getItem(name))).sort((a, b) => a.n - b.n);
    for (const out of kept) super.set(out.key, out);
    this.#tab = tab;
    this.#prefix = prefix;
    this.#n = kept.at(-1)?.n ?? 0;
  }
  set(key, out) {
    out.n ??= ++this.#n;
    keep(this.#tab, this.#prefix + key, JSON.stringify(out));
    return super.set(key, out);
  }
  delete(key) {
    this.#tab?.removeItem(this.#prefix + key);
    return super.delete(key);
  }
}

function keep(storage, name, value) {
  try {
    storage?.setItem(name, value);
  } catch {} // it is full: then for this page only
}
