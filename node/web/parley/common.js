// What the other modules share: events, errors, ids, waiting.

const MAX_WAIT = 30_000; // between two attempts

/** Errors that trying again helps. */
export const AGAIN = ["lost", "unavailable", "rate_limited", "not_joined"];

/** Why a request was refused (a code of the wire), or not answered: "lost" with the connection, "closed" by close(). */
export class ParleyError extends Error {
  constructor({ code, message = code, retry_after }) {
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

/** Milliseconds that grow exponentially. Half of it is chance, so that a crowd does not come back at once. */
export const backoff = (attempt) => Math.min(MAX_WAIT, 500 * 2 ** attempt) * (0.5 + Math.random() / 2);

/** An EventTarget of CustomEvents; on() listens to their details. */
export class Emitter extends EventTarget {
  on(type, listener) {
    const handle = (event) => listener(event.detail, event);
    this.addEventListener(type, handle);
    return () => this.removeEventListener(type, handle);
  }
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** A promise and its ends. Those who don't wait for it don't want to hear of it. */
export function settleable() {
  const it = Promise.withResolvers();
  it.promise.catch(() => {});
  return it;
}

export function refusal(code) {
  const { promise, reject } = settleable();
  reject(new ParleyError({ code }));
  return promise;
}
