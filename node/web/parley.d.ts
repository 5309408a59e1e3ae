/**
 * Parley in the browser: rooms that outlive the connection.
 *
 *     import { Parley } from "https://host/parley.js";
 *     const chat = new Parley("wss://host", { name: "Ada" });
 *     const room = chat.join("lobby");
 *     room.on("message", ({ from, text }) => console.log(from.name, text));
 *     await room.send("hi");
 *
 * It connects and reconnects by itself, with a jittered and growing wait, or after as long as the node asked for; resumes
 * every room where it was; and repeats what was not acknowledged, with the same key, in order, also after a reload of the page.
 * Where WebSockets don't get through, it uses one stream of Server-Sent Events, and POST.
 */

/** A message's id, such as "1763812800000-4711": the order within a room. Compare with compareIds, never as strings. */
export type Id = string;

export interface User {
  id: string;
  /** Absent if the user has none. */
  name?: string;
  guest?: boolean;
  /** What the user's token says of them to others, if it does. In lists of members only as long as it is not too much for all. */
  info?: Record<string, unknown>;
}

/** `Data` is the type of what programs say in `data`. */
export interface Message<Data = unknown> {
  room: string;
  id: Id;
  from: User;
  text?: string;
  data?: Data;
  /** What its sender gave it: the same sender and key, with the same content, is the same message. */
  key?: string;
  /** When a node took it: milliseconds since 1970. */
  at: number;
}

/** A message as the event "message" tells it, at most once, and in the room's order. */
export interface Arrival<Data = unknown> extends Message<Data> {
  /** From this user, over whatever connection. */
  mine: boolean;
  /** False for what was said before one joined, or while one was away. */
  live: boolean;
}

/** A message of ours on its way. */
export interface Outgoing {
  key: string;
  text: string;
  data?: unknown;
  /** When it was said: milliseconds since 1970. */
  at: number;
  /**
   * - `pending`: it waits to be sent, or for the answer.
   * - `sent`: the room has it, as `id`.
   * - `unconfirmed`: it may have arrived, as no answer came. It is repeated with the same key, which is safe; with an `error`
   *   it is so old that it is not repeated unasked: retry() or discard() it.
   * - `failed`: it was refused, for the reason in `error`: retry() or discard() it.
   */
  state: "pending" | "sent" | "unconfirmed" | "failed";
  id?: Id;
  error?: { code: Code; message: string };
}

/** The wire's error codes, and of our own: not answered ("lost" with the connection, "closed" by close()), said after leave(),
 * given up by discard(), too old to be repeated unasked ("expired", which is also what the wire says of a token). */
export type Code =
  | "bad_request" | "unauthorized" | "forbidden" | "not_joined" | "not_found" | "conflict" | "too_large"
  | "rate_limited" | "unavailable" | "unsupported"
  | "lost" | "closed" | "left" | "discarded" | "expired";

export class ParleyError extends Error {
  readonly code: Code;
  /** Milliseconds to wait before trying again, where that helps. */
  readonly retryAfter?: number;
}

export type State = "connecting" | "open" | "waiting" | "closed";

/** "sse" where WebSockets are blocked. */
export type Transport = "websocket" | "sse";

export interface StateChange {
  state: State;
  /** What "open" is over. */
  transport: Transport | null;
  /** Of "open". */
  user?: User | null;
  /** Of "waiting" and "closed": the close code, 1006 for none, and its reason. */
  code?: number;
  reason?: string;
  /** Of "waiting": when it tries again, as milliseconds since 1970; whether the browser knows of no network; and whether it may
   * be that the browser's connections to the server, of which there are six, are all taken by other tabs. */
  retryAt?: number;
  offline?: boolean;
  crowded?: boolean;
}

export interface ChatEvents {
  /** Every change of `state`. */
  state: StateChange;
  /** Connected, for the first time or again. */
  open: { user: User | null };
  /** Over for good: by close(), or since trying again would not help (no valid token, disconnected by the operator). What is asked
   * from then on is refused as "closed", with the reason. */
  close: { code: number; reason: string };
  /** The node told who one is. */
  welcome: { user: User; node: string; version: string; limits: Limits };
  /** One goes by another name, which another of one's connections chose. */
  renamed: User;
  /** The node refused the name or the guest's session that one came with. One goes on without it. */
  refused: { what: "name" | "session"; value: string; error: ParleyError };
  /** The node complained of something that no request was waiting for. */
  error: ParleyError;
}

