package web_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"parley/bus"
	"parley/node/nodetest"
	"parley/node/wire"
)

// A link to a message opens in the midst of thousands, with what was said before and after it.
func TestALinkOpensAtItsMessage(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	ids := make(chan bus.ID, 3000)
	for i := range 3000 {
		said := wire.Said{Room: "design", From: person("Bo"), Text: fmt.Sprint("message ", i), At: 1}
		n.Bus.Publish("design", bus.Draft{Body: said.Body()}, func(id bus.ID, _ error) { ids <- id })
	}
	var id string
	for i := range 3000 {
		if got := <-ids; i == 400 {
			id = got.String()
		}
	}
	p := openPageAnyhow(t, n.HTTP(""), "lobby", "Ada", `kept("rooms", ["design", "lobby"])`)
	p.open(n.HTTP("/?room=design#" + id))
	p.until(`document.querySelector(".target .text")?.textContent === "message 400"`)
	for _, text := range []string{"message 350", "message 450"} { // without a scroll
		p.until(`[...document.querySelectorAll(".message .text")].some((node) => node.textContent === %s)`, text)
	}
	if y := js[float64](p, `document.querySelector(".target").getBoundingClientRect().top`); y < 50 || y > 600 {
		t.Errorf("the message is at %v px", y)
	}
	p.shot("link-to-message")
	p.run(`document.querySelectorAll(".at")[100].click()`)
	p.until(`location.hash === new URL(document.querySelector(".target .at").href).hash`)
	p.open(n.HTTP("/?room=design#1-1"))
	p.until(`document.querySelector("#banner-text").textContent.includes("not in this room any more")`)
}

func TestMarkdownThatPeopleTypeIsShown(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada Lovelace")
	for text, want := range map[string]string{
		"this is **bold**, *this* and _that_":     "this is <strong>bold</strong>, <em>this</em> and <em>that</em>",
		"snake_case_name, 2*3*4, ** no **, __x__": "snake_case_name, 2*3*4, ** no **, __x__",
		"**bold with *nothing**":                  "**bold with *nothing**",
		"> said\n> before\nand an answer":         "<blockquote>said\nbefore</blockquote>and an answer",
		"two things:\n- one\n- **two**":           "two things:<ul><li>one</li><li><strong>two</strong></li></ul>",
		"`**code**` *stays*":                      "<code>**code**</code> <em>stays</em>",
		"-1 is no list, and 3 > 2":                "-1 is no list, and 3 &gt; 2",
		"see #garden, not #12 or a#b":             `see <a class="room" data-room="garden">#garden</a>, not #12 or a#b`,
		"hi @ada lovelace: look":                  `hi <span class="mention me">@ada lovelace</span>: look`,
		"@Bob is @Bo's, bo@Bo.example is not":     `@Bob is <span class="mention">@Bo</span>'s, bo@Bo.example is not`,
		"*@Bo* @nobody **#garden**":               `<em><span class="mention">@Bo</span></em> @nobody <strong><a class="room" data-room="garden">#garden</a></strong>`,
		"<b>**<i>**":                              "&lt;b&gt;<strong>&lt;i&gt;</strong>",
	} {
		bo := enter(t, n, "design", "Bo")[0]
		p.until(`[...document.querySelectorAll("#member-list .name")].some((node) => node.textContent.startsWith("Bo"))`)
		bo.SendText("design", text)
		p.until(`document.querySelectorAll(".message.sent").length > (window.shown ?? 0)`)
		got := js[string](p, `(() => {
			window.shown = document.querySelectorAll(".message.sent").length;
			const text = [...document.querySelectorAll(".text")].at(-1).cloneNode(true);
			for (const a of text.querySelectorAll("a")) a.removeAttribute("href");
			return text.innerHTML;
		})()`)
		if got != want {
			t.Errorf("%q is shown as\n%s, want\n%s", text, got, want)
		}
	}
	p.shot("markdown")
	p.run(`document.querySelector("a.room").click()`)
	p.until(`document.querySelector("#title").textContent === "#garden"`)
}

func TestANameIsCompleted(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	enter(t, n, "design", "Grace Hopper", "Gustav", "Bo")
	p.until(`document.querySelectorAll("#member-list li").length === 4`)
	p.write("hello @g")
	p.until(`[...document.querySelectorAll("#suggestions li")].map((li) => li.textContent).join() === "Grace Hopper,Gustav"`)
	p.shot("suggestions")
	p.press(kb.ArrowDown)
	p.press(kb.Enter)
	p.until(`document.querySelector("#text").value === "hello @Gustav " && document.querySelector("#suggestions").hidden`)
	p.write("@hop")
	p.until(`document.querySelectorAll("#suggestions li").length === 1`)
	p.press(kb.Escape)
	p.until(`document.querySelector("#suggestions").hidden`)
	p.press(kb.Enter)
	p.sees("hello @Gustav @hop")
}

func TestTwoOfOneNameAreToldApart(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := openPage(t, n.HTTP(""), "design", "Ada")
	peers := enter(t, n, "design", "Bo", "Bo", "Cy")
	for _, peer := range peers {
		peer.SendText("design", "it is me")
	}
	for _, list := range []string{"#member-list .name", ".head .name"} {
		p.until(`((names) => names.length >= 3 && new Set(names).size === names.length && names.includes("Cy"))(
			[...document.querySelectorAll(%s)].map((node) => node.textContent))`, list)
	}
	p.shot("one-name")
}

func TestAGuestIsInvitedToTakeAName(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newTab(t)
	p.open(n.HTTP("/?room=design"))
	p.click("#invite")
	p.until(`document.querySelector("#name-dialog").open`)
	p.run(`document.querySelector("#name").select()`)
	p.write("Ada")
	p.press(kb.Enter)
	p.until(`document.querySelector("#invite").hidden && document.querySelector("#me .name").textContent === "Ada"`)
}

// Who is addressed while they look elsewhere is told by the browser, if they chose that.
func TestWhoIsAddressedGetsANotice(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newTab(t)
	p.onEachPage(`window.notices = []; window.asked = 0;
		window.Notification = class { static permission = "default"; constructor(title, { body }) { notices.push(title + ": " + body) }
			static async requestPermission() { asked++; return (Notification.permission = "granted") } }`)
	p.open(n.HTTP("/style.css"))
	p.run(`localStorage.setItem("parley-page:name", '"Ada"'); localStorage.setItem("parley-page:rooms", '["design", "lobby"]')`)
	p.open(n.HTTP("/?room=lobby"))
	p.until(`!document.querySelector("#top").hidden`)
	if asked := js[int](p, `asked`); asked != 0 {
		t.Error("the browser asks before anybody wanted notices")
	}
	p.click("#me")
	p.run(`document.querySelector("#notices").click()`)
	p.until(`asked === 1 && document.querySelector("#notices").checked`)
	p.press(kb.Enter)
	say(t, n.Bus, "design", "Bo", "for all", "for @adam", "for @ada!")
	p.until(`document.querySelector(".badge")?.textContent.startsWith("3")`)
	p.until(`notices.length === 1 && notices[0] === "Bo in #design: for @ada!"`)
}
