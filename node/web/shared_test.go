package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"parley/node/nodetest"
	"parley/node/web"
)

// lanPage is an empty page over http: from an address that is not this machine's, where browsers have no Web Locks.
func lanPage(t *testing.T) string {
	t.Helper()
	return strings.Replace(blankPage(t), "127.0.0.1", "lan.test", 1)
}

// share connects a tab over whichever of the browser's tabs leads. It notes when this one begins to.
func (p *tab) share(module, url string, options ...string) {
	p.t.Helper()
	p.run(`
		window.leads = 0;
		const post = BroadcastChannel.prototype.postMessage;
		BroadcastChannel.prototype.postMessage = function (said) {
			if (said.op === "lead") leads++;
			post.call(this, said);
		};
	`)
	p.connect(module, url, append(slices.DeleteFunc(options, func(s string) bool { return s == "" }), expand(`shared: (await import(%s)).shared`, []any{module + "/parley/shared.js"}))...)
}

// wantConnections waits for so many connections through a gate.
func (g *gate) wantConnections(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		g.mu.Lock()
		n := len(g.conns)
		g.mu.Unlock()
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are %d connections, want %d", n, want)
		}
	}
}

// lifecycle freezes a tab, as browsers do with one that was not looked at for long, or lets it go on.
func (p *tab) lifecycle(state page.SetWebLifecycleStateState) {
	p.t.Helper()
	p.command(func(ctx context.Context) error {
		looked := emulation.SetFocusEmulationEnabledParams{Enabled: state == "active"} // what is looked at is never frozen
		if _, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, looked); err != nil {
			return err
		}
		_, err := chromedp.Call(ctx, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: state})
		return err
	})
}

// family opens so many tabs of one person, in a room that somebody talks in until quiet is called, 30 times a second.
func family(t *testing.T, origin func(*testing.T) string, size int) (tabs []*tab, g *gate, quiet func()) {
	t.Helper()
	n := nodetest.Start(t, 1).Nodes[0]
	g = newGate(t, n)
	at := origin(t)
	p := newTab(t)
	tabs = append(tabs, p)
	for len(tabs) < size {
		tabs = append(tabs, p.sibling())
	}
	for _, p := range tabs {
		p.open(at)
		p.share(n.HTTP(""), g.URL)
		p.until(`room.live`)
	}
	g.wantConnections(t, 1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Second / 30):
				say(t, n.Bus, "design", "Bo", fmt.Sprint("bo ", i))
			}
		}
	})
	quiet = sync.OnceFunc(func() {
		close(stop)
		wg.Wait()
	})
	t.Cleanup(quiet)
	return tabs, g, quiet
}

// agree fails the test unless each tab got all that was said, once and in order.
func agree(t *testing.T, tabs []*tab, last string) {
	t.Helper()
	for i, p := range tabs {
		p.until(`texts.includes(%s) && room.outgoing.length === 0`, last)
		wrong := js[[]string](p, `(async () => {
			const all = [];
			for await (const { text } of room.past(undefined, { limit: 200 })) all.unshift(text);
			if (all.join() === texts.join()) return log.filter((line) => line === "gap");
			const missing = all.filter((text) => !texts.includes(text));
			const twice = texts.filter((text, i) => texts.indexOf(text) !== i);
			return [texts.length + " of " + all.length, "missing: " + missing, "twice: " + twice];
		})()`)
		if len(wrong) > 0 {
			t.Errorf("tab %d got not what was said: %q", i+1, wrong)
		}
	}
}

var origins = map[string]func(*testing.T) string{"with Web Locks": blankPage, "without": lanPage}

func TestTabsShareOneConnection(t *testing.T) {
	t.Parallel()
	for name, origin := range origins {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tabs, g, quiet := family(t, origin, 3)
			if locks := js[bool](tabs[0], `!!navigator.locks`); locks != (name == "with Web Locks") {
				t.Fatalf("there are Web Locks: %t", locks)
			}
			for i, p := range tabs {
				p.run(`await room.send(%s)`, fmt.Sprint("from tab ", i+1))
			}
			quiet()
			tabs[1].run(`await room.send("the last")`)
			agree(t, tabs, "the last")
			for i, p := range tabs {
				if who := js[string](p, `chat.user.id`); who != js[string](tabs[0], `chat.user.id`) {
					t.Errorf("tab %d is somebody else", i+1)
				}
				p.until(`room.count === 1`)
			}
			g.wantConnections(t, 1)
			// One leaves the room, the others stay.
			tabs[0].run(`await room.leave()`)
			tabs[1].run(`await room.send("without it")`)
			tabs[2].until(`texts.at(-1) === "without it"`)
			if got := js[bool](tabs[0], `texts.includes("without it")`); got {
				t.Error("a tab hears of a room that it left")
			}
		})
	}
}

func TestTheLeadingTabIsClosed(t *testing.T) {
	t.Parallel()
	for name, origin := range origins {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tabs, g, quiet := family(t, origin, 3)
			tabs[0].open("about:blank") // as good as closed, for the others
			for i, p := range tabs[1:] {
				p.run(`for (let i = 0; i < 5; i++) room.send("tab " + %s + ", " + i)`, i+2)
			}
			tabs[1].until(`texts.includes("tab 3, 4")`)
			quiet()
			tabs[2].run(`await room.send("the last")`)
			agree(t, tabs[1:], "the last")
			g.wantConnections(t, 1)
		})
	}
}

