package web_test

import (
	"context"
	"fmt"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"parley/bus"
	"parley/bus/memory"
	"parley/node"
	"parley/node/nodetest"
)

// openPage opens the page at a room, under a name, after what a script made of an earlier visit.
func openPage(t *testing.T, base, room, name string, earlier ...string) *tab {
	t.Helper()
	p := openPageAnyhow(t, base, room, name, earlier...)
	p.until(`document.querySelector("#title")?.textContent === "#" + %s && !document.querySelector("#top").hidden`, room)
	return p
}

// openPageAnyhow does not wait for the room.
func openPageAnyhow(t *testing.T, base, room, name string, earlier ...string) *tab {
	t.Helper()
	p := newTab(t)
	p.open(base + "/style.css") // of the same origin, but without the page's own scripts
	p.run(`
		const kept = (name, value) => localStorage.setItem("parley-page:" + name, JSON.stringify(value));
		const prefix = "parley:" + location.host + ":out:design:";
		const out = (n, key, more) => sessionStorage.setItem(prefix + key, JSON.stringify({ n, key, text: key, at: Date.now(), ...more }));
		kept("name", %s);
	`+strings.Join(earlier, "\n"), name)
	p.open(base + "/?room=" + neturl.QueryEscape(room))
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

// say says something in a room as somebody.
func say(t *testing.T, b bus.Bus, room, who string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		tell(t, b, room, []line{{who: who, text: text}})
	}
}

func numbered(prefix string, from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(prefix, i))
	}
	return out
}

func TestTwoPagesTalkOverTwoNodes(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	ada, bo := openPage(t, c.Nodes[0].HTTP(""), "design", "Ada"), openPage(t, c.Nodes[1].HTTP(""), "design", "Bo")
	ada.say("hello, is anyone here?")
	bo.sees("hello, is anyone here?")
	bo.say("I am")
	ada.sees("I am")
	ada.until(`document.querySelectorAll("#member-list li").length === 2`)
	ada.until(`[...document.querySelectorAll(".head .name")].map((node) => node.textContent).join() === "Ada,Bo"`)

	bo.run(`document.querySelector("#text").focus()`)
	bo.write("so")
	ada.until(`document.querySelector("#typing").textContent === "Bo is typing…"`)
	bo.press(kb.Enter)
	ada.sees("so")
	ada.until(`document.querySelector("#typing").textContent === ""`)
}

func TestANodeIsKilled(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	g := newGate(t, c.Nodes[0])
	p := openPage(t, g.URL, "design", "Ada")
	say(t, c.Nodes[1].Bus, "design", "Bo", numbered("before ", 0, 5)...)
	p.sees("before 4")

	g.cut()
	c.Nodes[0].Kill()
	p.until(`!document.querySelector("#banner").hidden`)
	say(t, c.Nodes[1].Bus, "design", "Bo", numbered("meanwhile ", 0, 12)...)
	p.say("mine, while away")
	p.until(`document.querySelector(".message.pending .text").textContent === "mine, while away"`)
	g.to(c.Nodes[1])
	p.until(`document.querySelector("#banner-text").textContent.startsWith("Caught up, 12 messages missed")`)
	p.sees("mine, while away")
	wantTexts(t, p.texts(), append(append(numbered("before ", 0, 5), numbered("meanwhile ", 0, 12)...), "mine, while away")...)
	if unread := js[string](p, `document.querySelector("li.unread + li .text").textContent`); unread != "meanwhile 0" {
		t.Errorf("the divider is before %q", unread)
	}
}

func TestOfflineAndOnline(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	g := newGate(t, c.Nodes[0])
	p := openPage(t, g.URL, "design", "Ada")
	network := func(offline bool) {
		t.Helper()
		p.command(func(ctx context.Context) error {
			_, err := chromedp.Call(ctx, network.OverrideNetworkState, network.OverrideNetworkStateParams{Offline: offline})
			return err
		})
	}
	network(true)
	g.cut()
	p.until(`document.querySelector("#banner-text").textContent.startsWith("You are offline")`)
	p.say("from the tunnel")
	say(t, c.Nodes[0].Bus, "design", "Bo", "where are you?")
	g.to(c.Nodes[0])
	network(false) // which alone makes the page try again
	p.sees("from the tunnel")
	wantTexts(t, p.texts(), "where are you?", "from the tunnel")
}

