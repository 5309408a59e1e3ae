// The rows of a timeline: each has a key, a signature that changes when the row has to be drawn anew, and a way to draw it.
import { el, plural } from "./dom.js";
import { isEmojiOnly, markup, mentions } from "./markup.js";
import { avatar, nameElement, nameOf, tint } from "./people.js";
import { linkTo } from "./rooms.js";

const GROUP = 5 * 60_000; // ms within which one sender's messages stand under one name
const LONG = { chars: 1800, lines: 24 }; // a longer text is folded

const clock = new Intl.DateTimeFormat([], { timeStyle: "short" });
const full = new Intl.DateTimeFormat([], { dateStyle: "full", timeStyle: "medium" });
const thisYear = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });
const isoDay = new Intl.DateTimeFormat("sv"); // whose dates are 2025-11-22
const otherYear = new Intl.DateTimeFormat([], { dateStyle: "long" });

/** The rows of items `from` to `to`, and after the last one of what is on its way. */
export function rowsOf(conversation, from, to) {
  const rows = [];
  let before = conversation.at(from - 1);
  let day = dayBefore(conversation, from);
  const add = (item) => {
    const { kind, id, at, itemKey } = item;
    const newDay = kind === "message" && day !== dayOf(at);
    if (newDay) rows.push(dayRow(itemKey, at));
    const divided = id && id === conversation.divider;
    if (divided) rows.push({ key: "unread", sig: "", draw: unreadRow });
    const first = divided || newDay || !continues(item, before);
    if (kind === "message") rows.push(messageRow(item, first, conversation));
    else rows.push({ key: itemKey, sig: String(item.version), draw: () => (kind === "gap" ? gapRow() : presenceRow(item)) });
    if (kind === "message") day = dayOf(at);
    before = item;
  };
  for (let number = from; number < to; number++) add(conversation.at(number));
  if (to < conversation.end || conversation.detached) return rows;
  const me = conversation.room.chat.user ?? {};
  for (const [key, out] of conversation.outgoing) add({ ...out, from: me, mine: true, kind: "message", itemKey: `k${key}` });
  return rows;
}

// Beside a message that stands under another's name there is only room for the figures.
function clockTime(at, whole) {
  if (whole) return clock.format(at);
  const figures = clock.formatToParts(at).filter(({ type }) => type !== "dayPeriod");
  return figures.map(({ value }) => value).join("").trim();
}

const continues = (item, before) =>
  before?.kind === "message" && before.from.id === item.from?.id && nameOf(before.from) === nameOf(item.from) &&
  item.at - before.at < GROUP;

const dayOf = (at) => new Date(at).toDateString();

function dayBefore(conversation, number) {
  while (number > conversation.offset) {
    const { kind, at } = conversation.at(--number);
    if (kind === "message") return dayOf(at);
  }
}

function dayRow(key, at) {
  const label = dayLabel(at);
  const dateTime = isoDay.format(at);
  const draw = () => el("li", { className: "day" }, el("time", { dateTime, textContent: label }));
  return { key: `d${key}`, sig: label, draw };
}

function dayLabel(at) {
  const [date, now] = [new Date(at), new Date()];
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
  if (date.toDateString() === now.toDateString()) return "Today";
  if (date.toDateString() === yesterday.toDateString()) return "Yesterday";
  return (date.getFullYear() === now.getFullYear() ? thisYear : otherYear).format(date);
}

const unreadRow = () => el("li", { className: "unread" }, el("span", { textContent: "New" }));

const gapRow = () => el("li", { className: "gap" }, el("span", { textContent: "Some messages are missing here" }));

function presenceRow({ joined, left, many }) {
  const people = (who, did) => {
    if (!who.size) return "";
    const names = [...who.values()].map(nameOf);
    if (many || names.length > 3) return `${plural(names.length, "person").replace("persons", "people")} ${did}`;
    return `${new Intl.ListFormat("en").format(names)} ${did}`;
  };
  const line = [people(joined, "joined"), people(left, "left")].filter(Boolean).join(" · ");
  return el("li", { className: "presence", hidden: !line }, el("bdi", { textContent: line }));
}

function messageRow(item, first, conversation) {
  const { itemKey, state = "sent", error, mine } = item;
  const sig = `${first}${state}${error?.code ?? ""}${nameOf(item.from)}${conversation.names.isShared(item.from)}`;
  return { key: itemKey, sig, draw: () => drawMessage({ ...item, state }, first, mine, conversation) };
}

function drawMessage(item, first, mine, conversation) {
  const { id, from, text = "", data, at, state } = item;
  const node = el("li", { className: `message ${state}` });
  node.classList.toggle("first", first);
  node.classList.toggle("mine", mine);
  node.classList.toggle("addressed", !mine && mentions(text, conversation.me));
  const clockOf = el("time", { dateTime: new Date(at).toISOString(), title: full.format(at) }, clockTime(at, first));
  const time = id ? el("a", { className: "at", href: `${linkTo(conversation.name)}#${id}` }, clockOf) : clockOf;
  const name = tint(nameElement(from, conversation.names), from);
  name.title = from.id ?? "";
  if (first) node.append(avatar(from), el("p", { className: "head" }, name, " ", time));
  else node.append(el("p", { className: "aside" }, el("span", { className: "sr" }, nameElement(from), " "), time));
  node.append(...body(text, data, conversation));
  if (id) node.dataset.id = id;
  if (state !== "sent") node.append(stateOf(item, conversation));
  return node;
}

function body(text, data, { room, me }) {
  const pictures = picture(data);
  if (!text) return pictures.length ? pictures : [el("div", { className: "text data", textContent: JSON.stringify(data)?.slice(0, 500) ?? "" })];
  const names = text.includes("@") ? [...room.members.values()].map(nameOf) : [];
  const shown = el("div", { className: "text", dir: "auto" }, markup(text, names, me));
  shown.classList.toggle("jumbo", isEmojiOnly(text));
  if (text.length <= LONG.chars && text.split("\n").length <= LONG.lines) return [shown, ...pictures];
  shown.classList.add("folded");
  const more = el("button", { className: "link", textContent: "Show all", "aria-expanded": "false" });
  more.onclick = () => {
    const folded = shown.classList.toggle("folded");
    more.textContent = folded ? "Show all" : "Show less";
    more.setAttribute("aria-expanded", String(!folded));
  };
  return [shown, more, ...pictures];
}

// A picture that is in the message. One that is elsewhere is not fetched: that would tell its host who reads here.
function picture(data) {
  const { image, alt } = data ?? {};
  if (typeof image !== "string" || !/^data:image\/(?:png|jpeg|gif|webp|avif);/.test(image)) return [];
  return [el("img", { className: "picture", src: image, alt: typeof alt === "string" ? alt : "A picture without a description" })];
}

// What became of a message of ours that the room does not have for certain.
function stateOf({ key, state, error }, conversation) {
  const said = {
    pending: "Sending…",
    unconfirmed: error ? "It is not certain that this was sent" : "Not confirmed yet, trying again…",
    failed: `Not sent: ${error?.message ?? "refused"}`,
  };
  const line = el("p", { className: "state", textContent: said[state] });
  if (!error) return line;
  const button = (textContent, onclick) => el("button", { className: "link", textContent, onclick });
  line.append(" ", button("Try again", () => conversation.room.retry(key)));
  line.append(" ", button("Delete", () => conversation.discard(key)));
  return line;
}
