package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// An honestNode keeps a log of the lobby and serves every further connection as a node does.
type honestNode struct {
	mu   sync.Mutex
	log  []wire.Entry // guarded by mu
	away time.Time    // guarded by mu; until then sends are unavailable, without a retry_after. It begins with the first
}

// takes has a message in the log, once for each key, and gives its id. fresh is false for a repeat.
func (h *honestNode) takes(from, text, key string) (e wire.Entry, fresh bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.log, func(e wire.Entry) bool { return e.From.ID == from && e.Key == key && key != "" })
	if i >= 0 {
		return h.log[i], false
	}
	e = wire.Entry{ID: ID{Ms: uint64(10 + len(h.log))}, From: wire.Member{ID: from}, Text: text, Key: key}
	h.log = append(h.log, e)
	return e, true
}

func (h *honestNode) texts() (texts []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.log {
		texts = append(texts, e.Text)
	}
	return texts
}

// run serves what connects until the test ends.
func (h *honestNode) run(ctx context.Context, n *fakeNode) {
	for {
		select {
		case fc := <-n.conns:
			go h.serve(fc.ws)
		case <-ctx.Done():
			return
		}
	}
}

func (h *honestNode) serve(ws *websocket.Conn) {
	say := func(f interface{ Append([]byte) []byte }) {
		ws.Write(context.Background(), websocket.MessageText, f.Append(nil))
	}
	message := func(e wire.Entry) {
		said := wire.Said{Room: "lobby", From: e.From, Text: e.Text, Key: e.Key}
		ws.Write(context.Background(), websocket.MessageText, wire.AppendMessage(nil, e.ID, said.Body()))
	}
	welcome := wire.Welcome{User: wire.User{ID: "me", Guest: true}, Session: "secret", Ping: 25, Limits: wire.LimitsOf(4096, 500)}
	say(welcome)
	for {
		_, b, err := ws.Read(context.Background())
		if err != nil {
			return
		}
		r, bad := wire.Parse(b, 4096)
		switch {
		case bad != nil:
			say(wire.Reject{Req: r.Req, Err: bad})
		case r.Op == "hello":
			welcome.Req = r.Req
			say(welcome)
		case r.Op == "join" && r.Room == "lobby":
			h.mu.Lock()
			log := slices.Clone(h.log)
			h.mu.Unlock()
			j := wire.Joined{Req: r.Req, Room: r.Room, Last: ID{Ms: 1}}
			if len(log) > 0 {
				j.Last = log[len(log)-1].ID
			}
			j.Recovered = new(bool)
			*j.Recovered = true
			say(j)
			for _, e := range log {
				if r.Since != nil && r.Since.Less(e.ID) {
					message(e)
				}
			}
			say(wire.Live{Room: r.Room})
		case r.Op == "join":
			say(wire.Joined{Req: r.Req, Room: r.Room})
		case r.Op == "send":
			h.mu.Lock()
			if h.away.IsZero() {
				h.away = time.Now().Add(50 * time.Millisecond)
			}
			away := time.Now().Before(h.away)
			h.mu.Unlock()
			if away {
				say(wire.Reject{Req: r.Req, Err: &wire.Error{Code: wire.Unavailable}})
				continue
			}
			e, fresh := h.takes("me", r.Text, r.Key)
			if fresh {
				message(e)
			}
			say(wire.Sent{Req: r.Req, ID: e.ID})
		case r.Op == "history":
			say(wire.History{Req: r.Req, Room: r.Room})
		case r.Op == "members":
			say(wire.Members{Req: r.Req, Room: r.Room})
		default:
			say(wire.OK{Req: r.Req})
		}
	}
}

// A stay is a client in the lobby, whose link will be lost.
type stay struct {
	*testing.T
	n    *fakeNode
	c    *Client
	fc   *fakeConn
	r    *Room
	node *honestNode

	posted   []string
	outcomes []*outcomes
	calls    map[string]chan error
}

func (s *stay) post(texts ...string) {
	s.posted = append(s.posted, texts...)
	s.outcomes = append(s.outcomes, post(s.r, texts...))
}

// calls f, which must return once a connection is back.
func (s *stay) call(name string, f func() error) {
	done := make(chan error, 1)
	s.calls[name] = done
	go func() { done <- f() }()
}

// again has the client come back over a new connection.
func (s *stay) again() {
	s.Helper()
	s.fc.cut()
	s.fc = s.n.next()
}

