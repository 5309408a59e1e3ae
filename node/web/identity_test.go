package web_test

import (
	"strings"
	"testing"
	"time"

	"parley/node/nodetest"
)

// What page scripts do to have a client take tokens one by one: after the last it is given that one again. An error is thrown.
const givesTokens = `token: async () => {
	window.asking = (window.asking ?? 0) + 1;
	if (asking > 1) log.push("asked twice at a time");
	await new Promise((done) => setTimeout(done, 20));
	asking--;
	window.asked = (window.asked ?? 0) + 1;
	const next = tokens.length > 1 ? tokens.shift() : tokens[0];
	if (next?.thrown) throw next.error;
	return next;
}`

// knowing opens a client that is given these tokens, and notes the states and users it has.
func knowing(t *testing.T, n *nodetest.Node, url, option string, tokens ...string) *tab {
	t.Helper()
	p := newTab(t)
	p.onEachPage(`const now = Date.now; window.later = 0; Date.now = () => now() + window.later;`)
	p.open(blankPage(t))
	p.run(`
		Object.assign(window, { tokens: %s, users: [], states: [], said: [], log: [] });
		const load = () => import(%s).catch(load); // the network may change meanwhile
		const { Parley } = await load();
		window.chat = new Parley(%s, {`+option+`});
		chat.on("state", (s) => states.push(s));
		chat.on("error", ({ code, message }) => said.push(code + ": " + message));
		chat.on("welcome", ({ user }) => users.push(user.id));
		window.room = chat.join("design");
		room.on("error", ({ code, message }) => said.push("room " + code + ": " + message));
	`, tokens, n.HTTP("/parley.js"), url)
	return p
}

// sleeps has the page's clock go on without its timers, as when a machine sleeps, and wakes it.
func (p *tab) sleeps(d time.Duration) {
	p.t.Helper()
	p.run(`window.later += %s; dispatchEvent(new Event("online"))`, d.Milliseconds())
}

func (p *tab) onlyAda() {
	p.t.Helper()
	if users := js[string](p, `[...new Set(users)].join()`); users != "ada" && users != "" {
		p.t.Errorf("it was %s", users)
	}
	if log := js[string](p, `log.join()`); strings.Contains(log, "twice") {
		p.t.Errorf("the token was asked for twice at a time: %s", log)
	}
}

// A token that is not good ends the client, which says why: in a sentence, wherever one may ask.
func TestATokenThatIsNotGoodEndsTheClientWithASentence(t *testing.T) {
	t.Parallel()
	n, _ := nodetest.StartKnowing(t, quick)
	for name, c := range map[string]struct{ token, why string }{
		"nobody's": {nodetest.Token(t, 0, time.Hour, nodetest.AllRooms) + "x", "not signed with a key"},
		"expired":  {nodetest.Token(t, -2*time.Hour, time.Hour, nodetest.AllRooms), "has expired"},
		"odd":      {nodetest.Token(t, 0, time.Hour, `{"`+strings.Repeat("é", 70)+`":[]}`), "the token's rights"}, // more than a close frame holds
	} {
		for how, option := range map[string]string{"a string": `token: tokens[0]`, "a function": givesTokens} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				p := knowing(t, n, n.URL("/"), option, c.token)
				p.run(`chat.on("state", (s) => s.state === "waiting" && chat.reconnect())`)
				p.until(`chat.state === "closed"`)
				if code, why := js[int](p, `states.at(-1).code`), js[string](p, `states.at(-1).reason`); code != 4401 || !strings.Contains(why, c.why) {
					t.Errorf("it is closed with %d: %s", code, why)
				}
				for _, promise := range []string{`chat.ready`, `room.ready`, `room.send("x")`, `chat.request("ping")`, `chat.join("other").ready`} {
					if got := js[string](p, promise+`.catch(({ code, message }) => code + ": " + message)`); !strings.HasPrefix(got, "closed: ") || !strings.Contains(got, c.why) {
						t.Errorf("%s ends as %s", promise, got)
					}
				}
				if asked := js[int](p, `window.asked ?? 4`); asked != 4 {
					t.Errorf("the function was asked %d times, want 4", asked)
				}
				p.onlyAda()
			})
		}
	}
}

