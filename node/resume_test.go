package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/id"
	"parley/bus/memory"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// resumes are the ways to come back to the room lobby with the last id seen. Each gives the answer and what came up to live.
var resumes = map[string]func(t *testing.T, nd *nodetest.Node, since string) (joined wire.Frame, backlog []wire.Frame){
	"WebSocket": func(t *testing.T, nd *nodetest.Node, since string) (wire.Frame, []wire.Frame) {
		p := nodetest.Dial(t, nd.URL("/"))
		defer p.Cut()
		return p.Join("lobby", fmt.Sprintf(`"since":%q`, since))
	},
	"since of a stream": func(t *testing.T, nd *nodetest.Node, since string) (wire.Frame, []wire.Frame) {
		return listen(t, nd.HTTP("/v1/rooms/lobby/events?since="+since)).resumed()
	},
	// EventSource repeats its address when it comes back: what the address says is older than the header.
	"Last-Event-ID of a stream": func(t *testing.T, nd *nodetest.Node, since string) (wire.Frame, []wire.Frame) {
		return listen(t, nd.HTTP("/v1/rooms/lobby/events?since=0-0"), "Last-Event-ID", since).resumed()
	},
}

// resumed gives the answer to a stream's join, and the messages and gaps up to live.
func (s *stream) resumed() (joined wire.Frame, backlog []wire.Frame) {
	s.t.Helper()
	defer s.body.Close()
	_, joined = s.until("ok")
	for {
		e := s.next()
		f, err := wire.ParseFrame([]byte(e.data))
		if err != nil {
			s.t.Fatal(err)
		}
		switch f.Op {
		case "live":
			return joined, backlog
		case "message":
			if e.id != f.ID.String() {
				s.t.Errorf("the event's id is %q, the message's %v", e.id, f.ID)
			}
			backlog = append(backlog, f)
		case "gap":
			backlog = append(backlog, f)
		}
	}
}

// A comeback is a cursor, and what has to come of it.
type comeback struct {
	name, since string
	recovered   bool
	want        []string
	after       id.ID // the first gap's, where there is one
}

// comesBack tries a comeback over every way on every node.
func comesBack(t *testing.T, nodes []*nodetest.Node, tries []comeback) {
	t.Helper()
	for _, try := range tries {
		for way, resume := range resumes {
			for i, nd := range nodes {
				j, backlog := resume(t, nd, try.since)
				got := texts(backlog)
				if j.Recovered == nil || *j.Recovered != try.recovered || !slices.Equal(got, try.want) {
					t.Errorf("%s, %s, node %d: %v, want recovered %v and %v; %s", try.name, way, i, got, try.recovered, try.want, nodetest.Show(j))
					continue
				}
				if g := slices.Index(got, "gap"); g >= 0 && backlog[g].After != try.after {
					t.Errorf("%s, %s, node %d: a gap after %v, want %v", try.name, way, i, backlog[g].After, try.after)
				}
			}
		}
	}
}