// takes takes a send without an answer.
func (s *stay) takes(r wire.Request) ID {
	e, _ := s.node.takes("me", r.Text, r.Key)
	return e.ID
}

func TestALinkMayBeLostInAnyState(t *testing.T) {
	later := &wire.Error{Code: wire.Unavailable, RetryAfter: time.Hour} // which another link need not wait for
	many := make([]string, window+10)
	for i := range many {
		many[i] = fmt.Sprint("m", i)
	}
	for name, lead := range map[string]func(s *stay){
		"idle":                  func(s *stay) { s.node.takes("you", "x", "") },
		"before the welcome":    func(s *stay) { s.post("a"); s.again() },
		"before hello is asked": func(s *stay) { s.again(); s.fc.say(wire.Welcome{Ping: 25}) },
		"hello unanswered": func(s *stay) {
			s.again()
			s.fc.say(wire.Welcome{Ping: 25})
			s.fc.want("hello")
			s.post("a")
			s.call("join", func() error { _, err := s.c.Join(s.Context(), "other", JoinOptions{}); return err })
			s.call("members", func() error { _, _, err := s.r.Members(s.Context()); return err })
			synctest.Wait()
		},
		"hello refused": func(s *stay) {
			s.again()
			s.fc.say(wire.Reject{Req: s.fc.want("hello").Req, Err: &wire.Error{Code: wire.Unavailable, RetryAfter: time.Second}})
		},
		"join unanswered": func(s *stay) {
			s.again()
			s.fc.welcome()
			s.post("a")
			s.fc.want("join")
		},
		"first join unanswered": func(s *stay) {
			s.call("join", func() error { _, err := s.c.Join(s.Context(), "other", JoinOptions{}); return err })
			s.fc.want("join")
		},
		"first join refused for now": func(s *stay) {
			s.call("join", func() error { _, err := s.c.Join(s.Context(), "other", JoinOptions{}); return err })
			s.fc.say(wire.Reject{Req: s.fc.want("join").Req, Err: later})
			synctest.Wait()
		},
		"join refused for now": func(s *stay) {
			s.again()
			s.fc.welcome()
			s.post("a")
			s.fc.say(wire.Reject{Req: s.fc.want("join").Req, Err: later})
			synctest.Wait()
		},
		"sends on their way": func(s *stay) {
			s.post("a", "b")
			wantSends(s.T, s.fc, "a", "b")
		},
		"sends taken, answers lost": func(s *stay) {
			s.post("a", "b", "c")
			for _, r := range wantSends(s.T, s.fc, "a", "b", "c")[:2] {
				s.takes(r)
			}
		},
		"some sends answered": func(s *stay) {
			s.post("a", "b", "c")
			sends := wantSends(s.T, s.fc, "a", "b", "c")
			s.fc.say(wire.Sent{Req: sends[0].Req, ID: s.takes(sends[0])})
			synctest.Wait()
		},
		"more sends than may be on their way": func(s *stay) {
			s.post(many...)
			wantSends(s.T, s.fc, many[:window]...)
		},
		"sends held, others on their way": func(s *stay) {
			s.post("a", "b")
			s.fc.say(wire.Reject{Req: wantSends(s.T, s.fc, "a", "b")[0].Req, Err: later})
			synctest.Wait()
			s.post("c")
		},
		"sends held, none on its way": func(s *stay) {
			s.post(many...)
			for _, r := range wantSends(s.T, s.fc, many[:window]...) {
				s.fc.say(wire.Reject{Req: r.Req, Err: later})
			}
			synctest.Wait()
		},
		"not joined any more, joining again": func(s *stay) {
			s.post("a", "b")
			s.fc.say(wire.Reject{Req: wantSends(s.T, s.fc, "a", "b")[0].Req, Err: wire.Errorf(wire.NotJoined, "join first")})
			s.fc.want("join")
		},
		"joined again, sends held": func(s *stay) {
			s.post("a")
			s.fc.say(wire.Reject{Req: wantSends(s.T, s.fc, "a")[0].Req, Err: &wire.Error{Code: wire.NotJoined, RetryAfter: time.Hour}})
			s.node.takes("you", "x", "")
			s.fc.joined(ID{Ms: 10})
			s.fc.message("lobby", "you", "", "x", ID{Ms: 10})
			synctest.Wait()
		},
		"in the backlog": func(s *stay) {
			s.again()
			s.fc.welcome()
			for _, text := range []string{"x", "y", "z"} {
				s.node.takes("you", text, "")
			}
			s.fc.joined(ID{Ms: 12})
			s.fc.message("lobby", "you", "", "x", ID{Ms: 10})
			s.post("a")
			wantSends(s.T, s.fc, "a") // while the backlog comes
		},
		"told of a gap": func(s *stay) {
			s.node.takes("you", "x", "")
			s.fc.say(wire.Gap{Room: "lobby", After: ID{Ms: 1}})
			synctest.Wait()
		},
		"leaving": func(s *stay) {
			var other *Room
			done := make(chan error)
			go func() {
				var err error
				other, err = s.c.Join(s.Context(), "other", JoinOptions{})
				done <- err
			}()
			s.fc.joined(ID{})
			if err := <-done; err != nil {
				s.Fatal(err)
			}
			s.call("leave", func() error { return other.Leave(s.Context()) })
			s.fc.want("leave")
		},
		"questions unanswered": func(s *stay) {
			s.call("history", func() error { _, _, err := s.r.History(s.Context(), nil, 1); return err })
			s.fc.want("history")
			s.call("members", func() error { _, _, err := s.r.Members(s.Context()); return err })
			s.fc.want("members")
			s.call("signal", func() error {
				if err := s.r.Signal(s.Context(), "typing", nil); !errors.Is(err, ErrLost) {
					return fmt.Errorf("it returned %w", err)
				}
				return nil
			})
			s.fc.want("signal")
		},
		"question to be asked again": func(s *stay) {
			s.call("history", func() error { _, _, err := s.r.History(s.Context(), nil, 1); return err })
			s.fc.say(wire.Reject{Req: s.fc.want("history").Req, Err: later})
			synctest.Wait()
		},
		"a send given up meanwhile": func(s *stay) {
			ctx, cancel := context.WithCancel(s.Context())
			s.call("say", func() error {
				if _, err := s.r.Say(ctx, Draft{Text: "never mind", Key: "key of never mind"}); !errors.Is(err, context.Canceled) {
					return fmt.Errorf("it returned %w", err)
				}
				return nil
			})
			wantSends(s.T, s.fc, "never mind")
			s.post("a")
			wantSends(s.T, s.fc, "a")
			s.again()
			cancel()
			synctest.Wait()
		},
		"told goodbye": func(s *stay) {
			s.post("a")
			wantSends(s.T, s.fc, "a")
			s.fc.say(wire.Bye{Code: wire.StatusRestart, Reason: "restart", RetryAfter: 5 * time.Second})
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			withFakeNode(t, func(t *testing.T, n *fakeNode) {
				s := &stay{T: t, n: n, node: new(honestNode), calls: map[string]chan error{}}
				s.c, s.fc = n.dial(n.options())
				var l log
				none := 0
				s.r = join(t, s.c, s.fc, ID{Ms: 1}, JoinOptions{Handle: l.handle, Limit: &none})
				s.fc.say(wire.Live{Room: "lobby"})
				l.said()
				lead(s)
				s.fc.cut()
				go s.node.run(t.Context(), n)
				synctest.Wait()
				s.post("last")
				time.Sleep(30 * time.Second) // less than the link's patience, which would hide a send that hangs

				log := s.node.texts()
				for _, text := range s.posted {
					var got string
					for _, o := range s.outcomes {
						got += o.of(text)
					}
					if i := slices.Index(log, text); i < 0 || got != (ID{Ms: uint64(10 + i)}).String() {
						t.Errorf("%q got %q, and is number %d of the log", text, got, i)
					}
				}
				ours := slices.DeleteFunc(slices.Clone(log), func(text string) bool { return strings.Contains("xyz", text) })
				if !slices.Equal(ours, s.posted) {
					t.Errorf("the room has %q, want %q", ours, s.posted)
				}
				heard := strings.Fields(l.said())
				heard = slices.DeleteFunc(heard, func(word string) bool { return word == "live" || word == "gap" })
				if !slices.Equal(heard, log) {
					t.Errorf("heard %q, want %q", heard, log)
				}
				for _, e := range l.events {
					if m, ok := e.(Message); ok && m.Live && m.From.ID == "you" {
						t.Errorf("%s, said while away, is told as new", m.Text)
					}
				}
				for name, done := range s.calls {
					select {
					case err := <-done:
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
					default:
						t.Errorf("%s has not returned", name)
					}
				}
				s.c.mu.Lock()
				if b := &s.r.outbox; len(b.drafts) > 0 || b.open != 0 || b.held || len(s.c.link.waiting) > 0 {
					t.Errorf("left behind: %+v, %d requests", b, len(s.c.link.waiting))
				}
				s.c.mu.Unlock()
			})
		})
	}
}

