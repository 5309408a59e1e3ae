// Notices of the browser for those who are addressed by @name while they look elsewhere. They are asked for at a click, never
// before.
import { $, kept } from "./dom.js";
import { nameOf } from "./people.js";

const allowed = () => globalThis.Notification?.permission === "granted" && kept.get("notices") === true;

/** Tells of a message that addresses the user, if they want that. */
export function notice({ name }, { id, from, text }, onclick) {
  if (!allowed()) return;
  const shown = new Notification(`${nameOf(from)} in #${name}`, { body: text.slice(0, 200), tag: id });
  shown.onclick = () => {
    focus();
    shown.close();
    onclick();
  };
}

/** The choice of whether one wants them. */
export function offerNotices() {
  const [choice, label] = [$("notices"), $("notices-label")];
  label.hidden = !globalThis.Notification; // as of a page over http:
  if (label.hidden) return;
  const draw = () => (choice.checked = allowed());
  choice.addEventListener("change", async () => {
    kept.set("notices", choice.checked && (await Notification.requestPermission()) === "granted");
    draw();
  });
  draw();
}