func TestReloadWithAPendingMessage(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	g := newGate(t, c.Nodes[0])
	p := openPage(t, g.URL, "design", "Ada")
	p.say("kept")
	p.sees("kept")
	g.silence() // the node hears what comes now, the page no answer
	p.say("half said")
	p.say("not said")
	p.until(`document.querySelectorAll(".message.pending").length === 2`)
	g.cut()
	g.speak()
	g.to(c.Nodes[1])
	p.reload()
	p.sees("not said")
	wantTexts(t, p.texts(), "kept", "half said", "not said")
	p.until(`document.querySelectorAll(".message:not(.sent)").length === 0`)
}

func TestHistoryLoadsAndKeepsThePlace(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", numbered("message ", 0, 600)...)
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.sees("message 599")
	// Scroll up as a reader does, and note what each message's place does while others come and go around it.
	p.run(`
		const scroller = document.querySelector("#scroller");
		const frame = () => new Promise(requestAnimationFrame);
		const rows = () => [...document.querySelectorAll(".message")];
		window.seen = new Set();
		window.jumps = [];
		window.most = 0;
		window.arrived = () => document.querySelector("#top").textContent.startsWith("The beginning") && scroller.scrollTop === 0;
		window.climb = async (steps) => {
			for (; steps && !arrived(); steps--) {
				scroller.scrollTop -= 300;
				const middle = rows().find((row) => row.getBoundingClientRect().top > 300);
				const top = middle.getBoundingClientRect().top;
				const calm = document.querySelector("#banner").hidden;
				await frame();
				await frame();
				// What the banner moves is back by the next frame.
				if (middle.isConnected && calm && document.querySelector("#banner").hidden) jumps.push(Math.abs(middle.getBoundingClientRect().top - top));
				for (const row of rows()) seen.add(row.textContent.match(/message \d+/)[0]);
				most = Math.max(most, rows().length);
			}
		};
	`)
	for !js[bool](p, `climb(10).then(arrived)`) {
	}
	if seen := js[int](p, `seen.size`); seen != 600 {
		t.Errorf("%d of 600 messages were to be seen", seen)
	}
	if most := js[int](p, `most`); most > 250 {
		t.Errorf("%d messages were in the page at once", most)
	}
	if worst := js[float64](p, `Math.max(0, ...jumps)`); worst > 2 {
		t.Errorf("a message jumped by %v px while others were loaded", worst)
	}
	texts := p.texts()
	wantTexts(t, texts, numbered("message ", 0, len(texts))...)

	p.click("#jump")
	p.until(`document.querySelector("#jump").hidden`)
	texts = p.texts()
	wantTexts(t, texts, numbered("message ", 600-len(texts), 600)...)
}

func TestFollowsOnlyAtTheEnd(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", numbered("message ", 0, 60)...)
	p := openPage(t, n.HTTP(""), "design", "Ada")
	atEnd := `(({ scrollTop, scrollHeight, clientHeight }) => scrollHeight - clientHeight - scrollTop < 2)(document.querySelector("#scroller"))`
	p.sees("message 59")
	p.until(atEnd)
	say(t, n.Bus, "design", "Bo", "one more")
	p.sees("one more")
	p.until(atEnd)

	p.run(`document.querySelector("#scroller").scrollTop -= 400`)
	p.until(`!document.querySelector("#jump").hidden`)
	p.run(`window.place = document.querySelectorAll(".message")[50].getBoundingClientRect().top`)
	say(t, n.Bus, "design", "Bo", "new 1", "new 2", "new 3")
	p.until(`document.querySelector("#jump").textContent.startsWith("3 new messages")`)
	p.until(`document.title.startsWith("(3) #design")`)
	if moved := js[float64](p, `Math.abs(document.querySelectorAll(".message")[50].getBoundingClientRect().top - place)`); moved > 2 {
		t.Errorf("what was read moved by %v px", moved)
	}
	p.shot("new-messages")
	p.press(kb.Escape)
	p.until(atEnd)
	p.until(`document.title.startsWith("#design")`)
	if first := js[string](p, `document.querySelector("li.unread + li .text").textContent`); first != "new 1" {
		t.Errorf("the divider is before %q, want it to stay before %q", first, "new 1")
	}
}

