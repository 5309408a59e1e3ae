// The ways to a node. A link takes and gives the frames of parley.v1, tells when it opened and how it was lost, and over what
// it goes: "websocket", or "sse" (stream.js).
import { reach, StreamLink } from "./stream.js";

const LAST_WORD = 4000; // ms that a WebSocket may take to open where two did not, until streams have to do

export class SocketLink {
  transport = "websocket";
  #socket;

  constructor(url, on) {
    const { WebSocket = globalThis.WebSocket } = on;
    this.#socket = Object.assign(new WebSocket(url, "parley.v1"), {
      onopen: on.open,
      onmessage: ({ data }) => on.frame(JSON.parse(data)),
      onclose: on.lost,
      onerror() {}, // a close follows
    });
  }
  send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }
  close(code = 1000, reason) {
    Object.assign(this.#socket, { onopen: null, onmessage: null, onclose: null });
    this.#socket.close(code < 3000 ? 1000 : code, reason?.slice(0, 40)); // of at most 123 bytes
  }
}

/** A link for after WebSockets that did not open: either the node was away, or something on the way blocks them. Once the
 * node answers plain HTTP, a WebSocket is tried again, and only if that does not open either, streams are used. */
export class DetourLink {
  #link = null;
  #closed = false;
  #timer;

  constructor(url, on) {
    reach(url).then(() => this.#closed || this.#socket(url, on), (error) => on.lost({ reason: String(error) }));
  }
  get transport() {
    return this.#link?.transport;
  }
  send(frame) {
    this.#link.send(frame);
  }
  close(code, reason) {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#link?.close(code, reason);
  }

  #socket(url, on) {
    const stream = () => {
      clearTimeout(this.#timer);
      this.#link.close();
      this.#link = new StreamLink(url, on);
    };
    let lost = stream;
    const open = () => {
      clearTimeout(this.#timer);
      lost = on.lost;
      on.open();
    };
    this.#timer = setTimeout(stream, LAST_WORD);
    this.#link = new SocketLink(url, { ...on, open, lost: (how) => lost(how) });
  }
}
