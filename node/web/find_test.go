package web_test

import (
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"parley/node/nodetest"
)

// What is looked for is found in what is loaded, then in the log, however far from the screen.
func TestFindInARoom(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	said := numbered("message ", 0, 700)
	said[20], said[650], said[690] = "the first Apricot", "an apricot, again", "an APRICOT at last"
	say(t, n.Bus, "design", "Bo", said...)
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.sees("message 699")
	found := func(text string) {
		t.Helper()
		p.until(`((node) => node?.textContent === %s && node.getBoundingClientRect().top > 0 && node.getBoundingClientRect().bottom < innerHeight)(
			document.querySelector(".target .text"))`, text)
		p.until(`document.querySelector("#find-status").textContent.startsWith("Bo, ")`)
		p.until(`[...CSS.highlights.get("found")].map((r) => r.startContainer.data.slice(r.startOffset, r.endOffset).toLowerCase()).join() === "apricot"`)
	}

	p.press("f", chromedp.ModifierCtrl)
	p.until(`document.activeElement === document.querySelector("#find-text")`)
	p.write("apricot")
	p.press(kb.Enter)
	found("an APRICOT at last")
	p.press(kb.Enter)
	found("an apricot, again")
	p.press(kb.Enter)
	found("the first Apricot")
	p.shot("find")
	p.press(kb.Enter)
	p.until(`document.querySelector("#find-status").textContent === "Nothing older is found"`)
	p.click("#find-newer")
	found("an apricot, again")
	if texts := p.texts(); !slices.Contains(texts, "message 651") || len(texts) > 250 {
		t.Errorf("around what was found are %d messages: %.300q", len(texts), texts)
	}

	p.run(`document.querySelector("#find-text").select()`)
	p.write("pear")
	p.press(kb.Enter)
	p.until(`document.querySelector("#find-status").textContent === "Nothing is found"`)
	p.press(kb.Escape)
	p.until(`document.querySelector("#find").hidden && document.activeElement === document.querySelector("#text") && CSS.highlights.get("found").size === 0`)
}