func TestARoomIsFoundAsItWasLeft(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", numbered("message ", 0, 300)...)
	p := openPage(t, n.HTTP(""), "design", "Ada", `kept("rooms", ["design", "lobby"])`)
	p.sees("message 299")
	p.until(`document.querySelector("#banner").hidden`) // which moves what is below it
	p.write("half a thought")
	// Several pages are loaded, so the place is not at the top of them.
	p.until(`(() => {
		document.querySelector("#scroller").scrollTop = 0;
		return Number(document.querySelector(".message .text").textContent.match(/\d+/)[0]) <= 100;
	})()`)
	p.click("#jump")
	p.until(`document.querySelector("#jump").hidden`)
	p.run(`document.querySelector("#scroller").scrollTop -= 700`)
	p.until(`!document.querySelector("#jump").hidden`)
	first := `(() => {
		const row = [...document.querySelectorAll(".message")].find((row) => row.getBoundingClientRect().top > 60);
		return row.textContent + Math.round(row.getBoundingClientRect().top);
	})()`
	p.run(`window.place = ` + first)
	p.click(`a[data-room="lobby"]`)
	p.until(`document.querySelector("#title").textContent === "#lobby" && document.querySelector("#text").value === ""`)
	p.click(`a[data-room="design"]`)
	p.until(`document.querySelector("#text").value === "half a thought" && ` + first + ` === place`)
}

func TestUnreadOverRoomsAndReloads(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "old")
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.sees("old")
	p.run(`document.querySelector("#join-name").value = "lobby"; document.querySelector("#join button").click()`)
	p.until(`document.querySelector("#title").textContent === "#lobby" && location.search === "?room=lobby"`)
	p.until(`!document.querySelector("#top").hidden`)
	say(t, n.Bus, "design", "Bo", "new 1", "new 2")
	p.until(`document.querySelector("#room-list .badge")?.textContent === "2 unread"`)
	p.until(`document.title === "(2) #lobby · Parley"`)
	p.until(`localStorage.getItem("parley-page:read:design")`)
	p.reload()
	p.until(`document.title === "(2) #lobby · Parley"`)
	p.shot("unread-room")

	p.click(`a[data-room="design"]`)
	p.until(`document.querySelector("li.unread + li .text")?.textContent === "new 1"`)
	p.until(`document.title === "#design · Parley"`)
	say(t, n.Bus, "design", "Bo", "new 3")
	p.sees("new 3")
	if first := js[string](p, `document.querySelector("li.unread + li .text").textContent`); first != "new 1" {
		t.Errorf("the divider is before %q, want it to stay before %q", first, "new 1")
	}
	p.shot("unread")
	p.run(`history.back()`)
	p.until(`document.querySelector("#title").textContent === "#lobby"`)
	p.press(kb.ArrowDown, chromedp.ModifierAlt)
	p.until(`document.querySelector("#title").textContent === "#design" && !document.querySelector("li.unread")`)
	p.run(`document.querySelector('[aria-label="Leave lobby"]').click()`)
	p.until(`document.querySelectorAll("#room-list li").length === 1`)
}