export interface RoomEvents<Data = unknown, Signals = Record<string, any>> {
  message: Arrival<Data>;
  /** One's own message changed its state. */
  outgoing: Outgoing;
  /** The backlog is done. After a break (`resumed`): how many messages of others were missed, and whether some are lost. */
  live: { resumed: boolean; missed: number; gap: boolean };
  /** What followed that id is lost, or not in the log any more. What the log still has follows, at least the newest messages; their order
   * starts anew. */
  gap: { after: Id; last: Id };
  /** Who is there, or by what name ("update"), has changed; `members` and `count` of the room are up to date. */
  presence: { event: "join" | "leave" | "update" | "count" | "sync"; user?: User; count: number };
  signal: { [Kind in keyof Signals]: { kind: Kind; user: User; data?: Signals[Kind] } }[keyof Signals];
  /** The room can't be joined just now. It is tried again soon, over the same connection. */
  waiting: ParleyError;
  /** The room can't be joined, or the right to be there was taken away. It is tried again with the next connection or token. */
  error: ParleyError;
}

export interface Limits {
  /** Bytes. Empty until connected. */
  frame?: number;
  text?: number;
  room?: number;
  name?: number;
  key?: number;
  kind?: number;
  req?: number;
  depth?: number;
  /** Messages of a page of history. */
  page?: number;
}