// backoffs are the waits between what ended each connection, or attempt, and the next attempt.
func backoffs(t *testing.T, n *fakeNode, o Options) (*fakeConn, <-chan time.Duration) {
	waits := make(chan time.Duration, 100)
	o.MinBackoff, o.MaxBackoff = 100*time.Millisecond, 15*time.Second
	o.Status = func(s Status) {
		if !s.Up {
			waits <- s.Retry
		}
	}
	_, fc := n.dial(o)
	return fc, waits
}

// wantBackoff checks the wait after some failures in a row.
func wantBackoff(t *testing.T, waits <-chan time.Duration, failures int) {
	t.Helper()
	most := min(15*time.Second, 100*time.Millisecond<<min(failures, 10))
	if got := <-waits; got < most/2 || got > most {
		t.Errorf("after %d failures in a row it waits %v, want from %v to %v", failures, got, most/2, most)
	}
}

func TestBackoffStartsAnewAfterAGoodConnectionOnly(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		fc, waits := backoffs(t, n, n.options())
		for failures := range 6 { // connections that end at once, which are trouble
			fc.cut()
			wantBackoff(t, waits, failures)
			fc = n.next()
			fc.welcome()
		}
		for range 2 {
			time.Sleep(goodFor + time.Second)
			fc.cut()
			wantBackoff(t, waits, 0)
			fc = n.next()
			fc.welcome()
		}
		time.Sleep(goodFor - time.Second)
		fc.cut()
		wantBackoff(t, waits, 1)
	})
}

