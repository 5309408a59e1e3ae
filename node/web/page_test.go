package web_test

import (
	"testing"

	"parley/node/nodetest"
)

// openPage opens the page at a room, under a name.
func openPage(t *testing.T, n *nodetest.Node, room, name string) *tab {
	t.Helper()
	p := newTab(t)
	p.open(n.HTTP("/style.css")) // a place to set the name from, as an earlier visit did
	p.run(`localStorage.setItem("parley-page:name", JSON.stringify(%s))`, name)
	p.open(n.HTTP("/?room=" + room))
	p.until(`document.querySelector("#title").textContent === "#" + %s && !document.querySelector("#top").hidden`, room)
	return p
}

// sees waits for a message with that text, sent for certain.
func (p *tab) sees(text string) {
	p.t.Helper()
	p.until(`[...document.querySelectorAll(".message.sent .text")].some((node) => node.textContent === %s)`, text)
}

// texts are those of all messages on the page, in order.
func (p *tab) texts() []string {
	p.t.Helper()
	return js[[]string](p, `[...document.querySelectorAll(".message .text")].map((node) => node.textContent)`)
}

func TestTwoPagesTalkOverTwoNodes(t *testing.T) {
	c := nodetest.Start(t, 2)
	ada, bo := openPage(t, c.Nodes[0], "design", "Ada"), openPage(t, c.Nodes[1], "design", "Bo")
	ada.say("hello, is anyone here?")
	bo.sees("hello, is anyone here?")
	bo.say("I am")
	ada.sees("I am")
	ada.until(`document.querySelectorAll("#member-list li").length === 2`)
	ada.until(`[...document.querySelectorAll(".message .name")].map((node) => node.textContent).join() === "Ada,Bo"`)
}
