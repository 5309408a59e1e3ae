// Several tabs over one connection, for Parley's option "shared". One of them leads: it holds the connection (hub.js), and the
// others say to it, over channels, what they would say to a node. So each tab resumes, repeats and counts for itself, whoever
// leads; two that lead for a moment do no harm.
//
// Who leads holds a Web Lock. Where there are none, as over http: in a LAN, whoever hears of nobody leads, and of two the later
// one. A browser may freeze the leader, lock and all. It is the others who ask whether it is there, once a second, since the timers
// of a hidden tab run once a minute. A frozen tab still hears channels, in Chromium, but no socket and no port: the answer goes
// over a port.
import { print, quiet, sleep } from "./common.js";
import { Hub } from "./hub.js";

const VERSION = 1; // of what tabs say to each other: those of another don't hear it

const ASK = 1000; // ms between two questions whether the leader is there
const SILENT = 2000; // ms in which it answers, or is frozen
const UNHEARD = 300; // ms, and up to twice that, after which there is no leader, where there are no Web Locks
const MOST = 2000; // frames that wait for a tab: one that takes none is dropped, and resumes when it is back
const SEEN = 64; // frames after which a tab tells how far it is
const GONE = 180_000; // ms without a question after which a tab is gone

/** What Parley takes as its option "shared": makes a link over whichever tab leads. */
export const shared = (url, on) => (globalThis.BroadcastChannel ? new SharedLink(url, on) : new on.Link(url, on));

class SharedLink {
  #url;
  #on; // what Parley listens with
  #id = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
  #end = new AbortController();
  #name; // of lock and channel
  #group; // the channel of all
  #inbox; // what is said to this tab
  #leader = null; // the channel to the one that it follows
  #leaderId = null;
  #transport; // of the leader
  #answered = false; // by the leader
  #taken = 0; // frames
  #hub = null; // of one that leads
  #since; // when it began to lead
  #tabs = new Map(); // of one that leads: id → { channel, said, seen, at }
  #release; // gives the lock back
  #awake = null; // of one that leads: whose question comes through is answered

  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    quiet(this.#begin());
  }

  get transport() {
    return this.#hub ? this.#hub.transport : this.#transport;
  }

  /** Whether another tab holds the connection. */
  get follows() {
    return !!this.#leader;
  }

