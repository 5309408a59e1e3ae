package web_test

import (
	"testing"
)

func TestClientWaitsAsLongAsItIsTold(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		if r.Op == "join" {
			return []string{`{"op":"bye","code":1012,"reason":"the node restarts","retry_after":60000}`, "close 1012 the node restarts"}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.run(`chat.on("state", (s) => { if (s.state === "waiting") window.wait = s.retryAt - Date.now() })`)
	p.until(`window.wait`)
	if wait := js[float64](p, `wait`); wait < 60_000 || wait > 62_000 {
		t.Errorf("the client waits for %v ms, was told 60000", wait)
	}
}

func TestClientWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	p := newTab(t)
	p.open(blankPage(t))
	n := newFake(t, func(request, int) []string { return nil })
	p.run(`
		const load = () => import(%s).catch(load);
		const { Parley } = await load();
		window.waits = [];
		const chat = new Parley("ws://127.0.0.1:1"); // where nobody answers
		chat.on("state", (s) => {
			if (s.state !== "waiting") return;
			waits.push(s.retryAt - Date.now());
			if (waits.length < 9) chat.reconnect();
		});
	`, n.URL+"/parley.js")
	p.until(`waits.length === 9`)
	for i, wait := range js[[]float64](p, `waits`) {
		most := min(30_000, 500*float64(int(1)<<i))
		if wait < most/2-20 || wait > most {
			t.Errorf("attempt %d waits for %v ms, want between %v and %v", i, wait, most/2, most)
		}
	}
}

// What one goodbye asks for is waited for once, not after each connection from then on.
func TestClientWaitsOnceForWhatItIsTold(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		switch {
		case r.Op == "join" && nth == 0:
			return []string{`{"op":"bye","code":1012,"reason":"the node restarts","retry_after":60000}`, "close 1012 the node restarts"}
		case r.Op == "join":
			return []string{"close 1012 the node restarts"}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.run(`
		window.waits = [];
		chat.on("state", ({ state, retryAt }) => state === "waiting" && waits.push(retryAt - Date.now()) === 1 && chat.reconnect());
	`)
	p.until(`waits.length === 2`)
	if waits := js[[]float64](p, `waits`); waits[0] < 50_000 || waits[1] > 30_000 {
		t.Errorf("the client waits for %v ms, was told 60000 once", waits)
	}
}

// After a connection that was good, the wait is as short as at first, and grows again.
func TestClientComesBackSoonAfterAGoodConnection(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		if r.Op == "ping" {
			return []string{"close 1012 the node restarts"}
		}
		return nil
	})
	p := newTab(t)
	p.onEachPage(`const now = Date.now; window.later = 0; Date.now = () => now() + window.later;`)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.run(`
		window.waits = [];
		chat.on("state", ({ state, retryAt }) => state === "waiting" && waits.push(retryAt - Date.now()) < 8 && chat.reconnect());
		for (let i = 0; i < 5; i++) await chat.request("ping").catch(() => {});
		await chat.ready;
		later += 60_000;
		const Socket = WebSocket;
		window.WebSocket = class extends Socket {
			constructor(_, protocols) {
				super("ws://127.0.0.1:1", protocols); // where nobody answers
			}
		};
		chat.request("ping").catch(() => {});
	`)
	p.until(`waits.length === 8`)
	if waits := js[[]float64](p, `waits`); waits[4] < 3900 || waits[5] > 500 || waits[7] < 900 {
		t.Errorf("the client waits for %v ms, want longer each time, and at most 500 first after a minute", waits)
	}
}

func TestClientRepeatsWhatCouldNotBeDoneInOrder(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		switch {
		case r.Op != "send":
			return nil
		case nth == 0:
			return []string{`{"op":"error","req":%REQ%,"code":"unavailable","message":"the bus is away","retry_after":20}`}
		case nth == 1:
			return []string{`{"op":"error","req":%REQ%,"code":"rate_limited","message":"slowly","retry_after":20}`}
		case r.Text == "bad":
			return []string{`{"op":"error","req":%REQ%,"code":"forbidden","message":"not here"}`}
		}
		return []string{`{"op":"ok","req":%REQ%,"id":"6-0"}`}
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.until(`room.live`)
	p.run(`for (const text of ["good", "bad", "better", "best"]) room.send(text)`)
	p.until(`log.includes("best: sent")`)
	texts, keys := f.sends()
	wantTexts(t, texts, "good", "good", "good", "bad", "better", "best")
	if keys[0] != keys[1] || keys[1] != keys[2] || keys[3] == keys[2] {
		t.Errorf("the keys are %q, want one for each message", keys)
	}
	wantTexts(t, js[[]string](p, `log.filter((line) => typeof line === "string" && line.includes(": "))`),
		"good: pending", "bad: pending", "better: pending", "best: pending",
		"good: unconfirmed", "good: sent", "bad: failed", "better: sent", "best: sent")
	if got := js[string](p, `room.outgoing.map(({ text, error }) => text + " " + error.code).join()`); got != "bad forbidden" {
		t.Errorf("what is left is %q", got)
	}
	p.run(`room.discard(room.outgoing[0].key)`)
	p.until(`room.outgoing.length === 0`)
}

