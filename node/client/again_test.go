package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// Sends that their callers give up hold no place in the window any more.
func TestSendsThatAreGivenUpLetOthersGo(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		var given sync.WaitGroup
		var texts []string
		for i := range window {
			text := fmt.Sprint(i)
			texts = append(texts, text)
			given.Go(func() {
				if _, err := r.Say(ctx, Draft{Text: text, Key: "key of " + text}); !errors.Is(err, context.Canceled) {
					t.Errorf("%s got %v", text, err)
				}
			})
			synctest.Wait()
		}
		wantSends(t, fc, texts...)
		o := post(r, "behind")
		cancel()
		given.Wait()
		s := wantSends(t, fc, "behind")
		fc.say(wire.Sent{Req: s[0].Req, ID: ID{Ms: 4}})
		if o.of("behind") != "4-0" {
			t.Errorf("got %v", o.results)
		}
	})
}

// A question that can't be answered now is asked again when the node says, not before.
func TestAQuestionIsAskedAgainWhenTheNodeSays(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		answered := make(chan error)
		go func() {
			_, _, err := r.Members(t.Context())
			answered <- err
		}()
		const after = 10 * time.Second
		asked := fc.want("members")
		said := time.Now()
		fc.say(wire.Reject{Req: asked.Req, Err: &wire.Error{Code: wire.RateLimited, Message: "slowly", RetryAfter: after}})
		asked = fc.want("members")
		if waited := time.Since(said); waited < after || waited > after+time.Second {
			t.Errorf("asked again after %v, was told %v", waited, after)
		}
		fc.say(wire.Members{Req: asked.Req, Room: "lobby"})
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}

// What is refused for good is not asked again. A new name that can't be taken now is asked for again.
func TestOnlyWhatMayYetSucceedIsAskedAgain(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		told := make(chan error, 1)
		for op, ask := range map[string]func() error{
			"history": func() error { _, _, err := r.History(ctx, nil, 1); return err },
			"members": func() error { _, _, err := r.Members(ctx); return err },
			"hello":   func() error { return c.Rename(ctx, "Ann") },
		} {
			for _, code := range []wire.Code{wire.Forbidden, wire.Expired, wire.Unauthorized} { // of a token that is the only one
				go func() { told <- ask() }()
				fc.say(wire.Reject{Req: fc.want(op).Req, Err: wire.Errorf(code, "not you")})
				if bad, ok := errors.AsType[*wire.Error](<-told); !ok || bad.Code != code {
					t.Errorf("%s that is refused as %s got %v", op, code, bad)
				}
			}
		}
		go func() { told <- c.Rename(ctx, "Bea") }()
		fc.say(wire.Reject{Req: fc.want("hello").Req, Err: &wire.Error{Code: wire.Unavailable}})
		again := fc.want("hello")
		fc.say(wire.Welcome{Req: again.Req, User: wire.User{ID: "me", Name: again.Name, Guest: true}, Session: "secret", Ping: 25})
		if err := <-told; err != nil || c.User().Name != "Bea" {
			t.Errorf("it is called %q, %v", c.User().Name, err)
		}
	})
}

// Who asks waits no longer than its context, whatever it waits for.
func TestAQuestionReturnsWithItsContext(t *testing.T) {
	for name, lead := range map[string]func(n *fakeNode, fc *fakeConn){
		"an answer":    func(_ *fakeNode, fc *fakeConn) { fc.want("members") },
		"a connection": func(n *fakeNode, fc *fakeConn) { n.set(func() { n.away = true }); fc.cut() },
		"another attempt": func(_ *fakeNode, fc *fakeConn) {
			fc.say(wire.Reject{Req: fc.want("members").Req, Err: &wire.Error{Code: wire.Unavailable, RetryAfter: time.Hour}})
		},
	} {
		withFakeNode(t, func(t *testing.T, n *fakeNode) {
			c, fc := n.dial(n.options())
			r := join(t, c, fc, ID{}, JoinOptions{})
			ctx, cancel := context.WithCancel(t.Context())
			told := make(chan error, 1)
			if name == "a connection" {
				lead(n, fc)
				synctest.Wait()
			}
			go func() { told <- func() error { _, _, err := r.Members(ctx); return err }() }()
			if name != "a connection" {
				lead(n, fc)
			}
			synctest.Wait()
			cancel()
			synctest.Wait()
			select {
			case err := <-told:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("who waits for %s got %v", name, err)
				}
			default:
				t.Errorf("who waits for %s waits on", name)
			}
		})
	}
}