// Nodes of which the first holds the room all the time, and the others ask the log.
func TestAResumeIsWholeOnlyIfNothingIsMissing(t *testing.T) {
	t.Parallel()
	mem := memory.New(bus.Retention{Size: 200})
	c := nodetest.StartOn(t, 2, mem.Open)
	stays := nodetest.Dial(t, c.Nodes[0].URL("/"))
	stays.Join("lobby")
	ids := said(t, &nodetest.Cluster{Nodes: c.Nodes[:1]}, "lobby", numbers(1, 600)...)
	last, oldest := ids[599], ids[400]
	never := func(i id.ID) id.ID { return id.ID{Ms: i.Ms, Seq: i.Seq + 1<<40} } // no message has it
	newest := append([]string{"gap"}, numbers(551, 600)...)
	following := func(i id.ID) []string {
		n := slices.IndexFunc(ids, func(o id.ID) bool { return i.Less(o) })
		if n < 0 { // all that follows has ids of the same millisecond
			return newest
		}
		return append([]string{"gap"}, numbers(n+1, 600)...)
	}
	comesBack(t, c.Nodes, []comeback{
		{"the last one", last.String(), true, nil, id.ID{}},
		{"the one before", ids[598].String(), true, numbers(600, 600), id.ID{}},
		{"from memory", ids[500].String(), true, numbers(502, 600), id.ID{}},
		{"from the log", ids[410].String(), true, numbers(412, 600), id.ID{}},
		{"the one before the log's oldest", ids[399].String(), true, numbers(401, 600), id.ID{}},
		{"older than the log by one", ids[398].String(), false, newest, ids[398]},
		{"much older than the log", ids[0].String(), false, newest, ids[0]},
		{"the beginning", "0-0", false, newest, id.ID{}},
		{"no message's", never(ids[590]).String(), false, following(never(ids[590])), never(ids[590])},
		{"no message's, in the log only", never(oldest).String(), false, following(never(oldest)), never(oldest)},
		{"in the future, by its number", never(last).String(), false, newest, never(last)},
		{"in the future", id.ID{Ms: last.Ms + 1e6}.String(), false, newest, id.ID{Ms: last.Ms + 1e6}},
	})
	stays.SendText("lobby", "goes on")
	for _, since := range []id.ID{ids[0], {Ms: last.Ms + 1e6}} { // who was told of a gap is live afterwards
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Join("lobby", fmt.Sprintf(`"since":%q`, since))
		next := p.SendText("lobby", "and on")
		if m := p.Until("message"); m.ID != next {
			t.Errorf("after %v was resumed from: %s", since, nodetest.Show(m))
		}
	}
}

func TestAnEmptyRoomIsResumedFromItsBeginningOnly(t *testing.T) {
	c := nodetest.Start(t, 1)
	comesBack(t, c.Nodes, []comeback{
		{"the beginning", "0-0", true, nil, id.ID{}},
		{"what there never was", "1-1", false, []string{"gap"}, id.ID{Ms: 1, Seq: 1}},
	})
}

func TestACursorThatIsNoIDIsRefusedOverEveryWay(t *testing.T) {
	c := nodetest.Start(t, 1)
	nd := c.Nodes[0]
	p := nodetest.Dial(t, nd.URL("/"))
	for _, since := range []string{"1", "-", "1-", "-1", "1-2-3", "01-1", "+1-1", "a-b", "1-18446744073709551616", " 1-1"} {
		p.Say(`{"op":"join","room":"lobby","since":%q}`, since)
		p.WantError(wire.BadRequest)
		p.Say(`{"op":"history","room":"lobby","before":%q}`, since)
		p.WantError(wire.BadRequest)
		query := strings.NewReplacer("+", "%2B", " ", "%20").Replace(since)
		for _, path := range []string{"events?since=", "messages?before="} {
			if status, _, body := call(t, "GET", nd.HTTP("/v1/rooms/lobby/"+path+query), ""); status != 400 || body["code"] != "bad_request" {
				t.Errorf("%s%s: %d %v", path, since, status, body)
			}
		}
		if since != " 1-1" { // a header's value has no spaces about it
			if status, _, body := call(t, "GET", nd.HTTP("/v1/rooms/lobby/events"), "", "Last-Event-ID", since); status != 400 {
				t.Errorf("Last-Event-ID %s: %d %v", since, status, body)
			}
		}
	}
	p.Say(`{"op":"send","room":"lobby","text":"x"}`) // none of these was a join
	p.WantError(wire.NotJoined)
}