// What expires, or is revoked, while one is there ends it; who has a function comes back with the next.
func TestWhatEndsATokenIsTold(t *testing.T) {
	t.Parallel()
	for name, why := range map[string]string{"expired": "expired: the token has expired", "revoked": "unauthorized: this was revoked"} {
		for how, option := range map[string]string{"a string": `token: tokens[0]`, "a function": givesTokens} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				n, app := nodetest.StartKnowing(t, quick)
				first := nodetest.Token(t, -time.Minute, time.Hour, nodetest.AllRooms)
				if name == "expired" {
					first = nodetest.Token(t, -time.Hour, time.Hour+3*time.Second, nodetest.AllRooms)
				}
				p := knowing(t, n, n.URL("/"), option, first, nodetest.Token(t, 5*time.Second, time.Hour, nodetest.AllRooms))
				if name == "revoked" {
					p.until(`room.live`)
					if err := app.Revoke(t.Context(), "ada", time.Time{}); err != nil {
						t.Fatal(err)
					}
				}
				if how == "a function" {
					p.until(`room.live && asked >= 2`)
				} else {
					p.until(`chat.state === "closed" && states.at(-1).code === 4401`)
					_, sentence, _ := strings.Cut(why, ": ")
					if reason := js[string](p, `states.at(-1).reason`); !strings.Contains(reason, sentence) {
						t.Errorf("it is closed as %s", reason)
					}
				}
				if told := js[string](p, `said.join()`); name == "revoked" && !strings.HasPrefix(told, why) {
					t.Errorf("it was told %q", told)
				}
				p.onlyAda()
			})
		}
	}
}

// Whatever a function does instead of giving a token, nobody who had one becomes a guest, and the next is asked for.
func TestNobodyBecomesAGuestForWantOfAToken(t *testing.T) {
	t.Parallel()
	n, _ := nodetest.StartKnowing(t, quick)
	p := knowing(t, n, n.URL("/"), givesTokens, nodetest.Token(t, 0, time.Hour, nodetest.AllRooms))
	p.until(`room.live`)
	// What is waited for between two attempts grows; how long a connection may take stays.
	p.run(`const timeout = setTimeout; window.setTimeout = (f, ms, ...args) => timeout(f, ms === 10_000 ? ms : ms / 20, ...args)`)
	for _, instead := range []string{
		`undefined`, `""`, `null`, `{ thrown: true }`, `{ thrown: true, error: new TypeError("Failed to fetch") }`,
		`{ thrown: true, error: new DOMException("signal timed out", "TimeoutError") }`, `{ thrown: true, error: Object.assign(new Error("x"), { code: 403 }) }`,
	} {
		p.run(`window.tokens = [` + instead + `, tokens[0]]; window.before = states.length; chat.reconnect(); const sent = room.send("hi"); await sent`)
		states := js[string](p, `states.slice(before).map(({ state, reason }) => state + " " + reason).join()`)
		if !strings.Contains(states, "waiting No token came: ") {
			t.Errorf("%s: the states were %s", instead, states)
		}
	}
	p.onlyAda()
}

// Timers stand still while a machine sleeps, and the token does not: a fresh one is brought as soon as it wakes.
func TestATokenIsRenewedAfterASleep(t *testing.T) {
	t.Parallel()
	n, _ := nodetest.StartKnowing(t, quick)
	p := knowing(t, n, n.URL("/"), givesTokens, nodetest.Token(t, 0, time.Hour, nodetest.AllRooms), nodetest.Token(t, 1*time.Second, 2*time.Hour, nodetest.AllRooms))
	p.until(`room.live`)
	p.sleeps(30 * time.Minute)
	p.run(`await chat.request("ping")`)
	if asked := js[int](p, `asked`); asked != 1 {
		t.Errorf("after half of its time it was asked for %d times", asked)
	}
	p.sleeps(20 * time.Minute)
	p.until(`users.length === 2`)
	if states := js[string](p, `states.map(({ state }) => state).join()`); states != "open" && states != "" {
		t.Errorf("meanwhile the states were %s", states)
	}
	p.run(`await room.send("still here")`)
	p.onlyAda()
}

