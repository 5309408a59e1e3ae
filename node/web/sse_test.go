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

	// All rooms are the same guest's, and no more than the connections that a browser has.
	p.run(`for (const name of ["a", "b", "c", "d"]) chat.join(name).on("error", ({ code }) => log.push(name + " " + code))`)
	p.until(`["a", "b", "c"].every((name) => chat.rooms.get(name).live)`)
	p.until(`log.includes("d unsupported")`)
	p.run(`await chat.rooms.get("a").send("in a")`)
	if again := js[string](p, `chat.user.id`); again != user {
		t.Errorf("the guest became %s, and was %s", again, user)
	}
	if left := js[string](p, `room.send("☃".repeat(2000)).catch(({ code }) => code)`); left != "too_large" {
		t.Errorf("a text over the limit is refused with %q", left)
	}
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
	if code := js[string](p, `room.signal("typing").then(() => "ok", ({ code }) => code)`); code != "unsupported" {
		t.Errorf("a signal over streams is answered with %q", code)
	}
	p.run(`await room.send("over streams")`)
	unblock()
	p.until(`room.live && room.signal("typing").then(() => (window.signalled = true), () => {}) && window.signalled`)
	p.run(`await room.send("over a WebSocket")`)
	p.until(`texts.length === 2`)
	wantTexts(t, js[[]string](p, `texts`), "over streams", "over a WebSocket")
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