// A browser may tell a tab that it freezes it, or not; then the others find out.
func TestTheLeadingTabIsFrozen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		origin func(*testing.T) string
		told   bool
	}{
		"and told":                        {blankPage, true},
		"and not told":                    {blankPage, false},
		"and not told, without Web Locks": {lanPage, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tabs, g, quiet := family(t, c.origin, 3)
			if !c.told {
				tabs[0].run(`addEventListener("freeze", (event) => event.stopImmediatePropagation(), true)`)
			}
			tabs[0].lifecycle("frozen")
			frozen := time.Now()
			for i, p := range tabs[1:] {
				p.run(`for (let i = 0; i < 5; i++) room.send("tab " + %s + ", " + i)`, i+2)
			}
			tabs[1].until(`texts.includes("tab 3, 4")`)
			t.Logf("the others went on after %v", time.Since(frozen))
			if lead := js[int](tabs[1], `leads`) + js[int](tabs[2], `leads`); lead == 0 {
				t.Error("nobody else leads")
			}
			tabs[0].lifecycle("active")
			tabs[0].until(`texts.includes("tab 3, 4")`)
			quiet()
			tabs[0].run(`await room.send("the last")`)
			agree(t, tabs, "the last")
			g.wantConnections(t, 1)
		})
	}
}

// One that follows takes nothing, while more comes than is kept for it.
func TestATabThatFollowsIsFrozen(t *testing.T) {
	t.Parallel()
	tabs, g, quiet := family(t, blankPage, 2)
	tabs[1].lifecycle("frozen")
	before := js[int](tabs[0], `texts.length`)
	tabs[0].until(`texts.length > %s`, before+10)
	tabs[1].lifecycle("active")
	quiet()
	tabs[1].run(`await room.send("the last")`)
	agree(t, tabs, "the last")
	g.wantConnections(t, 1)
}

// What waits for a tab is bounded: past that it begins anew, and resumes.
func TestATabThatTakesNothingBeginsAnew(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	at := blankPage(t)
	p := newTab(t)
	tabs := []*tab{p, p.sibling()}
	for _, p := range tabs {
		p.open(at)
		p.run(`
			const post = BroadcastChannel.prototype.postMessage;
			BroadcastChannel.prototype.postMessage = function (said) {
				if (said.op !== "seen") post.call(this, said); // it never tells how far it is
			};
		`)
		p.share(n.HTTP(""), n.URL("/"))
		p.until(`room.live`)
	}
	say(t, n.Bus, "design", "Bo", numbered("bo ", 0, 2100)...)
	tabs[1].until(`log.filter((line) => line === "connecting").length > 0 && room.live`)
	tabs[1].run(`await room.send("the last")`)
	agree(t, tabs, "the last")
}

func TestTheSharedConnectionIsLost(t *testing.T) {
	t.Parallel()
	tabs, g, quiet := family(t, blankPage, 3)
	target := g.target
	g.cut()
	for i, p := range tabs {
		p.until(`chat.state === "waiting"`)
		p.run(`room.send(%s)`, fmt.Sprint("unsaid ", i))
	}
	g.mu.Lock()
	g.target = target
	g.mu.Unlock()
	for _, p := range tabs {
		p.until(`room.outgoing.length === 0`)
	}
	quiet()
	tabs[0].run(`await room.send("the last")`)
	agree(t, tabs, "the last")
	g.wantConnections(t, 1)
}

// Tabs of two people, or of two versions of this, have nothing to do with each other.
func TestTabsOfOthersDoNotShare(t *testing.T) {
	t.Parallel()
	token := func(claims string) string { return `token: "e30." + btoa('` + claims + `') + ".x"` }
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/parley/shared.js" {
			web.Handler().ServeHTTP(w, r)
			return
		}
		r.Header.Del("Accept-Encoding")
		rec := httptest.NewRecorder()
		web.Handler().ServeHTTP(rec, r)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, strings.Replace(rec.Body.String(), "const VERSION = 1;", "const VERSION = 2;", 1))
	}))
	t.Cleanup(other.Close)
	p := newTab(t)
	p.open(blankPage(t)) // two clients in one tab are as good as two tabs
	for name, c := range map[string]struct {
		first, second string
		module        string
		want          int
	}{
		"two people":                    {token(`{"sub":"ada"}`), token(`{"sub":"bo"}`), "", 2},
		"one, with a newer token":       {token(`{"sub":"ada","iat":1,"exp":2}`), token(`{"sub":"ada","iat":3,"exp":4}`), "", 1},
		"one, with another's rights":    {token(`{"sub":"ada","rights":"a"}`), token(`{"sub":"ada","rights":"b"}`), "", 2},
		"tokens that can't be read":     {`token: "a"`, `token: "b"`, "", 2},
		"one that can't, by a function": {`token: "a"`, `token: async () => "a"`, "", 1},
		"a guest and somebody":          {``, token(`{"sub":"ada"}`), "", 2},
		"guests of one session":         {``, ``, "", 1},
		"guests who are not remembered": {`persist: false`, `persist: false`, "", 2},
		"two versions":                  {``, ``, other.URL, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(r request, _ int) []string {
				if r.Op == "history" {
					return []string{`{"op":"ok","req":%REQ%,"room":"design","messages":[],"more":false}`}
				}
				return nil
			})
			if c.module == "" {
				c.module = f.URL
			}
			p.run(`
				localStorage.setItem("parley:" + new URL(%s).host + ":session", "s"); // the fake's
				const { Parley } = await import(%s);
				const chats = [];
				for (const [module, options] of [[%s, {`+c.first+`}], [%s, {`+c.second+`}]]) {
					const { shared } = await import(module);
					const chat = new Parley(%s, { shared, ...options });
					chats.push(chat);
					await chat.join("design").ready;
				}
				for (const chat of chats) chat.close();
			`, f.URL, f.URL+"/parley.js", f.URL+"/parley/shared.js", c.module+"/parley/shared.js", f.URL)
			if got := f.connections(); got != c.want {
				t.Errorf("there are %d connections, want %d", got, c.want)
			}
		})
	}
}