// After a gap the order starts anew: what is said then has not been read, whatever its id.
func TestWhatFollowsAGapIsUnread(t *testing.T) {
	t.Parallel()
	said := func(room, id, text string) string {
		return fmt.Sprintf(`{"op":"message","room":%q,"id":%q,"from":{"id":"bo","name":"Bo"},"text":%q,"at":1}`, room, id, text)
	}
	f := newFake(t, func(r request, _ int) []string {
		if r.Op != "join" || r.Room != "lobby" {
			return nil
		}
		return []string{
			`{"op":"ok","req":%REQ%,"room":"lobby","last":"5-0","members":[],"count":0}`, `{"op":"live","room":"lobby"}`,
			`{"op":"gap","room":"design","after":"5-0","last":"2-0"}`, said("design", "3-0", "anew"), said("design", "6-0", "and more"),
			said("lobby", "6-0", "that is all"),
		}
	})
	p := openPage(t, f.URL, "design", "Ada")
	p.until(`!document.querySelector("#top").hidden`)
	p.run(`document.querySelector("#join-name").value = "lobby"; document.querySelector("#join button").click()`)
	p.sees("that is all")
	if unread := js[string](p, `document.querySelector("#room-list .badge")?.textContent`); unread != "2 unread" {
		t.Errorf("of two messages, %q", unread)
	}
}

func TestKeyboard(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.until(`document.activeElement.id === "text"`)
	p.write("first line")
	p.press(kb.Enter, chromedp.ModifierShift)
	p.write("second line")
	p.press(kb.Enter)
	p.sees("first line\nsecond line")
	p.until(`document.activeElement.id === "text" && document.querySelector("#text").value === ""`)

	p.write("にほんご")
	for _, how := range []string{`{ isComposing: true }`, `{ keyCode: 229 }`} {
		p.run(`document.querySelector("#text").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, ...` + how + ` }))`)
	}
	if text := js[string](p, `document.querySelector("#text").value`); text != "にほんご" {
		t.Errorf("an input method's Enter left %q in the field", text)
	}
	p.press(kb.Enter)
	p.sees("にほんご")
	p.run(`document.querySelector("#scroller").focus()`)
	p.press("x") // whoever types means the message
	p.until(`document.querySelector("#text").value === "x"`)
	p.press(kb.Enter)
	p.press(kb.Enter) // there is nothing to send
	p.sees("x")
	wantTexts(t, p.texts(), "first line\nsecond line", "にほんご", "x")
}

func TestOnlyNewMessagesAreAnnounced(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "old")
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.sees("old")
	p.run(`
		window.announced = [];
		new MutationObserver((changes) => {
			for (const { addedNodes } of changes) for (const node of addedNodes) announced.push(node.textContent);
		}).observe(document.querySelector("#announcer"), { childList: true });
	`)
	p.say("mine")
	say(t, n.Bus, "design", "Bo", "new")
	p.until(`announced.join() === "Bo: new"`)
	say(t, n.Bus, "design", "Bo", numbered("many ", 0, 40)...)
	p.until(`announced.some((line) => line === "40 new messages")`)
}

func TestNamesAndMembers(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "")
	p.until(`/^Guest \S{4}$/.test(document.querySelector("#me .name").textContent)`)
	members := `[...document.querySelectorAll("#member-list .name")].map((node) => node.textContent).join()`
	bo := nodetest.Dial(t, n.URL("/"))
	for _, peer := range []*nodetest.Peer{bo, nodetest.Dial(t, n.URL("/"))} { // one person, twice
		peer.Say(`{"op":"hello","name":"Bo","session":%s}`, nodetest.Quote(bo.Welcome.Session))
		peer.Until("welcome")
		peer.Join("design")
	}
	p.until(members + `.endsWith(",Bo") && document.querySelectorAll("#member-list li").length === 2`)
	p.until(`[...document.querySelectorAll(".presence")].map((node) => node.textContent).join() === "Bo joined"`)

	p.click("#me")
	p.until(`document.querySelector("#name-dialog").open`)
	p.shot("name")
	p.write(strings.Repeat("é", 33))
	p.press(kb.Enter)
	p.until(`document.querySelector("#name-problem").textContent === "That name is too long"`)
	p.run(`document.querySelector("#name").select()`)
	p.write("Ada")
	p.press(kb.Enter)
	p.until(members + ` === "Ada,Bo"`)
	p.until(`document.querySelector("#me .name").textContent === "Ada"`)
	p.say("it is me")
	p.until(`document.querySelector(".head .name").textContent === "Ada"`)
}