// ways are how a client finds a node, and what it speaks over then.
var ways = map[string]func(*testing.T, *nodetest.Node) string{
	"over a WebSocket": func(_ *testing.T, n *nodetest.Node) string { return n.URL("/") },
	"over streams":     blockUpgrades,
}

// A right that a fresh token takes away ends its room, with a sentence; one that gives it back gives the room back.
func TestARightComesAndGoesWithTheToken(t *testing.T) {
	t.Parallel()
	for name, address := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, _ := nodetest.StartKnowing(t, quick)
			all, less := nodetest.Token(t, 0, time.Hour, nodetest.AllRooms), nodetest.Token(t, time.Second, time.Hour, `{"other":["join"]}`)
			p := knowing(t, n, address(t, n), givesTokens, all, less, "x", nodetest.Token(t, 2*time.Second, time.Hour, nodetest.AllRooms))
			p.run(`await Promise.all([room.ready, chat.join("other").ready])`)
			p.run(`const timeout = setTimeout; window.setTimeout = (f, ms, ...args) => timeout(f, ms === 5000 ? 50 : ms, ...args)`)
			p.sleeps(50 * time.Minute)
			p.until(`room.error?.code === "forbidden" && !room.live && chat.rooms.get("other").live`)
			if got := js[string](p, `room.send("x").catch(({ code, message }) => code + ": " + message)`); got != `forbidden: you may not join in the room "design"` {
				t.Errorf("a send ends as %s", got)
			}
			p.run(`room.discard(room.outgoing[0].key); window.said.push("then")`)
			p.sleeps(50 * time.Minute) // the next is no token: it is asked for once more, and who one is stays
			p.until(`asked === 4 && room.live`)
			p.run(`await room.send("back again")`)
			if said := js[string](p, `said.join()`); !strings.HasPrefix(said, `room forbidden: you may not join in the room "design",then`) {
				t.Errorf("it was told %s", said)
			}
			if opened := js[int](p, `states.filter(({ state }) => state === "open").length`); opened > 1 {
				t.Errorf("it connected %d times", opened)
			}
			p.onlyAda()
		})
	}
}

// Whom the operator has disconnected does not come back by itself, whatever it goes over.
func TestADisconnectedUserStaysAway(t *testing.T) {
	t.Parallel()
	for name, address := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, app := nodetest.StartKnowing(t, quick)
			p := knowing(t, n, address(t, n), givesTokens, nodetest.Token(t, 0, time.Hour, nodetest.AllRooms))
			p.until(`room.live`)
			if err := app.Disconnect(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}
			p.until(`chat.state === "closed"`)
			if got := js[string](p, `states.at(-1).code + " " + states.at(-1).reason`); got != "4403 the operator has disconnected you" {
				t.Errorf("it is closed as %s", got)
			}
		})
	}
}

// What is said in somebody's name just when that ends is said over the next connection, with the next token.
func TestWhatIsSaidWithATokenThatEndsIsSaidWithTheNext(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r request, nth int) []string {
		if r.Op != "send" || nth > 0 {
			return nil
		}
		return []string{
			`{"op":"error","req":%REQ%,"code":"unauthorized","message":"this was revoked"}`,
			`{"op":"bye","code":4401,"reason":"this was revoked"}`, "close 4401 this was revoked",
		}
	})
	p := newTab(t)
	p.open(blankPage(t))
	p.connect(f.URL, f.URL, `token: () => "a token"`)
	p.run(`await room.send("hi")`)
	if texts, keys := f.sends(); len(texts) != 2 || keys[0] != keys[1] {
		t.Errorf("it said %q with the keys %q", texts, keys)
	}
}