func TestBackoffGrowsWhereNodesTakeConnectionsAndSayNothing(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		fc, waits := backoffs(t, n, n.options())
		fc.cut()
		for failures := range 10 {
			wantBackoff(t, waits, failures)
			n.next() // and its attempt times out
		}
		wantBackoff(t, waits, 10)
		n.next().welcome()
		for i, at := range n.dialled()[2:] {
			if took := at.Sub(n.dialled()[i+1]); took < connectTimeout || took > connectTimeout+15*time.Second {
				t.Errorf("attempt %d came %v after the one before, want %v and the backoff", i, took, connectTimeout)
			}
		}
	})
}

func TestWhoIsRefusedForNowWaitsAsTheNodeAsks(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		fc, waits := backoffs(t, n, n.options())
		fc.cut()
		wantBackoff(t, waits, 0)
		fc = n.next()
		fc.say(wire.Reject{Req: fc.want("hello").Req, Err: &wire.Error{Code: wire.RateLimited, RetryAfter: 40 * time.Second}})
		if got := <-waits; got < 40*time.Second || got > 41*time.Second {
			t.Errorf("waits %v, asked for 40 s", got)
		}
		fc = n.next()
		fc.cut()
		wantBackoff(t, waits, 2) // what was asked for is over
		n.next().welcome()
	})
}

// A frame of which no node says the like costs the connection, and not the client its memory.
func TestAFrameIsReadUpToItsBound(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		join(t, c, fc, ID{}, JoinOptions{Handle: l.handle})
		frame := func(size int) []byte {
			b := []byte(`{"op":"live","room":"lobby","filler":"`)
			return append(append(b, bytes.Repeat([]byte("x"), size-len(b)-2)...), `"}`...)
		}
		fc.raw(frame(maxFrame))
		if got := l.said(); got != "live" {
			t.Errorf("heard %q", got)
		}
		go fc.ws.Write(t.Context(), websocket.MessageText, frame(maxFrame+1)) // which nobody reads to its end
		n.next().welcome()
		if got := l.said(); got != "live" {
			t.Errorf("then heard %q", got)
		}
	})
}

