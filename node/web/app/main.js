// The page: one connection, the rooms one is in, and the parts that show them.
import { Parley } from "../parley.js";
import { Announcer } from "./announcer.js";
import { Banner } from "./banner.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { $, kept, oncePerFrame } from "./dom.js";
import { Find } from "./find.js";
import { Members } from "./members.js";
import { notice } from "./notices.js";
import { chosenName, Profile } from "./profile.js";
import { linkTo, roomProblem, Rooms } from "./rooms.js";
import { Timeline } from "./timeline.js";

const conversations = new Map(); // name → Conversation, in the order joined
let current = null;

const chat = new Parley(new URL("ws", location.href), { name: chosenName() });
const timeline = new Timeline({ scroller: $("scroller"), list: $("timeline"), top: $("top"), jump: $("jump") });
const composer = new Composer(chat);
const find = new Find(timeline, { onclose: () => composer.focus() });
const members = new Members();
const announcer = new Announcer($("announcer"));
const banner = new Banner(chat);
const rooms = new Rooms({ onopen: open, onleave: leave });
new Profile(chat);
chat.on("refused", ({ what, value, error }) => {
  if (what === "name") kept.set("name", null);
  const said = what === "name" ? `The name “${value.slice(0, 64)}” was refused` : "You are a new guest here: your session was refused";
  banner.note(`${said} (${error.message}).`);
});

const drawRooms = oncePerFrame(() => rooms.draw([...conversations.values()], current));

function join(name) {
  if (conversations.has(name)) return conversations.get(name);
  const room = chat.join(name);
  const conversation = new Conversation(room);
  conversations.set(name, conversation);
  room.on("live", (how) => banner.caughtUp(room, how));
  room.on("error", () => banner.dropped(room));
  conversation.addEventListener("unread", () => {
    showTitle();
    drawRooms();
  });
  conversation.addEventListener("arrival", ({ detail: { message, addressed } }) => {
    if (conversation === current && !document.hidden) announcer.message(message);
    else if (addressed) notice(conversation, message, () => open(name));
  });
  kept.set("rooms", [...conversations.keys()]);
  return conversation;
}

// Shows a room, joining it if need be. push adds it to the browser's history.
function open(name, { push = true, at = "" } = {}) {
  current = join(name);
  timeline.show(current);
  composer.show(current);
  find.show(current);
  members.show(current);
  $("title").textContent = `#${name}`;
  $("scroller").setAttribute("aria-label", `Messages in ${name}`);
  if (push) history.pushState(null, "", linkTo(name) + (at && `#${at}`));
  showTitle();
  rooms.draw([...conversations.values()], current);
  closeDrawer();
  if (!matchMedia("(pointer: coarse)").matches) composer.focus(); // which would raise the keyboard of a phone
  if (at) goTo(at);
}

// Shows a message of the current room, once that is there.
async function goTo(id) {
  const conversation = current;
  if (!conversation.ready) await new Promise((done) => conversation.addEventListener("ready", done, { once: true }));
  if (current !== conversation) return;
  if (!(await timeline.goTo(id))) banner.note("The message that the address names is not in this room any more.");
}

function leave(name) {
  if (conversations.size < 2) return;
  const conversation = conversations.get(name);
  const index = [...conversations.keys()].indexOf(name);
  conversations.delete(name);
  kept.set("rooms", [...conversations.keys()]);
  if (conversation === current) open([...conversations.keys()][Math.max(0, index - 1)]);
  conversation.leave();
  banner.dropped(conversation.room);
  drawRooms();
}

function showTitle() {
  const unread = [...conversations.values()].reduce((sum, conversation) => sum + conversation.unread, 0);
  if (unread) navigator.setAppBadge?.(unread).catch(() => {});
  else navigator.clearAppBadge?.().catch(() => {});
  document.title = `${unread ? `(${unread > 999 ? "999+" : unread}) ` : ""}#${current?.name} · Parley`;
}

// The room that the address names. One that there can't be is said, rather than passed over.
const roomInAddress = () => {
  const name = new URLSearchParams(location.search).get("room");
  const problem = name && roomProblem(name);
  if (problem) banner.note(`The address names a room that can't be opened. ${problem}.`);
  return problem ? null : name || null;
};

const messageInAddress = () => location.hash.match(/^#(\d{1,20}-\d{1,20})$/)?.[1] ?? "";

// A link to a room or to a message stays in this page. One that is meant for another tab does not.
$("timeline").addEventListener("click", (event) => {
  const link = event.target.closest("a.room, a.at");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  if (link.matches(".room")) return open(link.dataset.room);
  history.replaceState(null, "", link.href);
  navigator.clipboard?.writeText(link.href).then(() => banner.note("The link to this message was copied."), () => {});
  goTo(messageInAddress());
});

// On narrow screens the rooms and the members are drawers over the messages.
const drawers = { rooms: $("show-rooms"), members: $("show-members") };

function toggleDrawer(name) {
  const opened = document.body.dataset.drawer === name;
  closeDrawer();
  if (opened) return;
  document.body.dataset.drawer = name;
  drawers[name].setAttribute("aria-expanded", "true");
  if (getComputedStyle($(name)).position !== "fixed") return; // there is room for it beside the messages
  $("scrim").hidden = false;
  $("main").inert = true;
  ($(name).querySelector("a") ?? $(name)).focus();
}

function closeDrawer() {
  const name = document.body.dataset.drawer;
  if (!name) return;
  delete document.body.dataset.drawer;
  $("scrim").hidden = true;
  $("main").inert = false;
  drawers[name].setAttribute("aria-expanded", "false");
  drawers[name].focus();
}

for (const [name, button] of Object.entries(drawers)) button.addEventListener("click", () => toggleDrawer(name));
$("scrim").addEventListener("click", closeDrawer);
composer.onsend = () => timeline.toEnd();

// Going back to a room that was left would join it again: there one stays where one is.
addEventListener("popstate", () => {
  const name = roomInAddress();
  if (conversations.has(name)) open(name, { push: false, at: messageInAddress() });
  else history.replaceState(null, "", linkTo(current.name));
});

addEventListener("keydown", (event) => {
  if ($("name-dialog").open || event.isComposing) return;
  const { key, altKey, ctrlKey, metaKey, shiftKey } = event;
  const typing = event.target.matches("input, textarea");
  if (key === "Escape" && document.body.dataset.drawer) closeDrawer();
  else if (key === "Escape" && !timeline.following) timeline.toEnd();
  else if (altKey && (key === "ArrowUp" || key === "ArrowDown")) {
    const names = [...conversations.keys()];
    const step = key === "ArrowUp" ? -1 : 1;
    open(names.at((names.indexOf(current.name) + step) % names.length));
  } else if ((ctrlKey || metaKey) && key === "k") rooms.focus();
  else if ((ctrlKey || metaKey) && !shiftKey && !altKey && key === "f" && !find.focused) find.open();
  else {
    // Whoever begins to type, wherever the focus is, means the message.
    if (!typing && key.length === 1 && key !== " " && !altKey && !ctrlKey && !metaKey) composer.focus();
    return;
  }
  event.preventDefault();
});

for (const name of [kept.get("rooms") ?? []].flat()) if (name && typeof name === "string" && !roomProblem(name)) join(name);
open(roomInAddress() ?? conversations.keys().next().value ?? "lobby", { push: false, at: messageInAddress() });
history.replaceState(null, "", linkTo(current.name) + location.hash); // so that going back finds it
