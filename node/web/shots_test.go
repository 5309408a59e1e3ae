package web_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"parley/bus"
	"parley/bus/memory"
	"parley/node/nodetest"
	"parley/node/wire"
)

// A line is something that was said some time ago.
type line struct {
	ago  time.Duration
	who  string
	text string
	id   string // of who; made up if empty
}

var talk = []line{
	{ago: 26 * time.Hour, who: "Mira Okafor", text: "The load test ran all night: two nodes, 2,000 clients, one node killed every ten minutes."},
	{ago: 26*time.Hour - time.Minute, who: "Mira Okafor", text: "0 acknowledged messages missing, 0 doubled, 0 out of order 🎉"},
	{ago: 25 * time.Hour, who: "Jonas", text: "👏👏"},
	{ago: 24 * time.Hour, who: "Priya", text: "Then we can announce it. Who writes the note?"},
	{ago: 52 * time.Minute, who: "Jonas", text: "I started one: https://example.org/drafts/parley-1.0 (comments welcome)"},
	{ago: 51 * time.Minute, who: "Jonas", text: "The quick start is three lines now:\n```\nconst chat = new WebSocket(\"ws://localhost:8765\")\nchat.onmessage = e => console.log(e.data)\nchat.onopen = () => chat.send(\"hello\")\n```"},
	{ago: 44 * time.Minute, who: "Priya", text: "That's short enough to type from memory. I'd add `?room=` and `?name=` right below."},
	{ago: 38 * time.Minute, who: "شيرين", text: "هل يعمل النص من اليمين إلى اليسار أيضًا؟"},
	{ago: 37 * time.Minute, who: "Priya", text: "It does 🙂"},
	{ago: 20 * time.Minute, who: "Mira Okafor", text: "One question from support: what happens to a message that is written on a train, in a tunnel?"},
	{ago: 19 * time.Minute, who: "Priya", text: "It waits in the page, also over a reload, and is repeated with the same key until the room has it. Nobody sees it twice."},
	{ago: 18 * time.Minute, who: "Mira Okafor", text: "Perfect, that is what I told them."},
}

// tell puts lines into a room's log, as if they had been said when they say.
func tell(t *testing.T, b bus.Bus, room string, lines []line) {
	t.Helper()
	for _, l := range lines {
		said := wire.Said{Room: room, From: wire.Member{ID: cmp.Or(l.id, person(l.who).ID), Name: l.who}, Text: l.text, At: time.Now().Add(-l.ago).UnixMilli()}
		settled := make(chan error, 1)
		b.Publish(room, bus.Draft{Body: said.Body()}, func(_ bus.ID, err error) { settled <- err })
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
	}
}

func person(name string) wire.Member {
	return wire.Member{ID: fmt.Sprintf("guest-%x", name), Name: name}
}

// enter makes people members of a room.
func enter(t *testing.T, n *nodetest.Node, room string, names ...string) []*nodetest.Peer {
	t.Helper()
	var peers []*nodetest.Peer
	for _, name := range names {
		p := nodetest.Dial(t, n.URL("/"))
		p.Say(`{"op":"hello","name":%s}`, nodetest.Quote(name))
		p.Want("welcome")
		p.Join(room)
		peers = append(peers, p)
	}
	return peers
}

// TestLooks writes the screenshots, and checks that each state can be reached.
func TestLooks(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	n := c.Nodes[0]
	peers := enter(t, n, "design", "Mira Okafor", "Jonas", "شيرين", "Tomás", "Priya")
	said := slices.Clone(talk)
	for i := range said { // by those who are there
		for j, name := range []string{"Mira Okafor", "Jonas", "شيرين", "Tomás", "Priya"} {
			if said[i].who == name {
				said[i].id = peers[j].Welcome.User.ID
			}
		}
	}
	tell(t, n.Bus, "design", said)
	tell(t, n.Bus, "lobby", said[:3])

	p := openPage(t, n.HTTP(""), "design", "Ada", `
		kept("rooms", ["lobby", "design", "on-call", "Café ☕"]);
		kept("read:lobby", "0-1");
	`)
	p.size(1280, 800)
	p.sees("Perfect, that is what I told them.")
	peers[1].Say(`{"op":"signal","room":"design","kind":"typing"}`)
	p.until(`document.querySelector("#typing").textContent.includes("typing")`)
	p.say("Shall we ship it today? 🚀")
	p.sees("Shall we ship it today? 🚀")
	p.shot("light")
	p.media("prefers-color-scheme", "dark")
	p.shot("dark")
	p.size(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(1.5))
	p.shot("phone-dark")
	p.media("prefers-color-scheme", "light")
	p.shot("phone")
	p.click("#show-rooms")
	p.until(`document.body.dataset.drawer === "rooms"`)
	p.until(`document.querySelector("#rooms").getAnimations().every((a) => a.playState === "finished")`)
	p.shot("phone-rooms")
}

// TestLooksInTrouble is the same for what one hopes not to see.
func TestLooksInTrouble(t *testing.T) {
	t.Parallel()
	c := nodetest.StartOn(t, 2, memory.New(bus.Retention{Size: 20}).Open)
	n := c.Nodes[0]
	g := newGate(t, n)
	tell(t, n.Bus, "design", talk)

	p := openPage(t, g.URL, "design", "Ada", `
		out(1, "Is this thing on?", { state: "unconfirmed", tried: 1 });
		out(2, "I quit! (not really)", { state: "failed", error: { code: "forbidden", message: "you are muted here until 17:00" } });
	`)
	p.until(`document.querySelectorAll(".message.unconfirmed, .message.failed").length === 2`)
	p.until(`document.querySelector(".unconfirmed .state button")`)
	g.cut()
	p.until(`!document.querySelector("#banner").hidden && document.querySelector("#banner-countdown").textContent`)
	p.say("Hello from the tunnel")
	p.until(`document.querySelector(".message.pending")`)
	p.until(`document.querySelector(".message.pending .state").getAnimations().every((a) => a.playState === "finished")`)
	p.shot("reconnecting")
	for i := range 30 {
		tell(t, n.Bus, "design", []line{{ago: time.Second, who: "Jonas", text: fmt.Sprintf("news %d", i)}})
	}
	g.to(c.Nodes[1]) // which has none of it in memory
	// It may be back by itself by now.
	p.run(`if (document.querySelector("#banner").className === "bad") document.querySelector("#banner-action").click()`)
	p.until(`document.querySelector("#banner").className === "gap"`)
	p.until(`document.querySelector("li.gap")`)
	p.run(`document.querySelector("li.gap").scrollIntoView({ block: "center" })`)
	p.until(`!document.querySelector("#jump").hidden`)
	p.shot("gap")
}