// loseAfter takes from Redis what follows an id, as a replica does that is promoted without it.
func loseAfter(t *testing.T, redis *bustest.RedisServer, room string, kept id.ID, lost ...id.ID) {
	t.Helper()
	ctx, client := context.Background(), redis.Client()
	for _, i := range lost {
		if n, err := client.XDel(ctx, "parley:{"+room+"}:log", i.String()).Result(); n != 1 {
			t.Fatal(n, err)
		}
	}
	if err := client.Set(ctx, "parley:{"+room+"}:last", kept.String(), 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// A break in the middle of the log. The first node was there, the second comes afterwards, and the third too, with nobody in
// the room so far: it asks the log.
func TestAResumeAcrossABreakIsToldInItsPlace(t *testing.T) {
	t.Parallel()
	c, redis := onRedis(t, 3)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	one := a.SendText("lobby", "one")
	two := a.SendText("lobby", "two")
	three := a.SendText("lobby", "three")
	four := a.SendText("lobby", "four")
	loseAfter(t, redis, "lobby", two, three, four)
	gap := a.Until("gap") // the node notices by itself
	if gap.After != two {
		t.Errorf("told of a gap after %v, want %v", gap.After, two)
	}
	marker := nodetest.Dial(t, c.Nodes[0].URL("/"))
	j, _ := marker.Join("lobby", `"limit":0`) // its last is the break's
	five := a.SendText("lobby", "five")
	heard(t, &nodetest.Cluster{Nodes: c.Nodes[:2]}, "lobby", five)
	after := []string{"gap", "five"}
	comesBack(t, c.Nodes, []comeback{
		{"the beginning", "0-0", false, []string{"one", "two", "gap", "five"}, two},
		{"below the break", one.String(), false, []string{"two", "gap", "five"}, two},
		{"at the break", two.String(), false, after, two},
		{"lost", three.String(), false, after, two},
		{"the last one lost", four.String(), false, after, two},
		{"the break itself", j.Last.String(), true, []string{"five"}, id.ID{}},
		{"after the break", five.String(), true, nil, id.ID{}},
	})

	// History passes over the break, a page at a time too.
	for _, limit := range []int{1, 2, 50} {
		var all []string
		before := ""
		for range 10 {
			_, _, page := call(t, "GET", c.Nodes[1].HTTP(fmt.Sprintf("/v1/rooms/lobby/messages?limit=%d%s", limit, before)), "")
			list, _ := page["messages"].([]any)
			var got []string
			for _, m := range list {
				got = append(got, m.(map[string]any)["text"].(string))
			}
			all = append(got, all...)
			if page["more"] != true {
				break
			}
			if len(list) == 0 {
				t.Errorf("limit %d: an empty page, and more before it", limit)
				break
			}
			before = "&before=" + list[0].(map[string]any)["id"].(string)
		}
		if !slices.Equal(all, []string{"one", "two", "five"}) {
			t.Errorf("history, %d at a time: %v", limit, all)
		}
	}
}

// Whoever comes back with an id that is lost is told of that, and gets all that the log has since, not only the newest.
func TestAllThatFollowsABreakIsServed(t *testing.T) {
	t.Parallel()
	c, redis := onRedis(t, 2)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	one := a.SendText("lobby", "one")
	two := a.SendText("lobby", "two")
	loseAfter(t, redis, "lobby", one, two)
	a.Until("gap")
	want := []string{"gap"}
	var last id.ID
	for i := range 2 * wire.DefaultBacklog {
		want = append(want, fmt.Sprint("new ", i))
		last = a.SendText("lobby", want[len(want)-1])
	}
	heard(t, c, "lobby", last)
	comesBack(t, c.Nodes, []comeback{{"the one lost", two.String(), false, want, one}})
}

// Whoever is too slow for the room when its log breaks has the break before it.
func TestABreakIsToldToThoseWhoAreCatchingUp(t *testing.T) {
	t.Parallel()
	for name, seen := range map[string]int{
		"they are behind the break":     4,
		"they saw what is lost already": -1,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatch()
			c, redis := onRedis(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.QueueBytes = 16 << 10 })
			a := nodetest.Dial(t, c.Nodes[0].URL("/"))
			a.Join("lobby")
			frozen := nodetest.Dial(t, c.Nodes[0].URL("/"))
			frozen.Narrow()
			frozen.Join("lobby")
			pad := strings.Repeat("x", 4000)
			var ids []id.ID
			send := func(pad string) {
				ids = append(ids, a.SendText("lobby", fmt.Sprint(len(ids), " ", pad), fmt.Sprintf(`"key":"%d"`, len(ids))))
			}
			w.overflow(t, func() { send(pad) })
			for range 5 {
				send("")
			}
			n := len(ids)
			keep := n - 3
			if seen < 0 {
				keep = 3 // the queue of the frozen one holds more than these
			}
			loseAfter(t, redis, "lobby", ids[keep-1], ids[keep:]...)
			a.Until("gap")
			last := a.SendText("lobby", "last")
			var got []wire.Frame
			for len(got) == 0 || got[len(got)-1].ID != last {
				if f := frozen.Next(); f.Op == "message" || f.Op == "gap" {
					got = append(got, f)
				}
			}
			next, gaps := 0, 0
			for _, f := range got[:len(got)-1] {
				switch {
				case f.Op == "gap":
					gaps++
					if f.After != ids[keep-1] {
						t.Errorf("a gap after %v, want %v", f.After, ids[keep-1])
					}
				case gaps > 0 || next == n || f.ID != ids[next]:
					t.Fatalf("got %s after %d messages and %d gaps", nodetest.Show(f), next, gaps)
				default:
					next++
				}
			}
			if gaps != 1 || next < keep {
				t.Errorf("%d gaps were told, and %d of %d messages", gaps, next, keep)
			}
		})
	}
}

