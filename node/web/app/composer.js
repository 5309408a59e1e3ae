// Where one writes: Enter sends, Shift+Enter breaks the line, an input method's Enter is its own. Each room keeps its draft.
import { $, byteLength, el } from "./dom.js";

const TYPING_EVERY = 3000; // ms between two signals
const EMOJI =
  "👍 thumbs up|👎 thumbs down|🙂 smile|😀 grin|😂 tears of joy|😉 wink|😍 heart eyes|🤔 thinking|" +
  "😅 relieved|😭 crying|😮 surprised|😎 cool|🙏 thanks|👏 applause|🙌 hooray|💪 strong|" +
  "👀 looking|🎉 party|🚀 rocket|🔥 fire|❤️ heart|💡 idea|✅ done|❌ no|" +
  "⚠️ warning|❓ question|👋 wave|☕ coffee|🍕 pizza|🐛 bug|🌍 world|⏰ time";

export class Composer {
  #conversation = null;
  #drafts = new Map();
  #typedAt = 0;
  #text = $("text");
  #note = $("composer-note");
  #button = $("send");

  constructor(chat) {
    this.chat = chat;
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener("keydown", (event) => {
      const composing = event.isComposing || event.keyCode === 229; // 229: what Safari says of the Enter that ends it
      if (event.key !== "Enter" || event.shiftKey || composing) return;
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener("input", () => this.#changed());
    this.#button.addEventListener("pointerdown", (event) => event.preventDefault()); // the keyboard of a phone stays up
    this.#fillEmoji();
  }

  show(conversation) {
    this.#drafts.set(this.#conversation, this.#text.value);
    this.#conversation = conversation;
    this.#text.value = this.#drafts.get(conversation) ?? "";
    this.#text.placeholder = `Message #${conversation.name}`;
    this.#check();
  }

  focus() {
    this.#text.focus({ preventScroll: true });
  }

  #send() {
    const text = this.#text.value.trim();
    if (!text || this.#over() > 0) return;
    this.#conversation.send(text);
    this.#text.value = "";
    this.#typedAt = 0;
    this.#check();
    this.focus();
    this.onsend?.();
  }

  #changed() {
    this.#check();
    const due = Date.now() - this.#typedAt > TYPING_EVERY;
    if (!due || !this.#text.value.trim() || !this.#conversation.room.live) return;
    this.#typedAt = Date.now();
    this.#conversation.room.signal("typing");
  }

  #over() {
    return byteLength(this.#text.value.trim()) - (this.chat.limits.text ?? 4096);
  }

  #check() {
    const over = this.#over();
    this.#note.textContent = over > 0 ? `Too long by ${over.toLocaleString()} bytes` : "";
    this.#button.disabled = over > 0 || !this.#text.value.trim();
    if (CSS.supports("field-sizing", "content")) return;
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }

  #fillEmoji() {
    const picker = $("emoji");
    picker.addEventListener("beforetoggle", () => {
      const { top, right } = $("composer").getBoundingClientRect();
      picker.style.right = `${innerWidth - right}px`;
      picker.style.bottom = `${innerHeight - top + 8}px`;
    });
    for (const entry of EMOJI.split("|")) {
      const [emoji, ...name] = entry.split(" ");
      const title = name.join(" ");
      const button = el("button", { type: "button", textContent: emoji, title, "aria-label": title });
      button.addEventListener("click", () => {
        picker.hidePopover();
        this.#text.setRangeText(emoji, this.#text.selectionStart, this.#text.selectionEnd, "end");
        this.focus();
        this.#changed();
      });
      picker.append(button);
    }
  }
}
