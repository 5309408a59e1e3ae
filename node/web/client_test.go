package web_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"parley/node"
	"parley/node/nodetest"
)

// blankPage is an empty page of an origin of its own.
func blankPage(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>blank</title>")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// localFile is an empty page opened from a disk, whose origin is "null".
func localFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blank.html")
	if err := os.WriteFile(path, []byte("<!doctype html><title>blank</title>"), 0o644); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

// newClient opens a blank page with a client in it: chat, its room design, and log, a line for all that it tells.
func newClient(t *testing.T, module, url string, options ...string) *tab {
	t.Helper()
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(module, url, options...)
	return p
}

func (p *tab) connect(module, url string, options ...string) {
	p.t.Helper()
	p.run(`
		const load = () => import(%s).catch(load); // the network may change meanwhile
		const { Parley } = await load();
		window.log = [];
		window.chat = new Parley(%s, {`+strings.Join(options, ",")+`});
		chat.on("state", (s) => log.push(s.state));
		chat.on("close", ({ code }) => log.push("close " + code));
		chat.on("error", ({ code }) => log.push("error " + code));
		window.room = chat.join("design");
		window.texts = [];
		room.on("message", ({ text }) => texts.push(text));
		room.on("outgoing", ({ text, state }) => log.push(text + ": " + state));
		room.on("live", (how) => log.push("live", how));
		room.on("gap", () => log.push("gap"));
		room.on("error", ({ code }) => log.push("room error " + code));
	`, module+"/parley.js", url)
}

func wantTexts(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got the messages %q, want %q", got, want)
	}
}

func TestThreeLinesInABlankPage(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	secure := httptest.NewUnstartedServer(n.Handler())
	secure.Config.ErrorLog = discardLog
	secure.StartTLS()
	t.Cleanup(secure.Close)

	for name, c := range map[string]struct{ page, url string }{
		"of another origin":        {blankPage(t), n.URL("/")},
		"from a local file":        {localFile(t), n.URL("/")},
		"over wss":                 {blankPage(t), strings.Replace(secure.URL, "https", "wss", 1)},
		"over wss, from a file":    {localFile(t), strings.Replace(secure.URL, "https", "wss", 1) + "/ws"},
		"in a room, under a name":  {blankPage(t), n.URL("/?room=den&name=Ada")},
		"without a path, over ws:": {blankPage(t), n.URL("")},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTab(t)
			p.open(c.page)
			p.run(`(function start() {
				const chat = new WebSocket(%s)
				chat.onmessage = e => { window.got = e.data }
				chat.onopen = () => chat.send("hello")
				const other = new WebSocket(%s)
				other.onmessage = e => { other.send("you said " + e.data) }
				other.onopen = () => chat.send("hi")
				chat.onerror = other.onerror = start // the network may change meanwhile
			})()`, c.url, c.url)
			p.until(`window.got?.startsWith("you said h")`)
		})
	}
}

func TestClientOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	for name, page := range map[string]string{"a page": blankPage(t), "a local file": localFile(t)} {
		t.Run(name, func(t *testing.T) {
			n := nodetest.Start(t, 1).Nodes[0]
			p := newTab(t)
			p.open(page)
			p.connect(n.HTTP(""), n.HTTP("")) // http: is ws:
			if id := js[string](p, `room.send("hi").then(({ id }) => id)`); !strings.Contains(id, "-") {
				t.Errorf("sent with the id %q", id)
			}
			p.until(`texts.join() === "hi"`)
			p.run(`chat.close()`)
			if state := js[string](p, `chat.state`); state != "closed" {
				t.Errorf("after close the state is %q", state)
			}
		})
	}
}

