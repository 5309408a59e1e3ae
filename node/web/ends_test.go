package web_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/chromedp"

	"parley/node/nodetest"
)

// ended gives what became of a promise: "ok", a code, or "waits" if it is not settled though all that was said is answered.
const ended = `const ended = (promise) => Promise.race([
	promise.then(() => "ok", ({ code }) => code),
	new Promise((done) => setTimeout(done, 3000, "waits")),
]);`

func TestEveryPromiseOfARoomEnds(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		if r.Op == "join" && r.Room == "secret" {
			return []string{`{"op":"error","req":%REQ%,"code":"forbidden","message":"this room is not for you"}`}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	got := js[string](p, `(async () => {
		`+ended+`
		const secret = chat.join("secret");
		const early = secret.send("queued");
		const signal = secret.signal("typing");
		const all = [await ended(early), await ended(signal), await ended(secret.send("later")), await ended(secret.ready)];
		const other = chat.join("other");
		const left = other.leave();
		all.push(await ended(other.send("after leaving")), await ended(other.signal("typing")), await ended(left));
		chat.close();
		all.push(await ended(room.send("after closing")), await ended(room.signal("typing")), await ended(room.history()));
		all.push(await ended(chat.join("new").ready), await ended(room.leave()));
		return all.join();
	})()`)
	if want := "forbidden,forbidden,forbidden,forbidden,left,left,ok,closed,closed,closed,closed,ok"; got != want {
		t.Errorf("the promises end as\n%s, want\n%s", got, want)
	}
}

func TestWhatExpiresUnconfirmedIsTold(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op == "send" && nth == 0 {
			return []string{`{"op":"error","req":%REQ%,"code":"unavailable","message":"the bus is away","retry_after":10}`}
		}
		return nil
	})
	p := newTab(t)
	p.onEachPage(`const now = Date.now; window.later = 0; Date.now = () => now() + window.later;`)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.until(`room.live`)
	p.run(`
		room.on("outgoing", ({ state }) => state === "unconfirmed" && (window.later = 11 * 60000));
		window.how = room.send("hi").then(() => "ok", ({ code }) => code);
	`)
	p.until(`room.outgoing[0]?.error?.code === "expired"`)
	if how := js[string](p, `(async () => { `+ended+` return ended(how.then((code) => { throw { code } })) })()`); how != "expired" {
		t.Errorf("the send ends as %q, want expired", how)
	}
}

func TestEverythingWaitsForAConnection(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "old")
	p := newTab(t)
	p.open(blankPage(t))
	got := js[string](p, `(async () => {
		const load = () => import(%s).catch(load);
		const { Parley } = await load();
		const chat = new Parley(%s);
		const room = chat.join("design");
		const [{ messages }, , { count }] = await Promise.all([
			room.history(), room.signal("typing"), chat.request("members", { room: "design" }), chat.ready,
		]);
		return messages.map(({ text }) => text).join() + (count >= 0);
	})()`, n.HTTP("/parley.js"), n.URL("/"))
	if got != "oldtrue" {
		t.Errorf("got %q", got)
	}
}

func TestLeavingIsCounted(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1, quick).Nodes[0]
	p := newClient(t, n.HTTP(""), n.URL("/"))
	p.until(`room.live`)
	bo := enter(t, n, "design", "Bo")[0]
	p.run(`
		const again = chat.join("design");
		if (again !== room) throw new Error("the same room twice is two");
		await again.leave();
		await room.send("still here");
	`)
	bo.SendText("design", "so you are")
	p.until(`texts.includes("so you are")`)
	p.run(`window.how = room.leave()`)
	bo.Until("presence")
	p.run(`await how`)
	p.until(`!chat.rooms.has("design")`)
	p.run(`window.room = chat.join("design"); await room.ready`)
}

// What was said before leaving is said, also if there is no connection yet.
func TestWhatIsQueuedLeavesFirst(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := newClient(t, n.HTTP(""), n.URL("/"))
	got := js[string](p, `(async () => {
		const sent = [room.send("one"), room.send("two")].map((sent) => sent.then(({ id }) => id, ({ code }) => code));
		await room.leave();
		return (await Promise.all(sent)).join();
	})()`)
	if strings.Count(got, "-") != 2 {
		t.Errorf("what was sent before leaving ends as %s", got)
	}
	wantTexts(t, js[[]string](p, `chat.request("history", { room: "design" }).then(({ messages }) => messages.map(({ text }) => text))`), "one", "two")
}

