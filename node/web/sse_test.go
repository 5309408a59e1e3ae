package web_test

import (
	"testing"
	"time"

	"parley/node"
	"parley/node/nodetest"
)

func TestClientFallsBackWhereWebSocketsAreBlocked(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	url := blockUpgrades(t, n)
	p := newClient(t, n.HTTP(""), url)
	p.until(`room.live`)
	user := js[string](p, `chat.user.id`)
	if sent := js[string](p, `room.send("hello", { data: [1] }).then(({ id }) => id)`); sent == "" {
		t.Error("the message has no id")
	}
	say(t, n.Bus, "design", "Bo", "hi", "what's new?")
	p.until(`texts.length === 3`)
	wantTexts(t, js[[]string](p, `texts`), "hello", "hi", "what's new?")
	p.until(`room.members.has(chat.user.id) && room.count === 1`)
	bo := enter(t, n, "design", "Bo")[0]
	p.until(`room.count === 2`)
	p.run(`room.on("signal", ({ kind }) => log.push("signal " + kind))`)
	bo.Say(`{"op":"signal","room":"design","kind":"typing"}`)
	p.until(`log.includes("signal typing")`)
	wantTexts(t, js[[]string](p, `room.history().then(({ messages }) => messages.map(({ text }) => text))`), "hello", "hi", "what's new?")

	p.run(`await room.signal("typing")`)
	bo.Until("signal")

	// Any number of rooms is one stream, and the same guest's. One is left and joined again in order.
	p.run(`
		for (let i = 0; i < 20; i++) chat.join("room " + i);
		await Promise.all([...chat.rooms.values()].map((room) => room.ready));
		chat.join("room 3").leave();
		await chat.rooms.get("room 3").leave();
		await chat.join("room 3").ready;
		await chat.rooms.get("room 3").send("in 3");
	`)
	say(t, n.Bus, "room 3", "Bo", "seen")
	p.until(`chat.rooms.get("room 3").messages.at(-1).text === "seen"`)
	if again := js[string](p, `chat.user.id`); again != user || js[string](p, `chat.transport`) != "sse" {
		t.Errorf("the guest became %s, and was %s", again, user)
	}
	if left := js[string](p, `room.send("☃".repeat(2000)).catch(({ code }) => code)`); left != "too_large" {
		t.Errorf("a text over the limit is refused with %q", left)
	}
}

// What a line is to JavaScript is none to an event stream: data may have U+2028 in it, as any client may send it.
func TestAStreamTakesWhateverAMessageHas(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newClient(t, n.HTTP(""), blockUpgrades(t, n))
	p.until(`room.live`)
	p.run(`log.length = 0; room.on("message", ({ data }) => (window.got = data))`)
	const odd = "a\u2028data: {}\u2029b\u0085\ufeff"
	eve := enter(t, n, "design", "Eve")[0]
	eve.SendText("design", "odd", `"data":"`+odd+`"`)
	p.until(`window.got`)
	if got := js[string](p, `got`); got != odd {
		t.Errorf("%q came as %q", odd, got)
	}
	if lost := js[bool](p, `log.includes("waiting")`); lost {
		t.Error("the connection was lost")
	}
}

// What is posted of a room goes one after the other: who leaves a room and comes back at once is in it, though the first takes longer.
func TestWhatIsPostedOfARoomKeepsItsOrder(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newClient(t, n.HTTP(""), blockUpgrades(t, n))
	p.until(`room.live`)
	p.run(`
		const real = window.fetch;
		window.fetch = async (url, init) => {
			if (init?.body?.includes('"op":"leave"')) await new Promise((done) => setTimeout(done, 200));
			return real(url, init);
		};
		room.leave();
		window.back = chat.join("design");
	`)
	p.until(`back.live`)
	say(t, n.Bus, "design", "Bo", "welcome back")
	p.until(`back.messages.at(-1)?.text === "welcome back"`)
}

