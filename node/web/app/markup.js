// What a message's text becomes: text, links, code between backticks, and of Markdown what people type by themselves: **bold**,
// *italic*, > quotes and - lists; #rooms and the @names of those who are here. Nothing in it is ever parsed as HTML.
import { el } from "./dom.js";
import { linkTo } from "./rooms.js";

const PROTOCOLS = ["http:", "https:", "mailto:"];

// Code first, without the language that its fence names, so that no link is made inside. A link ends at spaces, quotes, brackets and characters that change direction
// or cannot be seen, which would show another address than the true one.
const BLOCK = /```(?:[\w+#.-]*\n)?(?<block>[^]+?)\n?```\n?/g;
const CODE = /`(?<code>[^`\n]+)`/;
const LINK = /(?<link>\b(?:https?:\/\/|mailto:)[^\s<>"'`\p{Cf}\u115f\u1160\u3164\uffa0]+)/u;
const BOLD = /(?<![\p{L}\p{N}*])\*\*(?<bold>[^\s*](?:[^*\n]*[^\s*])?)\*\*(?![\p{L}\p{N}*])/u;
const ITALIC = /(?<![\p{L}\p{N}*_])(?<mark>[*_])(?<italic>[^\s*_](?:[^*_\n]*[^\s*_])?)\k<mark>(?![\p{L}\p{N}*_])/u;
const ROOM = /(?<![\p{L}\p{N}\p{M}#&/=_-])#(?<room>(?=[\p{N}_-]*\p{L})[\p{L}\p{N}\p{M}_-]{1,64})/u;
const NAME = /(?<![\p{L}\p{N}\p{M}_.-])@(?<name>[^\s@][^@\n]{0,80})/u;
const TOKEN = new RegExp([CODE, LINK, BOLD, ITALIC, ROOM, NAME].map((part) => part.source).join("|"), "giu");

/** The nodes that a text is shown as. names are those who may be meant by @name, and me is mine. */
export function markup(text, names = [], me = "") {
  const out = new DocumentFragment();
  let end = 0;
  for (const found of text.matchAll(BLOCK)) {
    out.append(...lines(text.slice(end, found.index), names, me), codeBlock(found.groups.block));
    end = found.index + found[0].length;
  }
  out.append(...lines(text.slice(end), names, me));
  return out;
}

/** The name that a text addresses with an @ before it: the longest of those that are known. */
export function mentioned(text, names) {
  const lower = text.toLowerCase();
  let best = "";
  for (const name of names) {
    if (name.length <= best.length || !lower.startsWith(name.toLowerCase())) continue;
    if (!/^[\p{L}\p{N}\p{M}_]/u.test(text.slice(name.length))) best = name;
  }
  return best;
}

/** Whether a text addresses somebody of that name. */
export const mentions = (text, name) =>
  !!name && [...text.matchAll(new RegExp(NAME.source, "giu"))].some(({ groups }) => mentioned(groups.name, [name]));

// Quotes and lists are lines that begin alike.
function lines(text, names, me) {
  const out = [];
  const kinds = [[/^> ?/, "blockquote"], [/^[-*] (?=\S)/, "ul"]];
  for (const run of runs(text.split("\n"), (line) => kinds.find(([start]) => start.test(line)))) {
    if (!run.kind) out.push(...inline(run.lines.join("\n"), names, me));
    else {
      const [start, tag] = run.kind;
      const parts = run.lines.map((line) => line.replace(start, ""));
      if (tag === "ul") out.push(el("ul", {}, ...parts.map((part) => el("li", {}, ...inline(part, names, me)))));
      else out.push(el("blockquote", {}, ...inline(parts.join("\n"), names, me)));
    }
  }
  return out;
}

function runs(lines, kindOf) {
  const out = [];
  for (const line of lines) {
    const kind = kindOf(line);
    if (out.length && out.at(-1).kind === kind) out.at(-1).lines.push(line);
    else out.push({ kind, lines: [line] });
  }
  return out.filter(({ kind, lines }, i) => kind || lines.join("") || !(out[i - 1] || out[i + 1]));
}

function inline(text, names, me) {
  const out = [];
  let end = 0;
  TOKEN.lastIndex = 0;
  const put = (from, to, ...nodes) => {
    out.push(text.slice(end, from), ...nodes);
    end = to;
  };
  for (const found of [...text.matchAll(TOKEN)]) {
    const { code, link, bold, italic, room, name } = found.groups;
    const [at, to] = [found.index, found.index + found[0].length];
    if (at < end) continue; // inside of what is shown already
    if (code !== undefined) put(at, to, el("code", { textContent: code }));
    else if (link) put(at, to, ...linked(link));
    else if (bold) put(at, to, el("strong", {}, ...inline(bold, names, me)));
    else if (italic) put(at, to, el("em", {}, ...inline(italic, names, me)));
    else if (room) put(at, to, roomLink(room));
    else {
      const who = mentioned(name, me ? [me, ...names] : names);
      const shown = who && el("span", { className: who === me ? "mention me" : "mention", textContent: text.slice(at, at + 1 + who.length) });
      const rest = text.slice(at + 1 + who.length, to);
      if (who) put(at, to, shown, ...inline(rest, names, me));
      else put(at, to, "@", ...inline(name, names, me));
    }
  }
  out.push(text.slice(end));
  return out.filter((node) => node !== "");
}

function roomLink(room) {
  const link = el("a", { href: linkTo(room), className: "room", textContent: `#${room}` });
  link.dataset.room = room;
  return link;
}

// The button has no text: what is copied by hand is the code alone. It comes first, so that lines go round it.
function codeBlock(code) {
  const copy = el("button", { className: "copy", title: "Copy", "aria-label": "Copy the code" });
  copy.onclick = async () => {
    await navigator.clipboard?.writeText(code);
    copy.classList.add("copied");
    setTimeout(() => copy.classList.remove("copied"), 1500);
  };
  copy.hidden = !navigator.clipboard; // a page over http: has none
  return el("pre", {}, copy, el("code", { textContent: code }));
}

// A link, and what follows it that belongs to the sentence rather than to the address.
function linked(written) {
  let address = written.replace(/[.,:;!?*_~]+$/u, "");
  while (/[)\]}]$/.test(address) && unbalanced(address)) address = address.slice(0, -1).replace(/[.,:;!?]+$/u, "");
  const rest = written.slice(address.length);
  const url = safeURL(address);
  if (!url) return [written];
  return [el("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", textContent: address }), rest];
}

const unbalanced = (address) =>
  [["(", ")"], ["[", "]"], ["{", "}"]].some(([open, close]) => address.split(close).length > address.split(open).length);

// An address with a password or a name before its host mostly wants to look like another.
function safeURL(address) {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  return PROTOCOLS.includes(url.protocol) && !url.username && !url.password ? url.href : null;
}

/** Whether a text is a few emoji and nothing else: those are shown large. */
export const isEmojiOnly = (text) =>
  text.length <= 40 && /^(?:\p{RGI_Emoji}|\s){1,8}$/v.test(text) && /\S/.test(text);