func TestANodeThatForgotTheRoomIsJoinedAgain(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op == "send" && nth == 0 {
			return []string{`{"op":"error","req":%REQ%,"code":"not_joined","message":"join the room first"}`}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.run(`await room.send("hi")`)
	if joins := f.count("join"); joins != 2 {
		t.Errorf("the room was joined %d times, want 2", joins)
	}
}

// What a lost connection asked to wait for does not hold up the next.
func TestAWaitEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op == "send" && nth == 0 {
			return []string{`{"op":"error","req":%REQ%,"code":"rate_limited","message":"slowly","retry_after":600000}`}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.until(`room.live`)
	p.run(`window.how = room.send("hi")`)
	f.until(t, "send", 1)
	p.run(`await chat.request("ping")`) // by now the answer is there
	p.run(`chat.reconnect()`)
	p.run(`await how`)
}

// A join that is to be tried again is tried over its own connection only: over the next one, the room is joined once.
func TestARoomIsJoinedOnceAConnection(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op == "join" && nth == 0 {
			return []string{`{"op":"error","req":%REQ%,"code":"unavailable","message":"the bus is away","retry_after":700}`}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	f.until(t, "join", 1)
	p.run(`await chat.request("ping"); chat.reconnect(); await room.ready`)
	p.run(`await new Promise((done) => setTimeout(done, 1000)); await chat.request("ping")`) // past the first wait
	if joins := f.count("join"); joins != 2 {
		t.Errorf("the room was joined %d times, want 2", joins)
	}
}

// What was on its way when the client was closed is repeated when it is next opened.
func TestWhatWasOnItsWayWhenClosedIsRepeated(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op == "send" && nth == 0 {
			return []string{}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.until(`room.live`)
	p.run(`room.send("hi")`)
	f.until(t, "send", 1)
	p.run(`chat.close()`)
	p.connect(f.URL, f.URL)
	p.until(`log.includes("hi: sent")`)
}

// What a node refuses of a visitor is dropped, and said: nobody is locked out by what their browser kept.
func TestWhatIsRefusedOfAVisitorIsDropped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ session, name, note string }{
		"a session":    {"no session", "Ada", "session was refused"},
		"a name":       {"", strings.Repeat("x", 65), "was refused (name is 65 bytes"},
		"both of them": {"no session", strings.Repeat("x", 65), "was refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := nodetest.Start(t, 1).Nodes[0]
			p := openPageAnyhow(t, n.HTTP(""), "design", c.name, `
				if (`+nodetest.Quote(c.session)+`) localStorage.setItem("parley:" + location.host + ":session", `+nodetest.Quote(c.session)+`);`)
			p.until(`document.querySelector("#banner-text").textContent.includes(%s)`, c.note)
			p.shot("refused-" + strings.ReplaceAll(name, " ", "-"))
			p.say("here I am")
			p.sees("here I am")
			if len(c.name) < 65 {
				p.until(`document.querySelector(".head .name").textContent === %s`, c.name)
			}
			p.reload()
			p.sees("here I am")
			wantTexts(t, p.texts(), "here I am")
			p.until(`document.querySelector("#member-list li")`)
			if note := js[string](p, `document.querySelector("#banner-text").textContent`); strings.Contains(note, c.note) {
				t.Error("it is refused again after a reload")
			}
		})
	}
}

// Who is cut off right after a gap comes back where the log goes on: not before what it had, nor as one who is new.
func TestWhoIsCutOffAfterAGapComesBackWhereTheLogGoesOn(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op != "join" || nth > 0 {
			return nil
		}
		return []string{
			`{"op":"ok","req":%REQ%,"room":"design","last":"5-0","members":[],"count":0}`,
			`{"op":"live","room":"design"}`,
			`{"op":"gap","room":"design","after":"3-0","last":"7-0"}`,
			"close 1012 the node restarts",
		}
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	f.until(t, "join", 2)
	f.mu.Lock()
	defer f.mu.Unlock()
	joins := slices.DeleteFunc(slices.Clone(f.said), func(r request) bool { return r.Op != "join" })
	if since := joins[1].Since; since != "7-0" {
		t.Errorf("it came back since %q", since)
	}
}

// A client that was closed is let go: neither the window nor a timer or a socket keeps it.
func TestAClosedClientIsLetGo(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		if r.Op != "hello" {
			return nil
		}
		return []string{`{"op":"welcome","req":%REQ%,"expires":3600000,"user":{"id":"ada","name":"Ada"},"session":"","ping":25,"limits":{"text":4096,"frame":65536}}`}
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.run(`window.abort = new AbortController()`)
	p.connect(f.URL, f.URL, `token: async () => "a token"`, `signal: abort.signal`)
	p.run(`
		await room.send("hi", { signal: abort.signal });
		chat.join("other", { signal: abort.signal });
		chat.close();
		window.kept = new WeakRef(chat);
		delete window.chat;
		delete window.room;
	`)
	for deadline := time.Now().Add(patience / 3); js[bool](p, `!!kept.deref()`); {
		if time.Now().After(deadline) {
			t.Fatal("it is kept")
		}
		p.command(func(ctx context.Context) error {
			_, err := chromedp.Call(ctx, heapprofiler.CollectGarbage, cdp.Empty{})
			return err
		})
	}
}