/** An EventTarget whose events are CustomEvents: what they tell is in `detail`. */
interface Emitter<Events> extends EventTarget {
  /** Calls a listener with the detail of each event. Returns what removes it. */
  on<Type extends keyof Events>(type: Type, listener: (detail: Events[Type], event: CustomEvent<Events[Type]>) => void): () => void;
  addEventListener<Type extends keyof Events & string>(
    type: Type,
    listener: ((event: CustomEvent<Events[Type]>) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export interface Options {
  /** The name to go by. */
  name?: string;
  /** A bearer token, or what gives one: it is asked, once at a time, before each connection and before the token expires, of
   * which the connection notices nothing. A token that is refused makes nobody a guest: a string then ends it ("close", 4401), and
   * a function is asked again, until four in a row were refused. What it throws is tried again, and so is giving no token after
   * having given one. Without a token from the beginning, one is a guest. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** Closes it when it aborts. */
  signal?: AbortSignal;
  /** Where there is none of the platform's, as in Node 20: a class such as that of the package ws. */
  WebSocket?: new (url: string, protocol: string) => any;
  /** Takes a line for each change of the connection. */
  log?: (line: string, detail: object) => void;
  /**
   * Several tabs over one connection: one of them leads and holds it, the others speak through it. The tabs of one origin share
   * it that are the same user, or guest of the same session, at the same server, and of the same version of this. For the
   * listeners of a tab nothing changes. When the one that leads is closed, or frozen by the browser, another leads, after
   * some three seconds. Its own signals a tab doesn't see in the others.
   *
   *     import { shared } from "https://host/parley/shared.js"; // or "parley/shared"
   *     const chat = new Parley("wss://host", { shared });
   */
  shared?: Shared;
  /** Whether the guest's session and what is not acknowledged outlive the page. Default true, where the browser lets it. */
  persist?: boolean;
}

/** What parley/shared.js gives. */
export type Shared = (url: string, on: object) => object;

export interface JoinOptions {
  /** Messages of the backlog: 0 to 200, default 50. */
  limit?: number;
  /** Messages that `messages` holds, default 500. */
  keep?: number;
  /** Leaves the room when it aborts: instead of `leave()`, not besides. */
  signal?: AbortSignal;
}

export interface Parley extends Emitter<ChatEvents> {}
export class Parley {
  /**
   * Connects to a server: a ws:, wss:, http: or https: URL; by default the one that this module came from. The package came
   * from none, and needs it.
   *
   *     const chat = new Parley("wss://chat.example.org", { token: () => fetch("/chat-token").then((answer) => answer.text()) });
   */
  constructor(url?: string | URL, options?: Options);
  readonly url: string;
  readonly state: State;
  /** What it goes over; null while there is no connection. */
  readonly transport: Transport | null;
  /** Resolves with the user once connected, at once if it is; rejects if it was closed for good. */
  readonly ready: Promise<User | null>;
  /** Null until first connected. */
  readonly user: User | null;
  readonly limits: Limits;
  /** The rooms one is in, by name. */
  readonly rooms: ReadonlyMap<string, Room>;
  /**
   * Joins a room, and stays in it over all connections. The same room twice is one, until each who joined it left it.
   *
   *     const room = chat.join("lobby", { limit: 20 });
   */
  join<Data = any, Signals = Record<string, any>>(name: string, options?: JoinOptions): Room<Data, Signals>;
  /**
   * Asks the node for any op of parley.v1, once there is a connection. Resolves with its `ok`, rejects with a ParleyError. It
   * is not repeated.
   *
   *     const { count } = await chat.request("members", { room: "lobby" });
   */
  request(op: string, fields?: object, options?: { signal?: AbortSignal }): Promise<Record<string, any>>;
  /**
   * Goes by another name from now on, of which the others are told. One that is refused is told as "refused".
   *
   *     await chat.rename("Ada Lovelace");
   */
  rename(name: string): Promise<void>;
  /**
   * Connects now, rather than when the wait is over.
   *
   *     retryButton.onclick = () => chat.reconnect();
   */
  reconnect(): void;
  /**
   * Leaves for good. What was not acknowledged stays with the tab, and is repeated when the room is next joined.
   *
   *     chat.close();
   */
  close(code?: number, reason?: string): void;
}

/** All that is known of a room at one time. */
export interface Snapshot<Data = unknown> {
  /** The newest, oldest first, without a hole between them. */
  readonly messages: readonly Arrival<Data>[];
  readonly outgoing: readonly Outgoing[];
  readonly members: readonly User[];
  readonly count: number;
  readonly typists: readonly User[];
  readonly live: boolean;
  readonly error: ParleyError | null;
}

export interface Room<Data = any, Signals = Record<string, any>> extends Emitter<RoomEvents<Data, Signals>> {
  readonly name: string;
  readonly chat: Parley;
  /** Whether one is joined, and the backlog is done. */
  readonly live: boolean;
  /** Resolves with the room once it is live, at once if it is; rejects if it can't be joined, or was left. */
  readonly ready: Promise<Room<Data, Signals>>;
  /** Why it can't be joined; it is tried again with the next connection. */
  readonly error: ParleyError | null;
  /** The newest id seen; null before there is one. */
  readonly last: Id | null;
  /** The newest messages, oldest first. A gap empties it: what it holds has no hole. */
  readonly messages: readonly Arrival<Data>[];
  /** Who is there, by id; of a large room only some. */
  readonly members: ReadonlyMap<string, User>;
  /** How many are there. */
  readonly count: number;
  /** Who is typing. */
  readonly typists: readonly User[];
  /** What is not acknowledged yet, in order, also from before a reload. */
  readonly outgoing: Outgoing[];
  /**
   * The room as it is now: the same object until something changes. With subscribe, what stores are made of:
   *
   *     const { messages, typists } = useSyncExternalStore(room.subscribe, room.snapshot);
   */
  readonly snapshot: () => Snapshot<Data>;
  /**
   * Calls a listener when the snapshot has changed. Returns what ends that.
   *
   *     const stop = room.subscribe(() => draw(room.snapshot()));
   */
  readonly subscribe: (listener: () => void) => () => void;
  /**
   * Says something, now or when there is a connection. Resolves once the room has it; rejects if it, or the room, is refused,
   * and if it gets too old to be repeated. When `signal` aborts it is given up, though the room may have it by then.
   *
   *     const { id } = await room.send("hi", { data: { mood: "sunny" } });
   */
  send(text: string, options?: { data?: Data; key?: string; signal?: AbortSignal }): Promise<{ id: Id }>;
  /**
   * Tries again what failed or could not be confirmed.
   *
   *     for (const { key, error } of room.outgoing) if (error) room.retry(key);
   */
  retry(key: string): void;
  /**
   * Gives up on a message. If it was "unconfirmed", the room may have it nevertheless.
   *
   *     for (const { key, state } of room.outgoing) if (state === "failed") room.discard(key);
   */
  discard(key: string): void;
  /**
   * Tells those who are here something, once the room is live. Nothing is kept, repeated or promised.
   *
   *     await room.signal("wave", { at: "you" });
   */
  signal<Kind extends keyof Signals & string>(kind: Kind, data?: Signals[Kind]): Promise<unknown>;
  /**
   * Tells the others that one is typing: to be called at each key. It is said every few seconds, and only while live.
   *
   *     field.oninput = () => room.typing();
   */
  typing(): void;
  /**
   * Messages before an id (default: the newest), oldest first, and whether there are more. Waits for a connection.
   *
   *     const { messages, more } = await room.history(room.messages[0]?.id, 50);
   */
  history(before?: Id, limit?: number, options?: { signal?: AbortSignal }): Promise<{ messages: Message<Data>[]; more: boolean }>;
  /**
   * All messages before an id (default: the newest), newest first, a page at a time.
   *
   *     for await (const { text } of room.past()) if (text?.includes("parley")) break;
   */
  past(before?: Id, options?: { limit?: number; signal?: AbortSignal }): AsyncGenerator<Message<Data>, void>;
  /**
   * Leaves the room, unless somebody else here joined it too. What is queued is sent first; what failed is given up. Resolves
   * when it is done.
   *
   *     await room.leave();
   */
  leave(): Promise<unknown>;
}

/**
 * Orders ids, as a comparison for Array.sort: as two integers.
 *
 *     messages.sort((a, b) => compareIds(a.id, b.id));
 */
export function compareIds(a: Id, b: Id): number;
