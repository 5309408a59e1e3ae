package web_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"parley/node/nodetest"
)

func TestANewcomerIsToldThatTheBusIsAway(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op == "join" && nth < 2 {
			return []string{`{"op":"error","req":%REQ%,"code":"unavailable","message":"the bus is away","retry_after":500}`}
		}
		return nil
	})
	p := openPageAnyhow(t, f.URL, "design", "Ada")
	p.until(`document.querySelector("#top").textContent === "#design can't be reached just now, and is tried again: the bus is away"`)
	p.shot("bus-away")
	p.until(`document.querySelector("#top").textContent.startsWith("Nothing was said")`)
}

func TestADraftOutlivesAReload(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada", `kept("rooms", ["design", "lobby"])`)
	p.write("half a thought")
	p.reload()
	p.until(`document.querySelector("#text").value === "half a thought" && !document.querySelector("#send").disabled`)
	p.click(`a[data-room="lobby"]`)
	p.until(`document.querySelector("#text").value === ""`)
	p.click(`a[data-room="design"]`)
	p.until(`document.querySelector("#text").value === "half a thought"`)
	p.press(kb.Enter)
	p.sees("half a thought")
	p.reload()
	p.sees("half a thought")
	p.until(`document.querySelector("#text").value === ""`)
}

func TestTabsAgreeOnWhatWasReadAndOnTheName(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "old")
	one := openPage(t, n.HTTP(""), "design", "Ada", `kept("rooms", ["design", "lobby"])`)
	one.sees("old")
	one.until(`localStorage.getItem("parley-page:read:design")`)
	two := one.sibling()
	two.open(n.HTTP("/?room=lobby"))
	two.until(`!document.querySelector("#top").hidden`)
	one.click(`a[data-room="lobby"]`)
	one.until(`document.querySelector("#title").textContent === "#lobby"`)
	say(t, n.Bus, "design", "Bo", "new")
	for _, p := range []*tab{one, two} {
		p.until(`document.querySelector("#room-list .badge")?.textContent === "1 unread"`)
	}
	one.click(`a[data-room="design"]`)
	two.until(`!document.querySelector("#room-list .badge") && document.title.startsWith("#lobby")`)

	one.click("#me")
	one.until(`document.querySelector("#name-dialog").open`)
	one.write("Ada Lovelace")
	one.press(kb.Enter)
	two.until(`document.querySelector("#me .name").textContent === "Ada Lovelace"`)
}

func TestFilesGetAWord(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	for _, event := range []string{
		`new DragEvent("dragover", { dataTransfer: files, bubbles: true, cancelable: true })`,
		`new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true })`,
		`new ClipboardEvent("paste", { clipboardData: files, bubbles: true, cancelable: true })`,
	} {
		prevented := js[bool](p, `(() => {
			document.querySelector("#composer-note").textContent = "";
			const files = new DataTransfer();
			files.items.add(new File(["x"], "x.png", { type: "image/png" }));
			return !document.querySelector("#scroller").dispatchEvent(`+event+`);
		})()`)
		note := js[string](p, `document.querySelector("#composer-note").textContent`)
		if !prevented || strings.Contains(event, "dragover") == strings.Contains(note, "can't be sent here") {
			t.Errorf("%s: prevented %v, and said %q", event, prevented, note)
		}
	}
	p.shot("files")
	if prevented := js[bool](p, `(() => {
		const both = new DataTransfer();
		both.items.add(new File(["x"], "x.png", { type: "image/png" }));
		both.setData("text/plain", "cells");
		return !document.querySelector("#text").dispatchEvent(new ClipboardEvent("paste", { clipboardData: both, bubbles: true, cancelable: true }));
	})()`); prevented {
		t.Error("a text that comes with its picture can't be pasted")
	}
}

func TestAPhoneBreaksLinesAndShowsTimes(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.size(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch)
	p.reload()
	p.until(`document.querySelector("#title")?.textContent === "#design" && document.querySelector("#text").enterKeyHint === "enter"`)
	p.run(`document.querySelector("#text").focus()`)
	p.write("one")
	p.press(kb.Enter)
	p.write("two")
	p.run(`document.querySelector("#send").click()`)
	p.sees("one\ntwo")
	p.write("three")
	p.run(`document.querySelector("#send").click()`)
	p.sees("three")
	if opacity := js[string](p, `getComputedStyle(document.querySelector(".aside")).opacity`); opacity != "1" {
		t.Errorf("a grouped time has the opacity %s", opacity)
	}
	p.shot("phone-lines")
}

func TestWhatIsCopiedIsWhatWasSaid(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "first", "second", "```go\nfmt.Println()\n```", "Z"+strings.Repeat("\u0336\u0353\u0489\u033f\u035c", 60))
	p := openPage(t, n.HTTP(""), "design", "Ada")
	p.sees("fmt.Println()")
	p.run(`getSelection().selectAllChildren(document.querySelector("#timeline"))`)
	lines := strings.Fields(js[string](p, `getSelection().toString()`))
	if len(lines) < 2 || lines[0] != "Today" || lines[1] != "Bo" || strings.Count(strings.Join(lines, " "), ":") != 1 {
		t.Errorf("copied %q", lines)
	}
	if over := js[bool](p, `getComputedStyle([...document.querySelectorAll(".text")].at(-1)).overflowY !== "clip"`); over {
		t.Error("marks pile up over what stands above")
	}
	if dir := js[string](p, `document.querySelector("#text").dir`); dir != "auto" {
		t.Errorf("the field's direction is %q", dir)
	}
	p.shot("copied")
}

// Whoever goes by another name does so in everybody's list, and nobody came or went.
func TestARenameIsShown(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		switch r.Op {
		case "join":
			return []string{
				`{"op":"ok","req":%REQ%,"room":"design","last":"5-0","members":[{"id":"guest-1"},{"id":"guest-2","name":"Bo"}],"count":2,"presence":1}`,
				`{"op":"live","room":"design"}`,
			}
		case "send":
			return []string{
				`{"op":"presence","room":"design","event":"update","user":{"id":"guest-2","name":"Bo Derek"},"count":2,"presence":2}`,
				`{"op":"ok","req":%REQ%,"id":"6-0"}`,
			}
		}
		return nil
	})
	p := openPage(t, f.URL, "design", "")
	names := `[...document.querySelectorAll("#member-list .name")].map((node) => node.textContent).join()`
	p.until(names + `.endsWith(",Bo")`)
	p.say("who are you?")
	p.until(names + `.endsWith(",Bo Derek") && document.querySelectorAll(".presence").length === 0`)
}

// A name is changed over the connection that there is, and who comes back with it does not choose it anew.
func TestANameIsChosenOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		if r.Op == "hello" {
			return []string{`{"op":"welcome","req":%REQ%,"user":{"id":"guest-1","name":"` + r.Name + `","guest":true},"named":7,"session":"s","ping":25,"limits":{"text":4096,"frame":65536}}`}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL, `name: "Ada"`)
	p.run(`await room.ready; await chat.rename("Bo")`)
	if name := js[string](p, `chat.user.name`); name != "Bo" || f.count("join") != 1 {
		t.Errorf("the name is %q, and the room was joined %d times, want once", name, f.count("join"))
	}
	p.run(`chat.reconnect(); await room.ready`)
	f.mu.Lock()
	defer f.mu.Unlock()
	var hellos []string
	for _, q := range f.said {
		if q.Op == "hello" {
			hellos = append(hellos, fmt.Sprint(q.Name, q.Named))
		}
	}
	wantTexts(t, hellos, "Ada0", "Bo0", "Bo7")
}