func TestTypingExpires(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newTab(t)
	p.onEachPage(`const timeout = setTimeout; setTimeout = (f, ms, ...args) => timeout(f, ms / 20, ...args);`)
	p.open(n.HTTP("/?room=design"))
	bo := enter(t, n, "design", "Bo")[0]
	p.until(`document.querySelectorAll("#member-list li").length === 2`)
	bo.Say(`{"op":"signal","room":"design","kind":"typing"}`)
	p.until(`document.querySelector("#typing").textContent === "Bo is typing…"`)
	p.until(`document.querySelector("#typing").textContent === ""`)
}

func TestJoinsAndLeavesShareALine(t *testing.T) {
	t.Parallel()
	n := nodetest.StartOn(t, 1, memory.New(bus.Retention{}).Open, quick).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	lines := `[...document.querySelectorAll(".presence:not([hidden])")].map((node) => node.textContent).join("; ")`
	peers := enter(t, n, "design", "Bo", "Cy")
	p.until(lines + ` === "Bo and Cy joined"`)
	say(t, n.Bus, "design", "Dee", "hi")
	peers = append(peers, enter(t, n, "design", numbered("guest ", 0, 60)...)...)
	p.until(lines + ` === "Bo and Cy joined; 60 people joined"`)
	peers[0].Cut()
	peers[5].Cut()
	p.until(lines + ` === "Bo and Cy joined; 59 people joined · 1 person left"`)
	p.shot("presence")
}

func TestAFailedMessageCanBeTriedAgainOrDeleted(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada", `
		out(1, "old", { state: "unconfirmed", tried: Date.now() - 11 * 60000 });
		out(2, "another's", { state: "pending", user: "somebody" });
		out(3, "fresh", { state: "pending" });
	`)
	p.sees("fresh")
	state := func(text string) string {
		return js[string](p, `[...document.querySelectorAll(".message")].find((row) => row.querySelector(".text").textContent === %s).className`, text)
	}
	if got := state("old"); !strings.Contains(got, "unconfirmed") {
		t.Errorf("what is too old to repeat is shown as %q", got)
	}
	if got := state("another's"); !strings.Contains(got, "failed") {
		t.Errorf("what another user wrote is shown as %q", got)
	}
	p.run(`document.querySelectorAll(".failed .state button")[1].click()`)
	p.run(`document.querySelectorAll(".unconfirmed .state button")[0].click()`)
	p.sees("old")
	wantTexts(t, p.texts(), "fresh", "old")
}

// What has come back from the room, and is not acknowledged yet, is there once.
func TestAMessageWithoutItsAcknowledgementIsShownOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op != "send" {
			return nil
		}
		unavailable := `{"op":"error","req":%REQ%,"code":"unavailable","message":"no replica has it","retry_after":20}`
		if nth > 0 {
			return []string{unavailable}
		}
		return []string{fmt.Sprintf(`{"op":"message","room":"design","id":"6-0","from":{"id":"guest-1"},"text":"hi","key":%q,"at":1}`, r.Key), unavailable}
	})
	p := openPage(t, f.URL, "design", "")
	p.say("hi")
	p.sees("hi")
	for f.count("send") < 3 {
		time.Sleep(time.Millisecond)
	}
	wantTexts(t, p.texts(), "hi")
}

func TestTextOverTheLimitStaysInTheField(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.write(strings.Repeat("é", 2050))
	p.until(`document.querySelector("#composer-note").textContent === "Too long by 4 bytes" && document.querySelector("#send").disabled`)
	p.press(kb.Enter)
	p.press(kb.Backspace)
	p.press(kb.Backspace)
	p.press(kb.Enter)
	p.until(`document.querySelectorAll(".message.sent").length === 1`)
	p.until(`document.querySelector(".text.folded")`)
	p.run(`document.querySelector(".folded + button").click()`)
	p.until(`!document.querySelector(".text.folded")`)
}

func TestEmojiPicker(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.click("#show-emoji")
	p.until(`document.querySelector("#emoji").matches(":popover-open")`)
	p.shot("emoji")
	p.click(`#emoji [aria-label="rocket"]`)
	p.press(kb.Enter)
	p.sees("🚀")
	p.until(`document.querySelector(".text.jumbo")`)
}

