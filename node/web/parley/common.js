// What the other modules share: events, errors, ids, waiting.

const MAX_WAIT = 30_000; // between two attempts

/** Errors that trying again helps. Who is not who they were is soon without a connection, and has a fresh token over the next. */
export const AGAIN = ["lost", "unavailable", "rate_limited", "not_joined", "expired", "unauthorized"];

// What our own codes say; those of the wire come with a sentence.
const SENTENCES = {
  lost: "The connection was lost before the answer came",
  closed: "This Parley was closed",
  left: "The room was left",
  discarded: "The message was discarded",
  expired: "No answer came in time to repeat this safely",
  too_large: "The message is too large for this server",
};

/** Why a request was refused (a code of the wire), or not answered: "lost" with the connection, "closed" by close(). */
export class ParleyError extends Error {
  constructor({ code, message = SENTENCES[code] ?? code, retry_after }) {
    super(message);
    Object.assign(this, { name: "ParleyError", code, retryAfter: retry_after });
  }
}

/** Orders message ids: as two integers, never as strings. */
export function compareIds(a, b) {
  const [[aMs, aSeq], [bMs, bSeq]] = [a.split("-"), b.split("-")];
  return compareDecimals(aMs, bMs) || compareDecimals(aSeq, bSeq);
}

// They have no leading zeros.
const compareDecimals = (a, b) => a.length - b.length || (a > b) - (a < b);

/** 64 bits that stand for a text: in names of locks, which tell no secrets, and for what a message says. There is no crypto.subtle over http:. */
export function print(text) {
  let [a, b] = [0xdeadbeef, 0x41c6ce57];
  for (const letter of text) {
    a = Math.imul(a ^ letter.codePointAt(), 2654435761);
    b = Math.imul(b ^ letter.codePointAt(), 1597334677);
    [a, b] = [a ^ (b >>> 15), b ^ (a >>> 13)];
  }
  return (a >>> 0).toString(36) + (b >>> 0).toString(36);
}

/** Milliseconds that grow exponentially. Half of it is chance, so that a crowd does not come back at once. */
export const backoff = (attempt) => Math.min(MAX_WAIT, 500 * 2 ** attempt) * (0.5 + Math.random() / 2);

/** An EventTarget of CustomEvents; on() listens to their details. */
export class Emitter extends EventTarget {
  on(type, listener) {
    const { events, name } = this.constructor;
    if (!events.includes(type)) console.warn(`Parley: a ${name} has no event "${type}". It has ${events.join(", ")}.`);
    const handle = (event) => listener(event.detail, event);
    this.addEventListener(type, handle);
    return () => this.removeEventListener(type, handle);
  }
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Those who don't wait for a promise don't want to hear of it. */
export function quiet(promise) {
  promise.catch(() => {});
  return promise;
}

/** A promise and its ends. */
export function settleable() {
  const it = {};
  it.promise = quiet(new Promise((resolve, reject) => Object.assign(it, { resolve, reject })));
  return it;
}

const errorOf = (why) => (why instanceof ParleyError ? why : new ParleyError({ code: why }));

/** A promise that is refused, for a ParleyError or with a code. */
export function refusal(why) {
  const { promise, reject } = settleable();
  reject(errorOf(why));
  return promise;
}

/** Waits; no longer than until a signal aborts. */
export const sleep = (ms, signal) =>
  new Promise((done) => {
    if (signal?.aborted) return done();
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => done(clearTimeout(timer)), { once: true });
  });

/** What a promise gives, or the signal's reason if that aborts first. */
export function abortable(promise, signal) {
  if (!signal) return promise;
  const it = settleable();
  const abort = () => it.reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  promise.then(it.resolve, it.reject).finally(() => signal.removeEventListener("abort", abort));
  return it.promise;
}

/** A state that can be waited for: its promise resolves when it is reached, and rejects if it will not be. */
export class Latch {
  #now = settleable();
  #settled = false;

  get promise() {
    return this.#now.promise;
  }
  open(value) {
    this.#renew();
    this.#now.resolve(value);
    this.#settled = true;
  }
  fail(why) {
    this.#renew();
    this.#now.reject(errorOf(why));
    this.#settled = true;
  }
  /** It is not so any more, but may be again. */
  shut() {
    this.#renew();
  }
  #renew() {
    if (this.#settled) this.#now = settleable();
    this.#settled = false;
  }
}