// A signal that can't be told now would come too late: who sends it hears so, and it is not repeated.
func TestASignalThatIsRefusedForNowIsNotRepeated(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		told := make(chan error)
		go func() { told <- r.Signal(t.Context(), "typing", nil) }()
		fc.say(wire.Reject{Req: fc.want("signal").Req, Err: &wire.Error{Code: wire.RateLimited, RetryAfter: time.Second}})
		if bad, ok := errors.AsType[*wire.Error](<-told); !ok || bad.Code != wire.RateLimited {
			t.Errorf("got %v", bad)
		}
		time.Sleep(10 * time.Second)
		go r.Members(t.Context())
		fc.say(wire.Members{Req: fc.want("members").Req, Room: "lobby"})
	})
}

// What is asked with a token just when that ends is asked over the next connection. A new name that is refused so is not: the next token
// may be of another.
func TestWhatIsAskedWithATokenThatEndsIsAskedWithTheNext(t *testing.T) {
	for _, code := range []wire.Code{wire.Expired, wire.Unauthorized} {
		withFakeNode(t, func(t *testing.T, n *fakeNode) {
			c, fc := dialAs(n, &counting{t: t}, 0)
			r := join(t, c, fc, ID{}, JoinOptions{})
			asked := make(chan error, 1)
			go func() {
				_, count, err := r.Members(t.Context())
				if err == nil && count != 7 {
					err = fmt.Errorf("it counted %d", count)
				}
				asked <- err
			}()
			fc.say(wire.Reject{Req: fc.want("members").Req, Err: wire.Errorf(code, "it has ended")})
			named := make(chan error)
			go func() { named <- c.Rename(t.Context(), "Ada") }()
			fc.say(wire.Reject{Req: fc.want("hello").Req, Err: wire.Errorf(code, "it has ended")})
			if bad, ok := errors.AsType[*wire.Error](<-named); !ok || bad.Code != code {
				t.Errorf("the name got %v", bad)
			}
			fc.cut()
			fc = n.next()
			greet(fc, 0)
			reqs := []wire.Request{fc.want("join"), fc.want("members")}
			fc.say(wire.Joined{Req: reqs[0].Req, Room: "lobby"})
			fc.say(wire.Members{Req: reqs[1].Req, Room: "lobby", Count: 7})
			if err := <-asked; err != nil {
				t.Error(err)
			}
			go fc.drain()
		})
	}
}

// A handshake that is refused for now is tried again when the node, or what is before it, says.
func TestAHandshakeRefusedForNowIsTriedAgain(t *testing.T) {
	for _, status := range []int{
		http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			withFakeNode(t, func(t *testing.T, n *fakeNode) {
				const after = 7 * time.Second
				n.set(func() {
					n.refuse = func(w http.ResponseWriter) {
						n.set(func() { n.refuse = nil })
						w.Header().Set("Retry-After", "7")
						http.Error(w, "not now", status)
					}
				})
				began := time.Now()
				n.dial(n.options())
				if waited := time.Since(began); waited < after || waited > after+time.Second {
					t.Errorf("came back after %v, was told %v", waited, after)
				}
			})
		})
	}
}