func TestDrawersOnANarrowScreen(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.size(390, 800)
	p.click("#show-members")
	p.until(`document.querySelector("#show-members").ariaExpanded === "true" && document.querySelector("#main").inert`)
	p.press(kb.Escape)
	p.until(`document.activeElement.id === "show-members" && !document.querySelector("#main").inert`)
	p.click("#show-rooms")
	p.until(`document.activeElement.dataset.room === "design"`)
	p.until(`document.elementFromPoint(380, 400).id === "scrim"`)
	p.run(`document.elementFromPoint(380, 400).click()`)
	p.until(`document.body.dataset.drawer === undefined`)
	if size := js[string](p, `getComputedStyle(document.querySelector("#text")).fontSize`); size != "16px" {
		t.Errorf("the field's text is %s: phones zoom into less than 16px", size)
	}
}

func TestAHiddenPageHasNotBeenRead(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	hide := func(hidden bool) {
		t.Helper()
		p.run(`Object.defineProperty(document, "hidden", { value: %s, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`, hidden)
	}
	say(t, n.Bus, "design", "Bo", "seen")
	p.sees("seen")
	hide(true)
	say(t, n.Bus, "design", "Bo", "not seen")
	p.until(`document.title.startsWith("(1) ")`)
	hide(false)
	p.until(`document.title.startsWith("#design")`)
	p.until(`document.querySelector("li.unread + li .text").textContent === "not seen"`)
}

// Whoever reads far back keeps what they read, however much comes meanwhile, and the page does not keep all of that.
func TestReadingWhileThousandsArrive(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", numbered("old ", 0, 60)...)
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.sees("old 59")
	p.run(`document.querySelector("#scroller").scrollTop -= 500`)
	p.until(`!document.querySelector("#jump").hidden`)
	p.run(`window.row = document.querySelectorAll(".message")[45]; window.place = row.getBoundingClientRect().top`)
	flood(n.Bus, "design", 3200, 10_000)
	p.until(`document.querySelector("#jump").textContent.startsWith("3,200 new messages")`)
	if moved := js[float64](p, `row.isConnected ? Math.abs(row.getBoundingClientRect().top - place) : Infinity`); moved > 2 {
		t.Errorf("what was read moved by %v px", moved)
	}
	p.click("#jump")
	p.sees("flood 3199")
	p.until(`document.title.startsWith("#design")`)
	say(t, n.Bus, "design", "Bo", "and on")
	p.sees("and on")
	texts := p.texts()
	wantTexts(t, texts, append(numbered("flood ", 3201-len(texts), 3200), "and on")...)
	if len(texts) > 120 {
		t.Errorf("%d messages are loaded: all that came was kept", len(texts))
	}
}

func TestTellsWhyItCannotGoOn(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		switch {
		case r.Op == "join" && r.Room == "secret":
			return []string{`{"op":"error","req":%REQ%,"code":"forbidden","message":"this room is not for you"}`}
		case r.Op == "send":
			return []string{`{"op":"bye","code":4403,"reason":"banned for shouting"}`, "close 4403 banned for shouting"}
		}
		return nil
	})
	p := openPage(t, f.URL, "secret", "Ada")
	p.until(`document.querySelector("#top.error").textContent === "This room can't be joined: this room is not for you"`)
	p.open(f.URL + "/?room=design")
	p.until(`document.querySelector("#top").textContent.startsWith("Nothing was said")`)
	p.say("HELLO")
	p.until(`document.querySelector("#banner-text").textContent === "The connection was closed: banned for shouting."`)
	p.until(`document.querySelector("#banner-action").textContent === "Connect again"`)
}

