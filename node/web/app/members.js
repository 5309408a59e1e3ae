// Who is in the room: one entry per person, however many connections they have; and who types.
import { $, el, oncePerFrame } from "./dom.js";
import { avatar, nameElement, nameOf } from "./people.js";

const byName = new Intl.Collator([], { numeric: true, sensitivity: "base" });

export class Members {
  #conversation = null;
  #signature = ""; // of what is drawn
  #list = $("member-list");
  #rest = $("member-rest");
  #counts = document.querySelectorAll(".count");
  #typing = $("typing");
  #draw = oncePerFrame(() => this.#drawNow());

  show(conversation) {
    this.#conversation?.removeEventListener("people", this.#draw);
    this.#conversation = conversation;
    conversation.addEventListener("people", this.#draw);
    this.#drawNow();
  }

  #drawNow() {
    const { room, typing } = this.#conversation;
    const { user } = room.chat;
    for (const count of this.#counts) count.textContent = room.count ? room.count.toLocaleString() : "";
    this.#typing.replaceChildren(...typingLine([...typing.values()]));
    const members = [...room.members.values()];
    const { names } = this.#conversation;
    const signature = members.map((member) => member.id + nameOf(member) + names.isShared(member)).join() + user?.id + room.count + room.name;
    if (signature === this.#signature) return;
    this.#signature = signature;
    members.sort((a, b) => (b.id === user?.id) - (a.id === user?.id) || byName.compare(nameOf(a), nameOf(b)));
    this.#list.replaceChildren(...members.map((member) => entry(member, member.id === user?.id, names)));
    const rest = room.count - members.length;
    this.#rest.textContent = rest > 0 ? `and ${rest.toLocaleString()} more` : "";
  }
}

const entry = (member, me, names) =>
  el("li", { title: member.id }, avatar(member), nameElement(member, names), me && el("span", { className: "you" }, "you"));

function typingLine(people) {
  if (people.length === 0) return [];
  if (people.length > 2) return ["Several people are typing…"];
  const names = people.map((person) => nameElement(person));
  return people.length === 1 ? [names[0], " is typing…"] : [names[0], " and ", names[1], " are typing…"];
}
