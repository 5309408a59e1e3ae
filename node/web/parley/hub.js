// One connection for several tabs, each of which speaks parley.v1 as if it had one of its own. A room that two of them are in is
// joined once: who comes later is brought up to date apart, while what is new is held.

const HELD = 2000; // frames for a tab that is brought up to date; past it, it has to begin anew
const PATIENCE = 20_000; // ms that this may take
const ASKED = 1000; // requests without an answer of one tab

export class Hub {
  #url;
  #on; // Link, WebSocket, and heard
  #to; // first, tell, opened, drop, lost
  #link;
  #tabs = new Map(); // id → { hello, asked }
  #welcome = false; // the first tab was welcomed: until then the others wait
  #rooms = new Map(); // name → { tabs: id → null, or the frames held for it; joined, live, waiting: joins until it is live }
  #asked = new Map(); // request → what takes the answer
  #requests = 0;
  #apart = Promise.resolve(); // one at a time
  #aside; // the link for that

  /** @param to {{ first, tell, opened, drop, lost }} the tab that speaks first, and what tells a tab a frame, that it may speak, that
   * it has to begin anew, and all that the connection is lost. */
  constructor(url, on, to) {
    this.#url = url;
    this.#on = on;
    this.#to = to;
    this.add(to.first);
    const { Link, WebSocket, heard } = on;
    this.#link = new Link(url, {
      WebSocket,
      open: () => to.opened(to.first, this.transport),
      heard,
      frame: (frame) => this.#route(frame),
      lost: to.lost,
    });
  }

  get transport() {
    return this.#link.transport;
  }

  close(code, reason) {
    this.#link.close(code, reason);
    this.#aside?.close();
    this.#rooms.clear();
    this.#tabs.clear();
  }

  add(tab) {
    this.#tabs.set(tab, { hello: null, asked: 0 });
    if (this.#welcome) this.#to.opened(tab, this.transport);
  }

  remove(tab) {
    this.#tabs.delete(tab);
    for (const name of [...this.#rooms.keys()]) this.#leave(tab, name, () => this.#ask({ op: "leave", room: name }, () => {}));
  }

  /** Takes what a tab says. */
  take(tab, frame) {
    const { op, req, room } = frame;
    if (op === "join") return this.#join(tab, frame);
    const forward = () => this.#forward(tab, frame);
    if (op !== "leave") return forward();
    if (!this.#leave(tab, room, forward)) this.#to.tell(tab, { op: "ok", req });
  }

  #forward(tab, frame) {
    const about = this.#tabs.get(tab);
    if (!about) return;
    if (about.asked >= ASKED) {
      return this.#to.tell(tab, { op: "error", req: frame.req, code: "rate_limited", message: "too much at once", retry_after: 1000 });
    }
    about.asked++;
    const room = this.#rooms.get(frame.room); // it may be joined anew before the answer
    this.#ask(frame, (answer) => {
      about.asked--;
      if (answer.code === "not_joined" && this.#rooms.get(frame.room) === room) this.#rooms.delete(frame.room); // the next join is one
      this.#answer(tab, frame, answer);
      if (answer.op !== "welcome") return;
      about.hello = frame;
      this.#welcomed();
    });
  }

  #welcomed() {
    if (this.#welcome) return;
    this.#welcome = true;
    for (const tab of this.#tabs.keys()) if (tab !== this.#to.first) this.#to.opened(tab, this.transport);
  }

  #answer(tab, { req }, answer) {
    if (this.#tabs.has(tab)) this.#to.tell(tab, { ...answer, req });
  }

  #ask(frame, take) {
    const req = ++this.#requests;
    this.#asked.set(req, take);
    this.#link.send({ ...frame, req });
  }

  // Resolves with an answer that is no error.
  #request(frame) {
    return new Promise((resolve, reject) => this.#ask(frame, (answer) => (answer.op === "error" ? reject(answer) : resolve(answer))));
  }

  // Hands on what the node says.
  #route(frame) {
    const { op, req } = frame;
    const take = this.#asked.get(req);
    if (take) {
      this.#asked.delete(req);
      return take(frame);
    }
    if (op === "bye" || op === "error") for (const tab of this.#tabs.keys()) this.#to.tell(tab, frame);
    const room = this.#rooms.get(frame.room);
    if (!room?.joined) return;
    if (op === "left") this.#rooms.delete(frame.room);
    for (const [tab, held] of room.tabs) {
      if (!held) this.#to.tell(tab, frame);
      else if (held.push(frame) > HELD) this.#to.drop(tab);
    }
    if (op === "live") room.live = true;
    if (op === "live" || op === "left") this.#proceed(room);
  }

  // Those who waited join.
  #proceed(room) {
    for (const [tab, frame] of room.waiting.splice(0)) if (this.#tabs.has(tab)) this.#join(tab, frame);
  }

  #join(tab, frame) {
    const { room: name } = frame;
    let room = this.#rooms.get(name);
    if (room?.live) return this.#update(tab, frame, room);
    if (room) return room.waiting.push([tab, frame]);
    room = { tabs: new Map([[tab, null]]), joined: false, live: false, waiting: [] };
    this.#rooms.set(name, room);
    this.#ask(frame, (answer) => {
      if (this.#rooms.get(name) !== room) return; // it was left meanwhile
      room.joined = answer.op !== "error";
      if (!room.joined) this.#rooms.delete(name);
      this.#answer(tab, frame, answer);
      if (!room.joined) this.#proceed(room);
    });
  }

  // Takes a tab out of a room; the last one by leave(). Returns whether it did that.
  #leave(tab, name, leave) {
    const room = this.#rooms.get(name);
    room?.tabs.delete(tab);
    if (room) room.waiting = room.waiting.filter(([who]) => who !== tab);
    if (room?.tabs.size) return false;
    this.#rooms.delete(name);
    leave();
    if (room) this.#proceed(room);
    return true;
  }

  // Brings a tab up to date in a room that is live, and lets it have what is new from then on.
  async #update(tab, frame, room) {
    const held = [];
    let answered = null; // over a connection of its own
    room.tabs.set(tab, held);
    const wanted = () => room.tabs.get(tab) === held;
    const current = () => this.#rooms.get(frame.room) === room && wanted();
    const over = () => {
      if (current()) return false;
      if (wanted()) this.#to.drop(tab); // who still waits, for a room that is none any more, begins anew
      return true;
    };
    try {
      const [joined, messages] = await this.#newest(frame).catch(() => []);
      if (messages && current()) {
        this.#answer(tab, frame, joined);
        for (const message of messages) this.#to.tell(tab, { ...message, op: "message" });
      } else await this.#missed(tab, frame, current, (joined) => this.#answer(tab, frame, (answered = joined)));
    } catch ({ code = "unavailable", message = "the connection was lost", retry_after }) {
      if (over()) return;
      if (answered) return this.#to.drop(tab); // with a part of what it missed
      this.#leave(tab, frame.room, () => this.#ask({ op: "leave", room: frame.room }, () => {}));
      return this.#answer(tab, frame, { op: "error", code, message, retry_after });
    }
    if (over()) return;
    if (held.some(({ op }) => op === "gap")) return this.#to.drop(tab); // was what it got before that, or after?
    room.tabs.set(tab, null);
    this.#to.tell(tab, { op: "live", room: frame.room });
    for (const late of held) this.#to.tell(tab, late);
  }

  // What a newcomer gets, and who missed nothing, over the connection that there is.
  async #newest({ room, since, limit }) {
    const joined = await this.#request({ op: "join", room, since });
    const { recovered = since === joined.last } = joined; // which an older node does not say
    if (since ? recovered : limit === 0) return [joined, []];
    return since ? [] : [joined, (await this.#request({ op: "history", room, limit })).messages];
  }

  // What somebody missed comes over a connection of its own, since only a join tells whether it is all.
  #missed(tab, frame, current, answer) {
    const { Link, WebSocket } = this.#on;
    const run = async () => {
      if (!current()) return;
      let late;
      try {
        await new Promise((done, fail) => {
          late = setTimeout(fail, PATIENCE, {});
          const take = (got) => {
            if (!current()) return done();
            if (got.req && got.op === "error") return fail(got);
            if (got.op === "welcome" && got.req) this.#aside.send({ ...frame, req: 2 });
            else if (got.req) answer(got);
            else if (got.op === "message" || got.op === "gap") this.#to.tell(tab, got);
            else if (got.op === "live") done();
          };
          const open = () => this.#aside.send({ ...this.#tabs.get(tab)?.hello, req: 1 });
          this.#aside = new Link(this.#url, { WebSocket, open, heard() {}, frame: take, lost: () => fail({}) });
        });
      } finally {
        clearTimeout(late);
        this.#aside?.close();
      }
    };
    const turn = this.#apart.then(run);
    this.#apart = turn.catch(() => {});
    return turn;
  }
}
