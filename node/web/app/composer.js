// Where one writes: Enter sends, Shift+Enter breaks the line, an input method's Enter is its own; on a phone, which has no Shift
// to hold, Enter breaks the line. Each room keeps its draft.
import { $, byteLength, drafts, el } from "./dom.js";
import { Suggestions } from "./suggestions.js";

const TYPING_EVERY = 3000; // ms between two signals
const EMOJI =
  "👍 thumbs up|👎 thumbs down|🙂 smile|😀 grin|😂 tears of joy|😉 wink|😍 heart eyes|🤔 thinking|" +
  "😅 relieved|😭 crying|😮 surprised|😎 cool|🙏 thanks|👏 applause|🙌 hooray|💪 strong|" +
  "👀 looking|🎉 party|🚀 rocket|🔥 fire|❤️ heart|💡 idea|✅ done|❌ no|" +
  "⚠️ warning|❓ question|👋 wave|☕ coffee|🍕 pizza|🐛 bug|🌍 world|⏰ time";

export class Composer {
  #conversation = null;
  #typedAt = 0;
  #text = $("text");
  #note = $("composer-note");
  #button = $("send");
  #touch = matchMedia("(hover: none) and (pointer: coarse)");
  #suggestions = new Suggestions(this.#text); // the first to hear of a key

  constructor(chat) {
    this.chat = chat;
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener("keydown", (event) => {
      const composing = event.isComposing || event.keyCode === 229; // 229: what Safari says of the Enter that ends it
      if (event.key !== "Enter" || event.shiftKey || composing || this.#touch.matches) return;
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener("input", () => this.#changed());
    this.#button.addEventListener("pointerdown", (event) => event.preventDefault()); // the keyboard of a phone stays up
    const hint = () => (this.#text.enterKeyHint = this.#touch.matches ? "enter" : "send");
    this.#touch.addEventListener("change", hint);
    hint();
    this.#refuseFiles();
    this.#fillEmoji();
  }

  // There is no place for files. A drop beside the field would have the browser show the file instead of the chat.
  #refuseFiles() {
    const refuse = (event) => {
      const transfer = event.dataTransfer ?? event.clipboardData;
      if (!transfer?.types.includes("Files")) return;
      if (event.type === "paste" && transfer.types.includes("text/plain")) return; // the text is what is meant
      event.preventDefault();
      if (event.type !== "dragover") this.#note.textContent = "Pictures and files can't be sent here. A link to one can.";
      else transfer.dropEffect = "none";
    };
    for (const type of ["dragover", "drop", "paste"]) addEventListener(type, refuse);
  }

  show(conversation) {
    this.#conversation = conversation;
    this.#suggestions.show(conversation);
    this.#text.value = drafts.get(conversation.name);
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
    drafts.set(this.#conversation.name, "");
    this.#typedAt = 0;
    this.#check();
    this.focus();
    this.onsend?.();
  }

  #changed() {
    drafts.set(this.#conversation.name, this.#text.value);
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