  send(frame) {
    if (this.#hub) this.#hub.take(this.#id, frame);
    else this.#leader?.postMessage({ op: "say", from: this.#id, frame });
  }

  close(code, reason) {
    if (this.#end.signal.aborted) return;
    this.#end.abort();
    this.#on = {};
    this.#hub?.close(code, reason); // first: then no room is left
    for (const tab of this.#tabs.keys()) this.#dismiss(tab);
    this.#leader?.postMessage({ op: "bye", from: this.#id });
    for (const channel of [this.#leader, this.#group, this.#inbox]) channel?.close();
    this.#awake?.port1.close();
    this.#release?.();
  }

  async #begin() {
    const { signal } = this.#end;
    let token;
    try {
      token = await this.#on.token;
    } catch ({ message }) {
      return this.#on.lost?.({ reason: message });
    }
    if (signal.aborted) return;
    this.#name = `parley:${VERSION}:${print(JSON.stringify([this.#url, ...(token ? ["token", claims(token)] : ["guest", this.#on.session()])]))}`;
    this.#group = this.#listen(this.#name);
    this.#inbox = this.#listen(`${this.#name}:${this.#id}`);
    const left = () => this.#on.lost?.({ reason: "the page was left" });
    globalThis.addEventListener?.("pagehide", left, { signal });
    globalThis.document?.addEventListener("freeze", left, { signal });
    if (this.#on.orphaned) return this.#claim({ steal: true });
    this.#group.postMessage({ op: "seek", from: this.#id });
    if (globalThis.navigator?.locks) {
      this.#claim({ signal });
      if ((await punctual(SILENT, signal)) && !this.#hub && !this.#leader) this.#claim({ steal: true });
    } else {
      await sleep(UNHEARD * (1 + Math.random()), signal);
      if (!this.#leader) this.#lead();
    }
  }

  // Leads once it has the lock. A follower waits for it too: then its leader is gone.
  #claim(how) {
    const { locks } = globalThis.navigator ?? {};
    if (!locks) return this.#lead();
    const granted = () => {
      if (this.#end.signal.aborted) return;
      if (this.#leader) return this.#on.instead(false);
      this.#lead();
      return new Promise((release) => (this.#release = release));
    };
    locks.request(this.#name, how, granted).catch(({ name }) => {
      if (this.#end.signal.aborted) return;
      if (name !== "AbortError") this.#lead(); // no locks for this page
      else if (this.#hub) this.#on.instead(false); // it was frozen, and another took over
    });
  }

  #lead() {
    if (this.#end.signal.aborted || this.#hub) return;
    this.#since = Date.now();
    this.#hub = new Hub(this.#url, this.#on, {
      first: this.#id,
      tell: (tab, frame) => (tab === this.#id ? this.#on.frame?.(frame) : this.#post(tab, frame)),
      opened: (tab, transport) => (tab === this.#id ? this.#on.open?.() : this.#tabs.get(tab)?.channel.postMessage({ op: "open", from: this.#id, transport })),
      drop: (tab) => (tab === this.#id ? this.#on.instead?.(false) : this.#dismiss(tab)),
      lost: (how) => {
        this.#hub.close();
        const { code, reason, retry_after } = how; // of what may be an event
        for (const tab of this.#tabs.keys()) this.#dismiss(tab, { code, reason, retry_after });
        this.#on.lost?.(how);
      },
    });
    this.#awake = new MessageChannel();
    this.#awake.port1.onmessage = ({ data: tab }) => this.#tabs.get(tab)?.channel.postMessage({ op: "here", from: this.#id });
    this.#announce();
    const timer = setInterval(() => {
      for (const [tab, { at }] of this.#tabs) if (Date.now() - at > GONE) this.#dismiss(tab);
    }, GONE / 6);
    this.#end.signal.addEventListener("abort", () => clearInterval(timer));
  }

  #announce() {
    this.#group.postMessage({ op: "lead", from: this.#id, since: this.#since });
  }

  // A frame for another tab.
  #post(id, frame) {
    const tab = this.#tabs.get(id);
    if (!tab) return;
    if (++tab.said - tab.seen > MOST) this.#dismiss(id);
    else tab.channel.postMessage({ op: "frame", from: this.#id, frame });
  }

  // Another tab is to find itself another leader, or, if it is the connection that is lost, to wait.
  #dismiss(id, how) {
    const tab = this.#tabs.get(id);
    if (!tab) return;
    this.#tabs.delete(id);
    this.#hub.remove(id);
    tab.channel.postMessage({ op: "lost", from: this.#id, how });
    tab.channel.close();
  }

  #listen(name) {
    const channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }) => this.#end.signal.aborted || this.#heard(data);
    return channel;
  }

  #heard({ op, from, ...said }) {
    if (op === "seek") return this.#hub && this.#adopt(from);
    if (op === "lead") return this.#rival(from, said.since);
    if (op === "led") return this.#follow(from);
    if (this.#hub) return this.#said(op, from, said);
    if (from !== this.#leaderId) return;
    if (op === "here") this.#answered = true;
    else if (op === "open") {
      this.#transport = said.transport;
      this.#on.open();
    } else if (op === "frame") {
      if (++this.#taken % SEEN === 0) this.#leader.postMessage({ op: "seen", from: this.#id, taken: this.#taken });
      this.#on.frame(said.frame);
    } else if (op === "lost") {
      if (said.how) this.#on.lost(said.how);
      else this.#on.instead(false);
    }
  }

  // What a tab says to its leader.
  #said(op, from, { frame, taken }) {
    const tab = this.#tabs.get(from);
    if (!tab) {
      const channel = new BroadcastChannel(`${this.#name}:${from}`);
      if (op !== "bye") channel.postMessage({ op: "lost", from: this.#id });
      return channel.close();
    }
    tab.at = Date.now();
    if (op === "seen") tab.seen = taken;
    if (op === "ask") this.#awake.port2.postMessage(from);
    if (op === "say") this.#hub.take(from, frame);
    if (op === "bye") this.#dismiss(from);
  }

  #adopt(id) {
    if (this.#tabs.has(id)) return;
    const channel = new BroadcastChannel(`${this.#name}:${id}`);
    this.#tabs.set(id, { channel, said: 0, seen: 0, at: Date.now() });
    channel.postMessage({ op: "led", from: this.#id });
    this.#hub.add(id);
  }

  // A tab has begun to lead. Of two the later one does: the other was frozen, or both heard of nobody.
  #rival(id, since) {
    if (this.#leader) return id !== this.#leaderId && this.#on.instead(false);
    if (!this.#hub) this.#group.postMessage({ op: "seek", from: this.#id });
    else if (since > this.#since || (since === this.#since && id > this.#id)) this.#on.instead(false);
    else this.#announce();
  }

  #follow(id) {
    const channel = new BroadcastChannel(`${this.#name}:${id}`);
    if (this.#leader || this.#hub) {
      if (id !== this.#leaderId) channel.postMessage({ op: "bye", from: this.#id });
      return channel.close();
    }
    [this.#leader, this.#leaderId] = [channel, id];
    this.#watch();
  }

  // Asks the leader whether it is there. If it is not, this tab takes over.
  async #watch() {
    const { signal } = this.#end;
    for (let inTime = true; inTime !== null; ) {
      await sleep(ASK, signal);
      if (signal.aborted) return;
      this.#answered = false;
      this.#leader.postMessage({ op: "ask", from: this.#id });
      inTime = await punctual(SILENT, signal);
      if (inTime && !this.#answered) return this.#on.instead(true);
    }
  }
}

// Waits, and tells whether it was for about that long: a tab that was frozen itself has not yet heard what was said. Null if
// that was aborted.
async function punctual(ms, signal) {
  const begun = Date.now();
  await sleep(ms, signal);
  return signal.aborted ? null : Date.now() - begun < 2 * ms;
}

// What a token says of its bearer, its times apart; the token itself, if it can't be read.
function claims(token) {
  try {
    const { iat, exp, nbf, jti, ...rest } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return JSON.stringify(rest);
  } catch {
    return token;
  }
}
