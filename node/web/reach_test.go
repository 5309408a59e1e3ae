package web_test

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"parley/node/nodetest"
)

// On a phone the button is always there: a line of code goes round it.
func TestCopyCoversNoCode(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.size(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch)
	say(t, n.Bus, "design", "Bo",
		"```\nshort\n```",
		"```\n"+strings.Repeat("a line of code that is as long as the page is wide ", 3)+"\nx\n```",
		"```\n"+strings.Repeat("x", 300)+"\n```",
		"مثال:\n```\nif (x) { return }"+strings.Repeat(" // so", 20)+"\n```")
	p.until(`document.querySelectorAll(".copy").length === 4`)
	p.shot("phone-code")
	covered := js[[]string](p, `[...document.querySelectorAll("pre")].flatMap((pre) => {
		const button = pre.querySelector(".copy").getBoundingClientRect();
		const inside = pre.getBoundingClientRect();
		if (!button.width || button.right > inside.right || button.bottom > inside.bottom) return ["the button is outside of " + pre.textContent];
		const range = document.createRange();
		range.selectNodeContents(pre.querySelector("code"));
		return [...range.getClientRects()].filter((line) => line.right > button.left + 1 && line.left < button.right - 1 && line.top < button.bottom - 1 && line.bottom > button.top + 1)
			.map(() => pre.textContent.slice(0, 40));
	})`)
	for _, code := range covered {
		t.Errorf("the button covers a line of %q", code)
	}
	if size := js[float64](p, `document.querySelector(".copy").getBoundingClientRect().height`); size < 24 {
		t.Errorf("the button is %v px high, too little for a finger", size)
	}
	p.fits()
}

// What is written from right to left stands on the right, and code in it reads as code.
func TestRightToLeft(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "شيرين")
	say(t, n.Bus, "design", "Bo", "هل يعمل النص؟\n```\nchat.close();\n```")
	p.until(`document.querySelector("pre code")`)
	p.say("مرحبا بالجميع")
	p.sees("مرحبا بالجميع")
	p.write("أهلا")
	p.shot("right-to-left")
	place := `((node, from, to) => {
		const range = document.createRange();
		range.setStart(node, from);
		range.setEnd(node, to);
		return range.getBoundingClientRect();
	})`
	if !js[bool](p, `(() => {
		const text = [...document.querySelectorAll(".text")].at(-1);
		return `+place+`(text.firstChild, 0, 1).right > text.getBoundingClientRect().right - 5;
	})()`) {
		t.Error("a message from right to left does not begin on the right")
	}
	if !js[bool](p, `(() => {
		const code = document.querySelector("pre code").firstChild;
		return `+place+`(code, 0, 1).left < `+place+`(code, 12, 13).left;
	})()`) {
		t.Error("code in a message from right to left ends before it begins")
	}
	if direction := js[string](p, `getComputedStyle(document.querySelector("#text")).direction`); direction != "rtl" {
		t.Errorf("the field is %s while one writes from right to left", direction)
	}
	p.fits()
}

// At 200 % a window of 1280 × 800 has 640 × 400 of our pixels.
func TestAllCanBeReachedAtTwiceTheSize(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	tell(t, n.Bus, "design", talk)
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.size(640, 400, chromedp.EmulateScale(2))
	p.sees(talk[len(talk)-1].text)
	p.shot("zoom")
	p.fits()
	if high := js[float64](p, `document.querySelector("#scroller").clientHeight`); high < 150 {
		t.Errorf("%v px are left to messages", high)
	}
	p.click("#show-find")
	p.write("tunnel")
	p.press(kb.Enter)
	p.until(`document.querySelector(".target")`)
	p.fits()
	p.shot("zoom-find")
	p.click("#find-close")
	p.click("#show-emoji")
	p.until(`((box) => box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.height)(document.querySelector("#emoji").getBoundingClientRect())`)
	p.press(kb.Escape)
	p.click("#show-rooms")
	p.until(`document.body.dataset.drawer === "rooms"`)
	p.click("#me")
	p.until(`document.querySelector("#name-dialog").open`)
	p.until(`((box) => box.top >= 0 && box.bottom <= innerHeight)(document.querySelector("#name-dialog .primary").getBoundingClientRect())`)
}

// Who wants less motion gets none, and what a motion would have told is told.
func TestLessMotion(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	tell(t, n.Bus, "design", talk)
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.media("prefers-reduced-motion", "reduce")
	p.size(390, 844)
	p.sees(talk[len(talk)-1].text)
	p.click("#show-rooms")
	if moving := js[int](p, `document.getAnimations().filter((it) => it.effect.getComputedTiming().duration > 1).length`); moving > 0 {
		t.Errorf("%d parts of the page move", moving)
	}
	p.press(kb.Escape)
	p.press("f", chromedp.ModifierCtrl)
	p.write("tunnel")
	p.press(kb.Enter)
	p.until(`document.querySelector("#find-status").textContent.includes(",")`)
	p.until(`document.getAnimations().length === 0`)
	if colour := js[string](p, `getComputedStyle(document.querySelector(".target")).backgroundColor`); colour == "rgba(0, 0, 0, 0)" {
		t.Error("what was found does not stand out")
	}
}
