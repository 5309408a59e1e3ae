// What a message's text becomes: text, links, and code between backticks. Nothing in it is ever parsed as HTML.
import { el } from "./dom.js";

const PROTOCOLS = ["http:", "https:", "mailto:"];

// Code first, without the language that its fence names, so that no link is made inside. A link ends at spaces, quotes, brackets and characters that change direction
// or cannot be seen, which would show another address than the true one.
const BLOCK = /```(?:[\w+#.-]*\n)?(?<block>[^]+?)\n?```/;
const CODE = /`(?<code>[^`\n]+)`/;
const LINK = /(?<link>\b(?:https?:\/\/|mailto:)[^\s<>"'`\p{Cf}\u115f\u1160\u3164\uffa0]+)/u;
const TOKEN = new RegExp([BLOCK, CODE, LINK].map((part) => part.source).join("|"), "giu");

/** The nodes that a text is shown as. */
export function markup(text) {
  const out = new DocumentFragment();
  let end = 0;
  for (const found of text.matchAll(TOKEN)) {
    const { block, code, link } = found.groups;
    out.append(text.slice(end, found.index));
    end = found.index + found[0].length;
    if (block !== undefined) out.append(el("pre", {}, el("code", { textContent: block })));
    else if (code !== undefined) out.append(el("code", { textContent: code }));
    else out.append(...linked(link));
  }
  out.append(text.slice(end));
  return out;
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
