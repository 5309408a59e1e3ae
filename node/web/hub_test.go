package web_test

import (
	"fmt"
	"strings"
	"testing"
)

// sharing is a fake whose logs are empty, but for what a test answers itself.
func sharing(t *testing.T, answer func(r request, nth int) []string) *fake {
	t.Helper()
	return newFake(t, func(r request, nth int) []string {
		if own := answer(r, nth); own != nil || r.Op != "history" {
			return own
		}
		return []string{`{"op":"ok","req":%REQ%,"room":"design","messages":[],"more":false}`}
	})
}

// couple opens two clients that share a connection, in one tab, which is as good as two: one leads, and two follows, of which
// states notes each state from then on. Earlier runs before their modules.
func couple(t *testing.T, f *fake, earlier ...string) *tab {
	t.Helper()
	p := newTab(t)
	p.open(blankPage(t))
	p.run(strings.Join(earlier, "\n"))
	p.run(`
		localStorage.setItem("parley:" + new URL(%s).host + ":session", "s"); // the fake's
		const load = () => Promise.all([import(%s), import(%s)]).catch(load); // the network may change meanwhile
		const [{ Parley }, { shared }] = await load();
		window.states = [];
		window.one = new Parley(%s, { shared });
		await one.ready;
		window.two = new Parley(%s, { shared });
		await two.ready;
		two.on("state", ({ state }) => states.push(state));
	`, f.URL, f.URL+"/parley.js", f.URL+"/parley/shared.js", f.URL, f.URL)
	if got := f.connections(); got != 1 {
		t.Fatalf("there are %d connections, want 1", got)
	}
	return p
}

// undisturbed fails the test if the one that follows began anew.
func (p *tab) undisturbed() {
	p.t.Helper()
	if states := js[[]string](p, `two.request("ping").then(() => states)`); len(states) > 0 {
		p.t.Errorf("the one that follows was %q", states)
	}
}

// At most so much of a tab waits for answers; how much was answered before does not matter.
func TestATabHasSoManyRequestsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(request, int) []string { return nil })
	p := couple(t, f)
	for range 2 {
		refused := js[int](p, `Promise.all(Array.from({ length: 1100 }, () => two.request("ping").then(() => 0, ({ code }) => code === "rate_limited" ? 1 : 1e6)))
			.then((all) => all.reduce((a, b) => a + b))`)
		if refused > 100 {
			t.Errorf("%d of 1100 at once were refused, want at most 100", refused)
		}
	}
	if sent := f.count("ping"); sent < 2000 {
		t.Errorf("%d were sent, want 1000 of each", sent)
	}
	p.undisturbed()
}

// A room that could not be joined is tried again, by whoever is to be in it.
func TestASharedRoomThatCouldNotBeJoinedIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		if r.Op == "join" && nth == 0 {
			return []string{`{"op":"error","req":%REQ%,"code":"unavailable","message":"the bus is away","retry_after":20}`}
		}
		return nil
	})
	p := couple(t, f)
	p.run(`await Promise.all([one, two].map((chat) => chat.join("design").ready))`)
	p.undisturbed()
}

// Who left while the room was being joined is not in it: when the last of the others leaves, the node is told.
func TestWhoLeavesASharedRoomBeforeItIsLiveIsNotInIt(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		switch r.Op {
		case "join":
			return []string{`{"op":"ok","req":%REQ%,"room":"design","last":"5-0","members":[],"count":0}`}
		case "ping":
			return []string{`{"op":"live","room":"design"}`, `{"op":"ok","req":%REQ%}`}
		}
		return nil
	})
	p := couple(t, f)
	p.run(`
		window.room = one.join("design");
		await new Promise((joined) => room.on("presence", joined));
		await two.join("design").leave();
		await one.request("ping");
		await room.ready;
	`)
	p.undisturbed()
	p.run(`await room.leave()`)
	if leaves := f.count("leave"); leaves != 1 {
		t.Errorf("the node was told %d times that the room was left, want 1", leaves)
	}
}

// What is refused as a room was left says nothing of the stay that comes after.
func TestASharedRoomThatIsJoinedAnewIsLive(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		if r.Op == "signal" { // it comes behind the leave
			return []string{`{"op":"error","req":%REQ%,"code":"not_joined","message":"join the room first"}`}
		}
		return nil
	})
	p := couple(t, f)
	p.run(`
		const room = one.join("design");
		await room.ready;
		room.typing();
		await room.leave();
		await one.join("design").ready;
	`)
	p.undisturbed()
}