func TestClientDropsRepeats(t *testing.T) {
	t.Parallel()
	message := func(id, text, key string) string {
		return `{"op":"message","room":"design","id":"` + id + `","from":{"id":"u"},"text":"` + text + `","key":"` + key + `","at":1}`
	}
	f := newFake(t, func(r request, nth int) []string {
		if r.Op != "send" {
			return nil
		}
		return []string{
			message("9-1", "one", "k1"),
			message("9-1", "one", "k1"),  // the same id
			message("8-5", "zero", "k0"), // an older one
			message("10-0", "one", "k1"), // the same key, of the same sender
			message("10-1", "two", "k2"), // 10 comes after 9
			`{"op":"gap","room":"design","after":"10-1"}`,
			message("9-9", "three", "k3"), // after a gap the order starts anew
			`{"op":"ok","req":%REQ%,"id":"11-0"}`,
		}
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.run(`await room.send("go")`)
	wantTexts(t, js[[]string](p, `texts`), "one", "two", "three")
	p.until(`log.includes("gap")`)
}

func TestWhatIsTooOldIsNotRepeatedUnasked(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		if r.Op == "send" {
			return []string{`{"op":"ok","req":%REQ%,"id":"6-0"}`}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.run(`sessionStorage.setItem("parley:" + new URL(%s).host + ":out:design:k", JSON.stringify(
		{ n: 1, key: "k", text: "old", at: 1, tried: Date.now() - 11 * 60000, state: "unconfirmed" }))`, f.URL)
	p.connect(f.URL, f.URL)
	p.until(`room.live && room.outgoing[0]?.error?.code === "expired"`)
	p.run(`await room.send("new")`)
	texts, _ := f.sends()
	wantTexts(t, texts, "new")
	p.run(`room.retry("k")`)
	p.until(`log.includes("old: sent")`)
	_, keys := f.sends()
	if keys[1] != "k" {
		t.Errorf("it was sent with the key %q, want its own", keys[1])
	}
}

func TestWhatWouldEndTheConnectionIsNotSent(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(request, int) []string { return nil })
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL)
	p.until(`room.live`)
	if code := js[string](p, `room.send("☃".repeat(30000)).catch(({ code }) => code)`); code != "too_large" {
		t.Errorf("a frame over the limit is refused with %q", code)
	}
	if texts, _ := f.sends(); len(texts) != 0 {
		t.Errorf("%d messages were sent", len(texts))
	}
}

// A fresh token is brought over the connection that there is; it is asked for once at a time.
func TestATokenIsRenewedBeforeItExpires(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op != "hello" {
			return nil
		}
		expires := ""
		if nth == 0 {
			expires = `"expires":1000,`
		}
		return []string{`{"op":"welcome","req":%REQ%,` + expires + `"user":{"id":"ada","name":"Ada"},"session":"","ping":25,"limits":{"text":4096,"frame":65536}}`}
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.run(`window.asked = 0`)
	p.connect(f.URL, f.URL, `token: async () => "token " + ++asked`)
	f.until(t, "hello", 2)
	p.run(`await room.send("still here")`)
	if joins, asked := f.count("join"), js[int](p, `asked`); joins != 1 || asked != 2 {
		t.Errorf("the room was joined %d times, and a token was asked for %d times, want 1 and 2", joins, asked)
	}
	wantTexts(t, f.tokens(), "token 1", "token 2")
}

// Timers wait for 24 days at most: one that is to wait for longer does not wait at all.
func TestATokenThatLastsForWeeksIsNotRenewedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, _ int) []string {
		if r.Op != "hello" {
			return nil
		}
		return []string{`{"op":"welcome","req":%REQ%,"expires":3024000000,"user":{"id":"ada","name":"Ada"},"session":"","ping":25,"limits":{"text":4096,"frame":65536}}`}
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.run(`window.asked = 0`)
	p.connect(f.URL, f.URL, `token: async () => "token " + ++asked`)
	p.run(`await room.ready; await new Promise((done) => setTimeout(done, 50)); await chat.request("ping")`) // after such a timer
	if asked, hellos := js[int](p, `asked`), f.count("hello"); asked != 1 || hellos != 1 {
		t.Errorf("a token was asked for %d times, and brought %d times, want once", asked, hellos)
	}
}

// Tokens that are refused now and then, with good connections between, end nothing.
func TestATokenThatIsRefusedNowAndThenEndsNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		switch {
		case r.Op == "hello" && nth%2 == 0:
			return []string{`{"op":"error","req":%REQ%,"code":"unauthorized","message":"this was revoked"}`}
		case r.Op == "ping":
			return []string{"close 1012 the node restarts"}
		}
		return nil
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL, `token: async () => "a token"`)
	p.run(`chat.on("state", ({ state }) => state === "waiting" && chat.reconnect())`)
	p.run(`if (chat.state === "waiting") chat.reconnect()`)
	if got := js[string](p, `(async () => {
		const codes = [];
		for (let i = 0; i < 5; i++) codes.push(await chat.request("ping").then(() => "ok", ({ code }) => code));
		return codes.join();
	})()`); got != "lost,lost,lost,lost,lost" {
		t.Errorf("over five connections it was answered %s", got)
	}
	p.run(`await room.ready`)
}