// Close says goodbye, so that the node knows it from a loss.
func TestCloseSaysGoodbye(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		closed := make(chan struct{})
		go func() {
			c.Close()
			close(closed)
		}()
		_, _, err := fc.ws.Read(t.Context())
		if code := websocket.CloseStatus(err); code != websocket.StatusNormalClosure {
			t.Errorf("closed with %d: %v", code, err)
		}
		<-closed
	})
}

// What would be too large for the node with all that is added to it is refused, and does not cost the connection.
func TestSendsUpToTheLargestLeaveTheConnection(t *testing.T) {
	c, err := Dial(t.Context(), "ws://"+startNodes(t, 1)[0], Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Join(t.Context(), "lobby", JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sent, refused := 0, 0
	empty := wire.Request{Op: "send", Room: "lobby", Key: "12345", Data: []byte(`""`)}
	for size := wire.MaxFrame - 60; size <= wire.MaxFrame+1; size++ {
		data := `"` + strings.Repeat("x", size-len(empty.Append(nil))) + `"`
		_, err := r.Say(t.Context(), Draft{Data: json.RawMessage(data), Key: fmt.Sprint(size)})
		switch bad, ok := errors.AsType[*wire.Error](err); {
		case err == nil && refused == 0:
			sent++
		case ok && bad.Code == wire.TooLarge:
			refused++
		default:
			t.Fatalf("%d bytes: %v, after %d that were refused", size, err, refused)
		}
	}
	if sent == 0 || refused == 0 || c.Err() != nil {
		t.Errorf("%d were sent, %d refused; the client: %v", sent, refused, c.Err())
	}
}

// Who gives a send up while sends are held leaves the wait as it is: what comes after it is as long as the node says.
func TestWhoGivesUpASendThatIsHeldShortensNoWait(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		o := post(r, "a")
		slowly := func(after time.Duration) (asked time.Time) {
			fc.say(wire.Reject{Req: wantSends(t, fc, "a")[0].Req, Err: &wire.Error{Code: wire.RateLimited, RetryAfter: after}})
			synctest.Wait()
			return time.Now()
		}
		slowly(10 * time.Second)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if _, err := r.Say(ctx, Draft{Text: "b"}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("b got %v", err)
			}
			cancel()
		}
		asked := slowly(20 * time.Second)
		again := wantSends(t, fc, "a")[0]
		if waited := time.Since(asked); waited < 20*time.Second || waited > 21*time.Second {
			t.Errorf("sent again after %v, was told 20 s", waited)
		}
		fc.say(wire.Sent{Req: again.Req, ID: ID{Ms: 4}})
		if o.of("a") != "4-0" {
			t.Errorf("got %v", o.results)
		}
	})
}

// Sends go on only once all that were on their way are answered: what was refused first is in front again.
func TestSendsThatWereRefusedWaitForThoseOnTheirWay(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		o := post(r, "a", "b")
		sends := wantSends(t, fc, "a", "b")
		fc.say(wire.Reject{Req: sends[0].Req, Err: &wire.Error{Code: wire.Unavailable}})
		time.Sleep(30 * time.Second)
		began := time.Now()
		fc.say(wire.Reject{Req: sends[1].Req, Err: &wire.Error{Code: wire.Unavailable, RetryAfter: 10 * time.Second}})
		for i, s := range wantSends(t, fc, "a", "b") {
			fc.say(wire.Sent{Req: s.Req, ID: ID{Ms: uint64(i)}})
		}
		if waited := time.Since(began); waited < 10*time.Second || o.of("a") != "0-0" || o.of("b") != "1-0" {
			t.Errorf("sent again after %v, got %v", waited, o.results)
		}
	})
}

