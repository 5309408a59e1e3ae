package web_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"parley/bus"
	"parley/node/nodetest"
	"parley/node/wire"
)

// fits fails the test if anything makes the page wider than its window, or covers what is needed to go on.
func (p *tab) fits() {
	p.t.Helper()
	wide := js[[]string](p, `[...document.querySelectorAll("body, #rooms, #main, #scroller, #members, #dock, .message, .presence, #title, .text, pre")]
		.filter((node) => node.clientWidth && node.scrollWidth > node.clientWidth + 1)
		.filter((node) => node.matches(".text") || getComputedStyle(node).overflowX !== "hidden")
		.map((node) => node.id + " " + node.className + " " + node.textContent.slice(0, 80))`)
	for _, node := range wide {
		p.t.Errorf("wider than it may be: %s", node)
	}
	if outside := js[bool](p, `document.scrollingElement.scrollWidth > innerWidth || document.scrollingElement.scrollHeight > innerHeight`); outside {
		p.t.Error("the page is larger than its window")
	}
	p.until(`((node) => {
		const { x, y, width, height } = node.getBoundingClientRect();
		return document.elementFromPoint(x + width / 2, y + height / 2) === node;
	})(document.querySelector("#text"))`)
}

func TestMarkupAndHostileLinksDoNothing(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	harmless := []string{
		`<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>`,
		`<a href="javascript:window.pwned=1">click</a>`,
		`javascript:window.pwned=1`,
		`data:text/html,<script>window.pwned=1</script>`,
		`vbscript:x file:///etc/passwd ftp://example.org/`,
		`https://example.org@evil.example/`,
		`https://user:secret@evil.example/`,
		`https://`,
		`http://[::1`,
	}
	linked := map[string]string{ // text → where it leads
		`see https://example.org/a_(b).`:                      "https://example.org/a_(b)",
		`(https://example.org/x), and`:                        "https://example.org/x",
		`https://example.org/"onmouseover="window.pwned=1`:    "https://example.org/",
		`https://example.org/<b>`:                             "https://example.org/",
		"https://example.org/\u202egpj.exe":                   "https://example.org/",
		"https://exam\u200bple.org/":                          "https://exam/",
		`HTTPS://EXAMPLE.ORG`:                                 "https://example.org/",
		`mailto:ada@example.org?subject=hi`:                   "mailto:ada@example.org?subject=hi",
		"https://example.org/" + strings.Repeat("a", 2000):    "https://example.org/" + strings.Repeat("a", 2000),
		"`https://in.code/` and https://example.org/not-code": "https://example.org/not-code",
	}
	say(t, n.Bus, "design", "Mallory", harmless...)
	for text := range linked {
		say(t, n.Bus, "design", "Mallory", text)
	}
	say(t, n.Bus, "design", "Mallory", "last")
	p.sees("last")
	if made := js[int](p, `document.querySelectorAll(".text :not(a, code, pre, strong, em, ul, li, blockquote, span)").length`); made != 0 {
		t.Errorf("%d elements came out of messages", made)
	}
	got := js[map[string]string](p, `Object.fromEntries([...document.querySelectorAll(".text:has(a)")]
		.map((node) => [node.textContent, [...node.querySelectorAll("a")].map((a) => a.href).join()]))`)
	for text, want := range linked {
		if shown := strings.ReplaceAll(text, "`", ""); got[shown] != want {
			t.Errorf("%q leads to %q, want %q", shown, got[shown], want)
		}
	}
	if len(got) != len(linked) {
		t.Errorf("%d messages have links, want %d: %q", len(got), len(linked), got)
	}
	if bad := js[int](p, `[...document.querySelectorAll(".text a")].filter((a) =>
		a.rel !== "noopener noreferrer nofollow" || a.target !== "_blank" || a.getAttributeNames().length !== 3).length`); bad != 0 {
		t.Errorf("%d links are not as they should be", bad)
	}
	if js[bool](p, `"pwned" in window`) {
		t.Error("a message ran")
	}
	p.fits()
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	names := []string{
		"<b>Mallory</b><script>window.pwned=1</script>",
		"\u202eadA\u202d",
		strings.Repeat("\u200b", 21),
		strings.Repeat("\u3164", 20),
		strings.Repeat("W", 64),
		strings.Repeat("﷽", 21),
		"Z" + strings.Repeat("\u0336\u0353\u0489", 9) + "algo",
		"👩‍👩‍👧‍👦👩‍👩‍👧‍👦",
		" \u00a0 ",
		"مالوري",
	}
	p := openPage(t, n.HTTP(""), "design", "Ada")
	for _, peer := range enter(t, n, "design", names...) {
		peer.SendText("design", "I am who I say")
		peer.Say(`{"op":"signal","room":"design","kind":"typing"}`)
	}
	p.until(`document.querySelectorAll("#member-list li").length === 11 && document.querySelectorAll(".message").length === 10`)
	for _, selector := range []string{".head .name", "#member-list .name"} {
		shown := js[[]string](p, `[...document.querySelectorAll(%s)].map((node) => node.textContent + "|" + node.offsetWidth)`, selector)
		for _, name := range shown {
			if text, width, _ := strings.Cut(name, "|"); text == "" || len(width) < 2 {
				t.Errorf("%s: the name %q is %s px wide", selector, text, width)
			}
		}
	}
	if guests := js[int](p, `[...document.querySelectorAll(".head .name")].filter((node) => /^Guest \S{4}$/.test(node.textContent)).length`); guests != 3 {
		t.Errorf("%d of 3 invisible names are shown as guests", guests)
	}
	p.fits()
	p.shot("hostile-names")
	p.size(390, 800)
	p.fits()
	p.until(`!("pwned" in window)`)
}