// A laggard is a bus on which messages arrive late: not before a Sync.
type laggard struct{ bus.Bus }

type lagging struct {
	bus.Sink

	mu   sync.Mutex
	held []bus.Message // guarded by mu, which is held while the sink is called
}

func (b laggard) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	l := &lagging{Sink: sink}
	s, err := b.Bus.Subscribe(ctx, room, l)
	return laggingSubscription{s, l}, err
}

type laggingSubscription struct {
	bus.Subscription
	l *lagging
}

func (s laggingSubscription) Sync(ctx context.Context) error { return s.l.sync(ctx, s.Subscription) }

func (l *lagging) Deliver(m bus.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, m)
}

func (l *lagging) Signal(body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Sink.Signal(body)
}

func (l *lagging) Presence(c bus.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Sink.Presence(c)
}

func (l *lagging) sync(ctx context.Context, s bus.Subscription) error {
	err := s.Sync(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.held {
		l.Sink.Deliver(m)
	}
	l.held = nil
	return err
}

// What was acknowledged before a join was sent is in its backlog, over whichever node it was said and is joined.
func TestWhatWasAcknowledgedOverAnotherNodeComesBeforeLive(t *testing.T) {
	t.Parallel()
	mem := memory.New(bus.Retention{})
	nodes := 0
	c := nodetest.Start(t, 2, func(cfg *node.Config) {
		cfg.Bus = mem.Open(bus.NoObserver{})
		if nodes++; nodes == 2 {
			cfg.Bus = laggard{cfg.Bus}
		}
	})
	sender := nodetest.Dial(t, c.Nodes[0].URL("/"))
	sender.Join("lobby")
	nodetest.Dial(t, c.Nodes[1].URL("/")).Join("lobby")
	for range 3 {
		since := sender.SendText("lobby", "before")
		want := numbers(1, 30)
		for _, text := range want {
			sender.SendText("lobby", text)
		}
		j, backlog := nodetest.Dial(t, c.Nodes[1].URL("/")).Join("lobby", fmt.Sprintf(`"since":%q`, since))
		if got := texts(backlog); !slices.Equal(got, want) || !*j.Recovered {
			t.Errorf("%d of %d came before live: %v", len(got), len(want), got)
		}
	}
}

// A replica without the tail takes over. Whoever had left before the loss, and whoever saw what is lost, comes back to a node whose
// memory knows nothing of the break, but what goes on after it.
func TestNoMemoryHidesABreak(t *testing.T) {
	t.Parallel()
	c, redis := onRedis(t, 2)
	a, b := nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[1].URL("/"))
	a.Join("lobby")
	b.Join("lobby")
	one := a.SendText("lobby", "one")
	kept := a.SendText("lobby", "kept")
	lost := a.SendText("lobby", "lost")
	b.Until("message")
	loseAfter(t, redis, "lobby", kept, lost)
	x := a.SendText("lobby", "from who does not know yet")
	for _, p := range []*nodetest.Peer{a, b} {
		if gap := p.Until("gap"); gap.After != kept {
			t.Errorf("a gap after %v, want %v", gap.After, kept)
		}
	}
	after := []string{"from who does not know yet", "gap", "on"}
	on := a.SendText("lobby", "on")
	heard(t, c, "lobby", on)
	comesBack(t, c.Nodes, []comeback{
		{"before the break", one.String(), false, append([]string{"kept"}, after...), kept},
		{"at the break", kept.String(), false, after, kept},
		{"behind the break, and below its entry", x.String(), false, after[1:], kept},
		{"the newest", on.String(), true, nil, id.ID{}},
	})
}