// Who gives a send up that was refused, or that is answered later, holds up nobody and is told once.
func TestASendThatIsGivenUpIsToldOnce(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		for _, text := range []string{"a", "b"} {
			go func() {
				errs <- func() error { _, err := r.Say(ctx, Draft{Text: text, Key: "key of " + text}); return err }()
			}()
			synctest.Wait()
		}
		sends := wantSends(t, fc, "a", "b")
		fc.say(wire.Reject{Req: sends[0].Req, Err: &wire.Error{Code: wire.Unavailable, RetryAfter: 10 * time.Second}})
		synctest.Wait()
		o := post(r, "c")
		cancel()
		for range sends {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		fc.say(wire.Sent{Req: sends[1].Req, ID: ID{Ms: 1}})
		fc.say(wire.Sent{Req: wantSends(t, fc, "c")[0].Req, ID: ID{Ms: 2}})
		if o.of("c") != "2-0" {
			t.Errorf("got %v", o.results)
		}
	})
}

// Who gives a send up just as it is settled is told what it was settled with, and never that it was acknowledged.
func TestASendThatIsGivenUpAsItIsSettledIsToldHow(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		before := make(chan struct{})
		r.SendAsync(Draft{Text: "a"}, func(ID, error) { <-before })
		fc.want("send")
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan error, 1)
		go func() { told <- func() error { _, err := r.Send(ctx, "b"); return err }() }()
		fc.want("send")
		go fc.drain()
		go c.Close() // settles a, then b
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(before)
		if err := <-told; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// A room is asked for once over each connection, however long it takes, and no more once it is left.
func TestARoomIsAskedForOnceOverAConnection(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		later := &wire.Error{Code: wire.Unavailable, RetryAfter: 10 * time.Second}
		quiet := func() { // nothing is asked for now, but for what this asks itself
			t.Helper()
			time.Sleep(30 * time.Second)
			go c.ask(t.Context(), wire.Request{Op: "ping"})
			fc.say(wire.OK{Req: fc.want("ping").Req})
		}
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		limit := 7
		join := func(ctx context.Context) { _, err := c.Join(ctx, "lobby", JoinOptions{Limit: &limit}); errs <- err }
		go join(ctx)
		j := fc.want("join")
		if j.Limit == nil || *j.Limit != limit || j.Since != nil {
			t.Errorf("asked for %v messages since %v", j.Limit, j.Since)
		}
		fc.say(wire.Reject{Req: j.Req, Err: later})
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		fc.say(wire.OK{Req: fc.want("leave").Req})
		quiet()

		go join(t.Context())
		fc.say(wire.Reject{Req: fc.want("join").Req, Err: later})
		synctest.Wait()
		fc.cut()
		fc = n.next()
		fc.welcome()
		j = fc.want("join")
		quiet()
		fc.say(wire.Joined{Req: j.Req, Room: "lobby"})
		if err := <-errs; err != nil {
			t.Error(err)
		}
	})
}

// Nothing is said in a room before the node has let one in.
func TestSendsWaitForTheRoom(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		fc.cut()
		fc = n.next()
		fc.welcome()
		j := fc.want("join")
		o := post(r, "a")
		go c.ask(t.Context(), wire.Request{Op: "ping"}) // comes first
		fc.say(wire.OK{Req: fc.want("ping").Req})
		fc.say(wire.Joined{Req: j.Req, Room: "lobby"})
		fc.say(wire.Sent{Req: wantSends(t, fc, "a")[0].Req, ID: ID{Ms: 1}})
		if o.of("a") != "1-0" {
			t.Errorf("got %v", o.results)
		}
	})
}

// A room that is left while there is no connection is not asked for over the next.
func TestARoomMayBeLeftWhileThereIsNoConnection(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		r := join(t, c, fc, ID{}, JoinOptions{})
		n.set(func() { n.away = true })
		fc.cut()
		synctest.Wait()
		if err := r.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		n.set(func() { n.away = false })
		fc = n.next()
		fc.welcome()
		go c.ask(t.Context(), wire.Request{Op: "ping"})
		fc.say(wire.OK{Req: fc.want("ping").Req})
	})
}