// Who is being brought up to date in a room as the right to be there is taken away is told so, and does not wait for ever.
func TestWhoJoinsASharedRoomAsTheRightEndsIsRefused(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		switch {
		case r.Op != "join" || nth == 0:
			return nil
		case nth == 1:
			return []string{`{"op":"left","room":"design","code":"forbidden","message":"banned"}`, `{"op":"error","req":%REQ%,"code":"forbidden","message":"banned"}`}
		}
		return []string{`{"op":"error","req":%REQ%,"code":"forbidden","message":"banned"}`}
	})
	p := couple(t, f)
	codes := js[string](p, `(async () => {
		const rooms = [one.join("design")];
		await rooms[0].ready;
		rooms.push(two.join("design"));
		await rooms[1].ready.catch(() => {});
		return rooms.map(({ error }) => error?.code).join();
	})()`)
	if codes != "forbidden,forbidden" {
		t.Errorf("they were told %s", codes)
	}
}

// Who missed something gets it over a connection of its own, also after one that was lost. Whether it did says the node: where a log broke
// the room's last id is what was seen before.
func TestWhatASharingTabMissedIsFetchedAgain(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		if r.Op != "join" {
			return nil
		}
		if r.Since == "" {
			return []string{fmt.Sprintf(`{"op":"ok","req":%%REQ%%,"room":"design","last":"%d-0","members":[],"count":0}`, min(5+nth, 7)), `{"op":"live","room":"design"}`}
		}
		switch nth {
		case 2: // over the connection that there is, of an older node
			return []string{`{"op":"ok","req":%REQ%,"room":"design","last":"7-0","members":[],"count":0}`}
		case 3:
			return []string{"close 1012 the node restarts"}
		case 4:
			return []string{`{"op":"ok","req":%REQ%,"room":"design","last":"6-0","recovered":false,"members":[],"count":0}`}
		}
		return []string{
			`{"op":"ok","req":%REQ%,"room":"design","last":"7-0","members":[],"count":0}`,
			`{"op":"message","room":"design","id":"7-0","from":{"id":"u"},"text":"missed","at":1}`,
			`{"op":"live","room":"design"}`,
		}
	})
	p := couple(t, f)
	wantTexts(t, p.secondComesBack(), "missed")
	if n := f.connections(); n != 3 {
		t.Errorf("there were %d connections, want 3", n)
	}
	p.run(`await one.request("ping")`)
}

// A connection that is lost in the midst of what a tab missed, when its join is answered already, has the tab begin anew.
func TestASharingTabThatWasGivenAPartOfWhatItMissedGetsTheRest(t *testing.T) {
	t.Parallel()
	const missed = `{"op":"message","room":"design","id":"%d-0","from":{"id":"u"},"text":"%[1]d","at":1}`
	f := sharing(t, func(r request, nth int) []string {
		if r.Op != "join" || r.Since == "" {
			return nil
		}
		ok := fmt.Sprintf(`{"op":"ok","req":%%REQ%%,"room":"design","last":"7-0","recovered":%v,"members":[],"count":0}`, nth%2 == 1)
		switch nth {
		case 3:
			return []string{ok, fmt.Sprintf(missed, 6), "close 1012 the node restarts"}
		case 5:
			return []string{ok, fmt.Sprintf(missed, 7), `{"op":"live","room":"design"}`}
		}
		return []string{ok} // over the connection that there is
	})
	p := couple(t, f)
	wantTexts(t, p.secondComesBack(), "6", "7")
}

// secondComesBack has the second of a couple join a room that the first is in, and come back to it. It gives what it has heard.
func (p *tab) secondComesBack() []string {
	p.t.Helper()
	p.run(`
		await one.join("design").ready;
		window.room = two.join("design");
		await room.ready;
		two.reconnect();
		await two.ready;
		await room.ready;
	`)
	return js[[]string](p, `room.messages.map(({ text }) => text)`)
}

// Who a tab is to be for a connection of its own is who it is over the one that there is: not what was refused there.
func TestANameThatWasRefusedKeepsNoTabFromWhatItMissed(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		switch {
		case r.Name == "Bad":
			return []string{`{"op":"error","req":%REQ%,"code":"bad_request","message":"no name"}`}
		case r.Op == "history":
			return []string{`{"op":"error","req":%REQ%,"code":"forbidden","message":"you may not"}`}
		}
		return nil
	})
	p := couple(t, f)
	p.run(`
		await one.join("design").ready;
		await two.rename("Bad");
		await two.join("design").ready;
	`)
	p.undisturbed()
}