func TestHostileText(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	texts := []string{
		strings.Repeat("W", 4096),
		strings.Repeat("https://example.org/aaaaaaaaaaaa", 120),
		strings.Repeat("\n", 4000) + "bottom",
		strings.Repeat("\u200b", 1300),
		"\u202eright to left over all" + strings.Repeat("\u202e\u2067", 200),
		"مرحبا " + strings.Repeat("شكرا", 400),
		strings.Repeat("Z\u0336\u0353\u0489\u033f\u035c", 400),
		strings.Repeat("👩‍👩‍👧‍👦", 160),
		"```\n" + strings.Repeat("code", 1000) + "\n```",
		strings.Repeat("`", 4096),
		"\u0000\u0001\u0007\ufeff\ufffd bell",
		"\u2028\u2029",
	}
	say(t, n.Bus, "design", "Mallory", texts...)
	said := wire.Said{Room: "design", From: person("Mallory"), Data: []byte(`{"only":"data","deep":[[[[["<b>"]]]]]}`)}
	n.Bus.Publish("design", bus.Draft{Body: said.Body()}, func(bus.ID, error) {})
	p.say("I am still here")
	p.sees("I am still here")
	for _, width := range []int64{1100, 390} {
		p.size(width, 700)
		p.fits()
		if tall := js[float64](p, `Math.max(...[...document.querySelectorAll(".message")].map((node) => node.offsetHeight))`); tall > 1500 {
			t.Errorf("at %d px a message is %v px tall", width, tall)
		}
	}
	// What is said beside right-to-left text stays where it is.
	if dir := js[string](p, `getComputedStyle([...document.querySelectorAll(".message")].at(-1)).direction`); dir != "ltr" {
		t.Errorf("the page reads %s", dir)
	}
}

func TestHostileRooms(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newTab(t)
	for room, want := range map[string]string{
		`<script>window.pwned=1</script>`: `<script>window.pwned=1</script>`,
		`a"b'c&d#e?f%00/../`:              `a"b'c&d#e?f%00/../`,
		strings.Repeat("é", 64):           strings.Repeat("é", 64),
		"\u202erevo":                      "\u202erevo",
		strings.Repeat("x", 129):          "", // none that there can be: some other room is shown
		"new\nline":                       "",
		"":                                "",
	} {
		p.open(n.HTTP("/?room=" + url.QueryEscape(room)))
		if want == "" {
			p.until(`document.querySelector("#title")?.textContent.length > 1 && document.querySelector("#title").textContent !== "#" + %s`, room)
			continue
		}
		p.until(`document.querySelector("#title")?.textContent === "#" + %s`, want)
		p.until(`document.querySelector("#room-list a[aria-current]")?.dataset.room === %s`, want)
		p.until(`!document.querySelector("#top").hidden && !document.querySelector("#top").classList.contains("error")`)
		p.say("said in " + want)
		p.sees("said in " + want)
		p.fits()
	}
	p.run(`localStorage.setItem("parley-page:rooms", "{not json"); localStorage.setItem("parley-page:name", "[1]")
		localStorage.setItem("parley-page:read:lobby", '"yesterday"')`)
	p.open(n.HTTP("/"))
	p.until(`document.querySelector("#title")?.textContent === "#lobby"`)
	p.until(`document.querySelector("#member-list li")`)
	p.run(`
		localStorage.setItem("parley-page:read:lobby", '"the day after tomorrow"');
		for (let i = 0; i < 2; i++) dispatchEvent(new StorageEvent("storage", { key: "parley-page:read:lobby" })); // as by other tabs
	`)
	say(t, n.Bus, "lobby", "Bo", "said today")
	p.sees("said today")
}

func TestAFloodLeavesThePageUsable(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.run(`
		window.most = 0;
		window.slowest = 0;
		let last = performance.now();
		const watch = (now) => {
			slowest = Math.max(slowest, now - last);
			last = now;
			most = Math.max(most, document.querySelectorAll("#timeline > li").length);
			requestAnimationFrame(watch);
		};
		requestAnimationFrame(watch);
	`)
	const messages, perSecond = 5000, 1000
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { flood(n.Bus, "design", messages, perSecond) })

	p.until(`document.querySelector(".message .text")?.textContent.startsWith("flood ")`)
	p.run(`document.querySelector("#text").focus()`)
	p.write("can you hear me?")
	p.press(kb.Enter)
	p.until(`document.querySelector("#text").value === ""`)
	// A reader who scrolls up is left in peace.
	p.run(`document.querySelector("#scroller").scrollTop -= 1500`)
	p.until(`/^[\d,]+ new messages/.test(document.querySelector("#jump").textContent)`)
	p.run(`
		const row = [...document.querySelectorAll(".message")].find((node) => node.getBoundingClientRect().top > 300);
		const top = row.getBoundingClientRect().top;
		for (let i = 0; i < 30; i++) await new Promise(requestAnimationFrame);
		window.moved = Math.abs(row.getBoundingClientRect().top - top);
	`)
	if moved := js[float64](p, `moved`); moved > 2 {
		t.Errorf("what was read moved by %v px", moved)
	}
	p.click("#jump")
	p.sees(fmt.Sprint("flood ", messages-1))
	most, slowest := js[int](p, `most`), js[float64](p, `slowest`)
	t.Logf("at most %d rows in the page, slowest frame %.0f ms", most, slowest)
	if most > 400 {
		t.Errorf("there were %d rows in the page", most)
	}
	if slowest > 30_000 { // the machine may do much else
		t.Errorf("the page stood still for %.0f ms", slowest)
	}
}