func TestIsThereBeforeItsConnection(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string { return []string{} }) // not a word
	p := newTab(t)
	p.open(f.URL + "/?room=design")
	p.until(`document.querySelector("#title").textContent === "#design"`)
	p.say("when you are ready")
	p.until(`document.querySelector(".message.pending .text").textContent === "when you are ready"`)
	if painted := js[float64](p, `performance.getEntriesByName("first-contentful-paint")[0].startTime`); painted > 5000 {
		t.Errorf("it was first painted after %v ms", painted)
	}
	p.until(`document.querySelector("#banner-text").textContent === "Connecting…"`)
}

// quick makes a leave of every drop.
func quick(cfg *node.Config) { cfg.Grace = time.Millisecond }

// At the very top there is nothing to scroll: what is older comes all the same, as often as the reader goes there.
func TestScrollingBackDoesNotStickAtTheTop(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", numbered("message ", 0, 400)...)
	g := newGate(t, n)
	g.slow(150 * time.Millisecond)
	p := openPage(t, g.URL, "design", "Ada")
	p.sees("message 399")
	p.run(`document.querySelector("#scroller").focus()`)
	for first := 400; first > 0; {
		p.press(kb.Home)
		p.until(`document.querySelector("#scroller").scrollTop === 0 || document.querySelector(".message .text").textContent !== "message " + %s`, first)
		p.until(`(() => {
			const at = Number(document.querySelector(".message .text").textContent.match(/\d+/)[0]);
			return at < %s && (window.at = at, true);
		})()`, first)
		first = js[int](p, `at`)
	}
	p.until(`document.querySelector("#top").textContent === "The beginning of #design"`)
}

func TestAWholeRoomIsNotLoading(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "all there is")
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.sees("all there is")
	p.until(`document.querySelector("#top").textContent === "The beginning of #design"`)
}

func TestALongRoomNameHidesNoBadgeAndNoCross(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "lobby", "Bo", "news")
	p := openPage(t, n.HTTP(""), "design", "Ada", `kept("rooms", ["lobby", "design", "W".repeat(128)]); kept("read:lobby", "0-1")`)
	p.until(`document.querySelector(".badge")`)
	p.shot("long-room-name")
	for _, selector := range []string{".badge", ".leave", "#room-list li:nth-child(3) .leave"} {
		if right := js[float64](p, `document.querySelector(%s).getBoundingClientRect().right - document.querySelector("#room-list").getBoundingClientRect().right`, selector); right > 0 {
			t.Errorf("%s is %v px out of the list", selector, right)
		}
	}
}

func TestARoomThatTheAddressCannotNameIsSaid(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPageAnyhow(t, n.HTTP(""), strings.Repeat("x", 129), "Ada")
	p.until(`document.querySelector("#banner-text").textContent.includes("names a room that can't be opened. That name is too long")`)
	p.until(`document.querySelector("#title").textContent === "#lobby" && location.search === "?room=lobby"`)
}

func TestGoingBackDoesNotJoinARoomThatWasLeft(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada", `kept("rooms", ["lobby", "design"])`)
	p.click(`a[data-room="lobby"]`)
	p.until(`document.querySelector("#title").textContent === "#lobby"`)
	p.run(`document.querySelector('[aria-label="Leave design"]').click()`)
	p.until(`document.querySelectorAll("#room-list li").length === 1`)
	p.run(`const back = new Promise((done) => addEventListener("popstate", done)); history.back(); await back`)
	p.until(`location.search === "?room=lobby"`)
	if rooms := js[string](p, `[...document.querySelectorAll("#room-list a")].map((a) => a.dataset.room).join()`); rooms != "lobby" {
		t.Errorf("after going back one is in %s", rooms)
	}
}

func TestTheCurrentOfManyRoomsIsInView(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "room 49", "Ada", `kept("rooms", Array.from({ length: 50 }, (_, i) => "room " + i))`)
	inView := `(({ top, bottom }, list) => top >= list.top - 1 && bottom <= list.bottom + 1)(
		document.querySelector("[aria-current]").getBoundingClientRect(), document.querySelector("#room-list").getBoundingClientRect())`
	p.until(inView)
	p.shot("many-rooms")
	p.press(kb.ArrowDown, chromedp.ModifierAlt)
	p.until(`document.querySelector("[aria-current]").dataset.room === "room 0"`)
	p.until(inView)
}