func TestARoomsMemoryOfRepeatsIsBounded(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		var l log
		r := join(t, c, fc, ID{}, JoinOptions{Handle: l.handle})
		said := func(i int) { fc.message("lobby", "you", fmt.Sprint("key ", i), fmt.Sprint(i), ID{Ms: uint64(1 + i)}) }
		const all = 3 * recentSize
		for i := range all {
			said(i)
		}
		l.said()
		c.mu.Lock()
		if has := len(r.seen.has); has != recentSize || len(r.seen.ring) != recentSize {
			t.Errorf("%d messages are remembered, and %d in the ring, want %d", has, len(r.seen.ring), recentSize)
		}
		c.mu.Unlock()
		fc.say(wire.Gap{Room: "lobby"}) // the order starts anew
		said(all - recentSize - 1)      // too long ago to be known
		said(all - recentSize + 1)      // the oldest that is known, now
		said(all - 1)
		said(all)
		words := strings.Fields(l.said())
		if got, want := words[all:], []string{"gap", fmt.Sprint(all - recentSize - 1), fmt.Sprint(all)}; !slices.Equal(got, want) {
			t.Errorf("heard %q again, want %q", got, want)
		}
	})
}

func TestCloseEndsEveryCall(t *testing.T) {
	for name, lead := range map[string]func(n *fakeNode, fc *fakeConn){
		"connected": func(_ *fakeNode, fc *fakeConn) { go fc.drain() },
		"connected to who does not answer the close": func(*fakeNode, *fakeConn) {},
		"away":            func(n *fakeNode, fc *fakeConn) { n.set(func() { n.away = true }); fc.cut() },
		"connecting":      func(n *fakeNode, fc *fakeConn) { fc.cut(); n.next() },
		"refused for now": func(*fakeNode, *fakeConn) {},
	} {
		t.Run(name, func(t *testing.T) {
			withFakeNode(t, func(t *testing.T, n *fakeNode) {
				c, fc := n.dial(n.options())
				r := join(t, c, fc, ID{}, JoinOptions{})
				calls := map[string]func() error{
					"join":    func() error { _, err := c.Join(context.Background(), "other", JoinOptions{}); return err },
					"send":    func() error { _, err := r.Send(context.Background(), "a"); return err },
					"history": func() error { _, _, err := r.History(context.Background(), nil, 1); return err },
					"members": func() error { _, _, err := r.Members(context.Background()); return err },
					"signal":  func() error { return r.Signal(context.Background(), "typing", nil) },
				}
				ended := make(map[string]chan error)
				for what, call := range calls {
					done := make(chan error, 1)
					ended[what] = done
					go func() { done <- call() }()
					if name == "refused for now" {
						fc.say(wire.Reject{Req: fc.want(what).Req, Err: &wire.Error{Code: wire.Unavailable, RetryAfter: time.Hour}})
					}
				}
				synctest.Wait()
				lead(n, fc)
				synctest.Wait()
				began := time.Now()
				c.Close()
				select {
				case <-c.Done():
				default:
					t.Error("Close returned before the end")
				}
				synctest.Wait()
				for what, done := range ended {
					select {
					case err := <-done:
						lost := what == "signal" && (errors.Is(err, ErrLost) || errors.As(err, new(*wire.Error)))
						if !errors.Is(err, ErrClosed) && !lost {
							t.Errorf("%s: %v", what, err)
						}
					default:
						t.Errorf("%s has not returned", what)
					}
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

func TestAWindowThatWasRefusedIsSentAgainWhole(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		texts := make([]string, 2*window)
		for i := range texts {
			texts[i] = fmt.Sprint(i)
		}
		o := post(r, texts...)
		sends := wantSends(t, fc, texts[:window]...)
		for _, after := range []time.Duration{10 * time.Second, 0, 0} { // what one refusal asks for is not for the next
			began := time.Now()
			for _, s := range sends {
				fc.say(wire.Reject{Req: s.Req, Err: &wire.Error{Code: wire.Unavailable, RetryAfter: after}})
			}
			sends = wantSends(t, fc, texts[:window]...)
			if waited := time.Since(began); waited < after || waited > after+time.Second {
				t.Errorf("waited %v, asked for %v", waited, after)
			}
		}
		for i := range texts {
			fc.say(wire.Sent{Req: sends[i].Req, ID: ID{Ms: uint64(i)}})
			if i+window < len(texts) {
				sends = append(sends, wantSends(t, fc, texts[i+window])...)
			}
		}
		for i, text := range texts {
			if got := o.of(text); got != fmt.Sprintf("%d-0", i) {
				t.Errorf("%s got %s", text, got)
			}
		}
	})
}