func TestIdsCompareAsTwoIntegers(t *testing.T) {
	t.Parallel()
	p := newTab(t)
	n := nodetest.Start(t, 1).Nodes[0]
	p.open(blankPage(t))
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1-2", "1-2", 0},
		{"1-10", "1-9", 1},
		{"9-0", "10-0", -1},
		{"1763812800000-4711", "1763812800000-20000", -1},
		{"18446744073709551615-18446744073709551615", "18446744073709551615-18446744073709551614", 1},
		{"0-0", "1-0", -1},
	} {
		got := js[int](p, `import(%s).then(({ compareIds }) => Math.sign(compareIds(%s, %s)))`, n.HTTP("/parley.js"), c.a, c.b)
		if got != c.want {
			t.Errorf("%s and %s compare %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestClientResumesOverAnotherNode(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	g := newGate(t, c.Nodes[0])
	p := newClient(t, c.Nodes[1].HTTP(""), g.URL)
	other := nodetest.Dial(t, c.Nodes[1].URL("/"))
	other.Join("design")
	other.SendText("design", "one")
	p.until(`texts.includes("one")`)

	g.cut()
	c.Nodes[0].Kill()
	p.until(`chat.state === "waiting"`)
	other.SendText("design", "two")
	other.SendText("design", "three")
	p.run(`room.send("four"); room.send("five")`)
	g.to(c.Nodes[1])
	p.run(`chat.reconnect()`)
	p.until(`texts.includes("five")`)
	wantTexts(t, js[[]string](p, `texts`), "one", "two", "three", "four", "five")
	p.until(`log.some((how) => how.resumed && how.missed === 2 && !how.gap)`)
	p.until(`room.outgoing.length === 0`)
}

func TestAMessageWithoutAnAnswerIsRepeatedOnce(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	g := newGate(t, c.Nodes[0])
	p := newClient(t, c.Nodes[0].HTTP(""), g.URL)
	p.until(`room.live`)
	other := nodetest.Dial(t, c.Nodes[0].URL("/"))
	other.Join("design")

	g.silence()
	p.run(`room.send("did that arrive?"); room.send("and that?")`)
	if f := other.Until("message"); f.Text != "did that arrive?" {
		t.Errorf("the other got %q", f.Text)
	}
	g.cut()
	p.until(`log.includes("did that arrive?: unconfirmed")`)
	g.speak()
	g.to(c.Nodes[0])
	p.run(`chat.reconnect()`)
	p.until(`log.includes("and that?: sent")`)
	p.until(`texts.length === 2`)
	wantTexts(t, js[[]string](p, `texts`), "did that arrive?", "and that?")
	if f := other.Until("message"); f.Text != "and that?" {
		t.Errorf("the other got %q next", f.Text)
	}
}

func TestClientNoticesSilence(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.PingInterval = time.Second })
	g := newGate(t, c.Nodes[0])
	p := newClient(t, c.Nodes[0].HTTP(""), g.URL)
	p.until(`room.live`)
	g.silence()
	p.until(`chat.state !== "open"`)
	g.speak()
	p.until(`chat.state === "open"`)
}

func TestClientRepeatsAfterAReload(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	g := newGate(t, c.Nodes[0])
	p := newClient(t, c.Nodes[0].HTTP(""), g.URL)
	p.until(`room.live`)
	user := js[string](p, `chat.user.id`)
	g.silence()
	p.run(`room.send("first"); room.send("second"); room.send("third", { data: { n: 3 } })`)
	p.until(`log.includes("third: pending")`)
	g.cut()
	p.until(`chat.state === "waiting"`)
	p.reload()
	g.speak()
	g.to(c.Nodes[0])
	p.connect(c.Nodes[0].HTTP(""), g.URL)
	p.until(`log.includes("third: sent")`)
	wantTexts(t, js[[]string](p, `room.history().then(({ messages }) => messages.map(({ text }) => text))`), "first", "second", "third")
	if again := js[string](p, `chat.user.id`); again != user {
		t.Errorf("the guest is %s after the reload, and was %s", again, user)
	}
	if left := js[int](p, `Object.keys(sessionStorage).filter((name) => name.includes(":out:")).length`); left != 0 {
		t.Errorf("%d messages are kept though they were sent", left)
	}
}

func TestClientInAWorker(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newTab(t)
	p.open(blankPage(t))
	got := js[string](p, `new Promise((said) => {
		const code = "import { Parley } from '" + %s + "'; new Parley('" + %s + "').join('design').send('from a worker').then(({ id }) => postMessage(id), (error) => postMessage(String(error)))";
		const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
		worker.onmessage = ({ data }) => said(data);
		worker.onerror = ({ message }) => said("failed: " + message);
	})`, n.HTTP("/parley.js"), n.URL("/"))
	if !strings.Contains(got, "-") {
		t.Errorf("a worker's message ends as %q", got)
	}
}