func TestClientNoticesASilentStream(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.PingInterval = time.Second })
	g := newGate(t, c.Nodes[0])
	p := newClient(t, c.Nodes[0].HTTP(""), blockUpgradesAt(t, g.URL))
	p.until(`room.live`)
	g.silence()
	p.until(`chat.state !== "open"`)
	say(t, c.Nodes[0].Bus, "design", "Bo", "meanwhile")
	g.speak()
	p.until(`texts.join() === "meanwhile"`)
}

func TestPageWithoutWebSocketsResumes(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	g := newGate(t, c.Nodes[0])
	url := blockUpgradesAt(t, g.URL)
	p := openPage(t, url, "design", "Ada")
	p.say("one")
	p.sees("one")
	g.cut()
	p.until(`!document.querySelector("#banner").hidden`)
	p.say("three")
	say(t, c.Nodes[1].Bus, "design", "Bo", "two")
	g.to(c.Nodes[1])
	p.sees("three")
	wantTexts(t, p.texts(), "one", "two", "three")
	if names := js[string](p, `[...document.querySelectorAll(".head .name")].map((node) => node.textContent).join()`); names != "Ada,Bo,Ada" {
		t.Errorf("said by %s", names)
	}
	p.reload()
	p.sees("three")
}

// An outage in which no WebSocket opens is no reason to do without them: who was away for long types on, and has all rooms.
func TestAnOutageDoesNotMoveABrowserToStreams(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	g := newGate(t, c.Nodes[0])
	p := newClient(t, c.Nodes[1].HTTP(""), g.URL)
	p.run(`for (const name of ["a", "b", "c", "d"]) chat.join(name)`)
	p.until(`[...chat.rooms.values()].every((room) => room.live)`)
	g.cut()
	for range 4 {
		p.until(`chat.state === "waiting"`)
		p.run(`chat.reconnect()`)
	}
	g.to(c.Nodes[1])
	p.until(`[...chat.rooms.values()].every((room) => room.live) || (chat.state === "waiting" && chat.reconnect())`)
	p.run(`await room.signal("typing")`)
}

func TestStreamsGiveWayToAWebSocket(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	url, unblock := blockUpgradesUntil(t, n.HTTP(""))
	p := newTab(t)
	p.onEachPage(`const timeout = setTimeout; setTimeout = (f, ms, ...args) => timeout(f, ms > 5000 && ms < 16000 ? ms / 20 : ms, ...args);`)
	p.open(blankPage(t))
	p.connect(n.HTTP(""), url)
	p.until(`room.live`)
	p.run(`await room.send("over streams")`)
	if over := js[string](p, `chat.transport`); over != "sse" {
		t.Errorf("it goes over %q", over)
	}
	unblock()
	p.until(`room.live && chat.transport === "websocket"`)
	p.run(`await room.send("over a WebSocket")`)
	p.until(`texts.length === 2`)
	wantTexts(t, js[[]string](p, `texts`), "over streams", "over a WebSocket")
}

// The WebSocket that is tried beside streams does not outlive them.
func TestAWebSocketThatIsTriedFromStreamsEndsWithThem(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	for name, end := range map[string]string{"when closed": `chat.close()`, "when connected anew": `chat.reconnect()`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTab(t)
			p.onEachPage(`
				const timeout = setTimeout;
				setTimeout = (f, ms, ...args) => timeout(f, ms > 5000 && ms < 16000 && ms !== 10_000 ? ms / 50 : ms, ...args);
				window.sockets = [];
				class Blocked { // three do not open, the next one takes its time
					constructor() {
						if (sockets.push(this) < 4) timeout(() => this.onclose?.({}));
					}
					close() {
						this.closed = true;
					}
				}
			`)
			p.open(blankPage(t))
			p.connect(n.HTTP(""), n.HTTP(""), `WebSocket: Blocked`)
			p.run(`chat.on("state", ({ state }) => state === "waiting" && chat.reconnect())`)
			p.run(`if (chat.state === "waiting") chat.reconnect()`)
			p.until(`sockets.length === 4 && chat.transport === "sse"`)
			p.run(end)
			if !js[bool](p, `!!sockets[3].closed`) {
				t.Error("it is still open")
			}
		})
	}
}

