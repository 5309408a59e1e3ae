package web_test

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"parley/bus"
	"parley/bus/memory"
	"parley/node/nodetest"
	"parley/node/wire"
)

var long = flag.Int("long", 1500, "messages of the room that is scrolled through")

// A long room is searched from end to end and scrolled through: what is in the page stays little.
func TestALongRoomFitsInABoundedPage(t *testing.T) {
	t.Parallel()
	n := nodetest.StartOn(t, 1, memory.New(bus.Retention{Size: 15_000}).Open).Nodes[0]
	var settled sync.WaitGroup
	for i := range *long {
		said := wire.Said{Room: "design", From: person(fmt.Sprint("Bot ", i/3%7)), Text: fmt.Sprintf("message %d: **bold**, `code` and https://example.org/%d", i, i), At: 1763812800000 + int64(i)*20_000}
		settled.Add(1)
		n.Bus.Publish("design", bus.Draft{Body: said.Body()}, func(bus.ID, error) { settled.Done() })
	}
	settled.Wait()
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.until(`document.querySelectorAll(".message").length >= 50`)
	p.run(`
		window.most = window.drawn = 0; // elements in the page, rows that were drawn at once
		new MutationObserver((changes) => {
			most = Math.max(most, document.querySelectorAll("*").length);
			drawn = Math.max(drawn, changes.flatMap(({ addedNodes }) => [...addedNodes]).filter((node) => node.matches?.("#timeline > li")).length);
		}).observe(document.body, { childList: true, subtree: true });
	`)
	searching := p.tasks(func() {
		p.click("#show-find")
		p.write("message 0:")
		p.press(kb.Enter)
		p.until(`document.querySelector("#timeline").textContent.includes("message 0:") ||
			document.querySelector("#find-status").textContent.includes("as far back as this page goes")`)
	})
	scrolling := p.tasks(func() {
		p.run(`
			const frame = () => new Promise(requestAnimationFrame);
			const scroller = document.querySelector("#scroller");
			scroller.scrollTop = 0;
			for (let i = 0; i < 60; i++) {
				scroller.scrollTop += 1000;
				await frame();
			}
			for (let i = 0; i < 20; i++) {
				scroller.scrollTop = 0; // as by the bar
				await frame();
			}
		`)
	})
	p.click("#jump")
	p.until(`document.querySelector("#timeline").textContent.includes("message " + %s + ":")`, *long-1)
	t.Logf("at most %d elements; %d B of heap; the longest tasks: searching %v, scrolling %v",
		js[int](p, `most`), js[int](p, `performance.memory.usedJSHeapSize`), searching[:5], scrolling[:5])
	// 50 ms on a machine that does nothing else: what shares caches with others takes longer.
	if searching[0] > 100*time.Millisecond || scrolling[0] > 100*time.Millisecond {
		t.Error("a task takes too long")
	}
	if drawn := js[int](p, `drawn`); drawn > 80 || drawn < 20 { // with the days between them
		t.Errorf("%d rows were drawn at once", drawn)
	}
	const bound = 3000 // for 160 messages and what is around them
	if most := js[int](p, `most`); most > bound || most < 500 {
		t.Errorf("%d elements were in the page at once, of at most %d", most, bound)
	}
}

// What the page remembers of a room is bounded too, whether its reader follows or reads back.
func TestWhatThePageRemembersOfARoomIsBounded(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newTab(t)
	p.open(n.HTTP("/style.css")) // of the same origin, but without the page's own scripts
	p.run(`
		const { Conversation } = await import("/app/conversation.js");
		const message = (n) => ({ id: n + "-0", from: { id: "bo", name: "Bo" }, text: "message " + n, live: true });
		const on = {};
		const room = { name: "design", outgoing: [], members: new Map(), live: false, chat: { user: { id: "ada" } } };
		room.on = (type, listener) => (on[type] = listener);
		room.history = async (before, limit) => {
			const end = parseInt(before);
			return { messages: Array.from({ length: limit }, (_, i) => message(end - limit + i)), more: true };
		};
		const conversation = new Conversation(room);
		on.live();
		window.items = [];
		let n = 1_000_000;
		const come = (count) => {
			for (let i = 0; i < count; i++) on.message(message(n++));
			items.push(conversation.items.length);
		};
		come(5000);
		conversation.reading = true;
		come(5000);
		await conversation.search("is not there", { signal: new AbortController().signal });
		items.push(conversation.items.length);
	`)
	items := js[[]int](p, `items`)
	for i, most := range []int{3050, 3050, 10_000} {
		if items[i] > most || items[i] < most-100 {
			t.Errorf("the page remembers %d messages, of at most %d", items, []int{3050, 3050, 10_000})
			break
		}
	}
}