// A gap that comes while a tab is brought up to date is before what it gets, not after.
func TestAGapWhileATabIsBroughtUpToDateHidesNothing(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		if r.Op != "history" {
			return nil
		}
		page := `{"op":"ok","req":%REQ%,"room":"design","messages":[{"room":"design","id":"5-0","from":{"id":"u"},"text":"after the gap","at":1}],"more":false}`
		if nth > 0 {
			return []string{page}
		}
		return []string{`{"op":"gap","room":"design","after":"3-0","last":"5-0"}`, page}
	})
	p := couple(t, f)
	p.run(`
		await one.join("design").ready;
		window.room = two.join("design");
		await room.ready;
		await two.request("ping");
		await room.ready;
	`)
	wantTexts(t, js[[]string](p, `room.messages.map(({ text }) => text)`), "after the gap")
}

// What a tab has taken makes space for what comes, however much that is in all.
func TestATabThatTakesWhatComesGoesOn(t *testing.T) {
	t.Parallel()
	f := sharing(t, func(r request, nth int) []string {
		if r.Op != "ping" {
			return nil
		}
		var frames []string
		for i := range 700 {
			frames = append(frames, fmt.Sprintf(`{"op":"message","room":"design","id":"%d-%d","from":{"id":"u"},"text":"x","at":1}`, 10+nth, i))
		}
		return append(frames, `{"op":"ok","req":%REQ%}`)
	})
	p := couple(t, f)
	p.run(`
		await one.join("design").ready;
		window.room = two.join("design");
		window.taken = 0;
		room.on("message", () => taken++);
		await room.ready;
		for (let i = 1; i < 5; i++) {
			await two.request("ping");
			if (taken !== 700 * i) throw new Error("after " + i + " times 700 it has taken " + taken);
		}
	`)
	p.undisturbed()
}

// clockwork makes the page's clock a test's: later is added to it, tabs ask for each other and sweep what is gone more often, and said
// counts what tabs say. What is in unsaid does not get through.
const clockwork = `
	const [now, timeout, interval, post] = [Date.now, setTimeout, setInterval, BroadcastChannel.prototype.postMessage];
	Object.assign(window, { later: 0, sweeps: 0, said: {}, unsaid: [], onsaid() {} });
	Date.now = () => now() + later;
	window.setTimeout = (f, ms, ...args) => timeout(f, ms === 1000 ? 50 : ms, ...args);
	window.setInterval = (f, ms, ...args) => (ms === 30_000 ? interval(() => f(sweeps++), 50) : interval(f, ms, ...args));
	BroadcastChannel.prototype.postMessage = function (it) {
		said[it.op] = (said[it.op] ?? 0) + 1;
		onsaid(it.op);
		if (!unsaid.includes(it.op)) post.call(this, it);
	};
`

// A tab that asks after its leader is there, for hours; one that does not for three minutes is gone.
func TestATabIsThereAsLongAsItAsks(t *testing.T) {
	t.Parallel()
	p := couple(t, sharing(t, func(request, int) []string { return nil }), clockwork)
	p.run(`window.until = async (what, n) => { for (const from = what(); what() < from + n; ) await new Promise((done) => setTimeout(done, 10)) }`)
	for range 2 {
		p.run(`
			later += 100_000;
			await until(() => said.ask ?? 0, 1);
			await until(() => said.here ?? 0, 1);
			await until(() => sweeps, 2);
		`)
	}
	p.undisturbed()
	leads := js[int](p, `said.lead`)
	p.run(`
		unsaid = ["ask"];
		onsaid = (op) => {
			if (op === "ask") queueMicrotask(() => Object.assign(window, { later: later + 200_000, unsaid: [], onsaid() {} }));
		};
	`)
	p.until(`states.includes("connecting")`)
	p.run(`await two.ready`)
	if again := js[int](p, `said.lead`); again != leads {
		t.Errorf("a tab began to lead %d times, want none", again-leads)
	}
}

// A tab that was asleep itself has not heard yet what its leader said: it does not take over.
func TestATabThatWasAsleepDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	p := couple(t, sharing(t, func(request, int) []string { return nil }), clockwork)
	p.run(`
		window.asleep = 0;
		onsaid = (op) => {
			if (op !== "ask") return;
			unsaid = ["here"];
			queueMicrotask(() => (later += 60_000, asleep++));
		};
	`)
	p.until(`asleep === 2`)
	p.run(`unsaid = []; onsaid = () => {}`) // the last sleep is not over
	p.undisturbed()
}