// A room that is refused is not what a page waits for when it comes back.
func TestARefusedRoomIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		switch {
		case r.Op == "join" && r.Room == "secret":
			return []string{`{"op":"error","req":%REQ%,"code":"forbidden","message":"this room is not for you"}`}
		case r.Op == "send" && nth == 0:
			return []string{`{"op":"bye","code":1012,"reason":"the node restarts","retry_after":3000}`, "close 1012 the node restarts"}
		}
		return nil
	})
	p := openPage(t, f.URL, "design", "Ada", `kept("rooms", ["design", "secret"])`)
	p.say("go")
	p.until(`document.querySelector("#banner").className === "bad"`)
	p.until(`document.querySelector("#banner").className === "good"`)
}

// What a stream's node refuses at once is not waited for on the stream: no answer to it means that the node is gone.
func TestWhatIsRefusedOverAStreamIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.PingInterval = time.Minute }).Nodes[0]
	p := newClient(t, n.HTTP(""), blockUpgrades(t, n))
	p.until(`room.live && chat.transport === "sse"`)
	p.run(`
		const [set, clear] = [setTimeout, clearTimeout];
		window.waits = new Map();
		window.setTimeout = (f, ms) => {
			const timer = set(f, ms);
			if (ms === 10_000) waits.set(timer, f);
			return timer;
		};
		window.clearTimeout = (timer) => clear(timer, waits.delete(timer));
	`)
	got := js[string](p, `room.signal("").then(() => "ok", ({ code }) => code).then((code) => {
		for (const late of waits.values()) late();
		return code + ", " + chat.state;
	})`)
	if want := "bad_request, open"; got != want {
		t.Errorf("it ends as %s, want %s", got, want)
	}
}

// What a node refuses of a visitor is noticed over streams too, and before the first room is joined.
func TestStreamsCheckWhoOneIs(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	url := blockUpgrades(t, n)
	p := newTab(t)
	p.open(blankPage(t))
	p.run(`localStorage.setItem("parley:" + new URL(%s).host + ":session", "no session")`, url)
	p.run(`
		const load = () => import(%s).catch(load);
		const { Parley } = await load();
		window.chat = new Parley(%s, { name: "Ada" });
		chat.on("refused", ({ what, error }) => (window.refused = what + " " + error.code));
	`, n.HTTP("/parley.js"), url)
	p.until(`chat.state === "open" && refused === "session bad_request"`)
	if got := js[string](p, `[chat.transport, chat.user.name, chat.rooms.size].join()`); got != "sse,Ada,0" {
		t.Errorf("connected as %s", got)
	}
}

// Six streams are all that a browser opens to a host: who gets none is told what may help.
func TestWhoGetsNoConnectionIsTold(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.PingInterval = 25 * time.Second }).Nodes[0] // after which there is no answer
	url := blockUpgrades(t, n)
	p := openPage(t, url, "design", "Ada")
	other := p.sibling()
	other.open(url + "/style.css")
	other.run(`
		window.taken = 0;
		for (let i = 0; i < 6; i++) fetch("v1/events").then(() => taken++);
	`)
	other.until(`taken >= 5`)
	p.run(`const timeout = setTimeout; window.setTimeout = (f, ms, ...args) => timeout(f, ms === 10_000 ? 3000 : ms, ...args)`) // for an answer
	p.run(`document.querySelector("#banner-action").click()`)                                                                   // connects anew
	p.until(`document.querySelector("#banner-text").textContent.includes("close some")`)
	p.shot("no-connection")
	p.say("kept")
	other.open("about:blank")
	p.run(`document.querySelector("#banner-action").click()`)
	p.sees("kept")
}
