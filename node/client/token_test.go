package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"parley/node/wire"
)

// counting gives token-1, token-2 and so on, and notices whether it is asked twice at a time.
type counting struct {
	t     *testing.T
	asked atomic.Int64
	busy  atomic.Bool
	takes time.Duration
	fails func(n int64) error
}

func (k *counting) give(ctx context.Context) (string, error) {
	if k.busy.Swap(true) {
		k.t.Error("it was asked twice at a time")
	}
	defer k.busy.Store(false)
	n := k.asked.Add(1)
	sleep(ctx, k.takes)
	if k.fails != nil {
		if err := k.fails(n); err != nil {
			return "", err
		}
	}
	return fmt.Sprint("token-", n), nil
}

// greet answers the hello of a new connection, with a token that lasts for d.
func greet(fc *fakeConn, d time.Duration) wire.Request {
	fc.say(wire.Welcome{User: wire.User{Guest: true}, Ping: 25})
	hello := fc.want("hello")
	fc.say(wire.Welcome{Req: hello.Req, User: wire.User{ID: "ada"}, Expires: d, Ping: 25})
	return hello
}

// dialAs connects a client whose token lasts for d.
func dialAs(n *fakeNode, k *counting, d time.Duration) (*Client, *fakeConn) {
	n.t.Helper()
	return dialWith(n, n.options(), k, d)
}

func dialWith(n *fakeNode, o Options, k *counting, d time.Duration) (*Client, *fakeConn) {
	n.t.Helper()
	o.TokenFunc = k.give
	done := make(chan *Client)
	go func() {
		c, err := Dial(n.t.Context(), "ws://node", o)
		if err != nil {
			n.t.Error(err)
		}
		done <- c
	}()
	fc := n.next()
	if hello := greet(fc, d); hello.Token != "token-1" {
		n.t.Errorf("it said %q", hello.Token)
	}
	c := <-done
	n.t.Cleanup(func() { c.Close() })
	return c, fc
}

func TestATokenIsRenewedBeforeItExpires(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		k := &counting{t: t, takes: time.Second}
		c, fc := dialAs(n, k, 10*time.Minute)
		began := time.Now()
		go func() { // a node that pings
			for fc.ws.Ping(t.Context()) == nil {
				sleep(t.Context(), 25*time.Second)
			}
		}()
		hello := fc.want("hello")
		if at := time.Since(began); hello.Token != "token-2" || at < 8*time.Minute || at > 10*time.Minute {
			t.Errorf("after %s it said %q", at, hello.Token)
		}
		// A renewal that fails is tried again, and the connection goes on.
		fc.say(wire.Reject{Req: hello.Req, Err: wire.Errorf(wire.Unavailable, "later")})
		if hello = fc.want("hello"); hello.Token != "token-3" {
			t.Errorf("then it said %q", hello.Token)
		}
		fc.say(wire.Welcome{Req: hello.Req, User: wire.User{ID: "ada", Name: "Ada"}, Ping: 25})
		synctest.Wait()
		if u := c.User(); u.Name != "Ada" {
			t.Errorf("it is %+v", u)
		}
		go fc.drain()
		time.Sleep(20 * time.Minute)
		if got := k.asked.Load(); got != 3 || len(n.dialled()) != 1 {
			t.Errorf("a token that never expires was renewed: it was asked %d times, over %d connections", got, len(n.dialled()))
		}
	})
}

// A renewal for which no token comes says nothing to the node, and is tried again, later and later.
func TestARenewalWithoutATokenIsTriedAgain(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		const failures = 6
		var told bytes.Buffer
		var asked []time.Time
		o := n.options()
		o.Log = slog.New(slog.NewTextHandler(&told, nil))
		o.MinBackoff, o.MaxBackoff = 250*time.Millisecond, 2*time.Second
		k := &counting{t: t, fails: func(n int64) error {
			if asked = append(asked, time.Now()); n > 1 && n <= 1+failures {
				return errors.New("the backend is away")
			}
			return nil
		}}
		_, fc := dialWith(n, o, k, 40*time.Second)
		want := fmt.Sprint("token-", failures+2)
		if hello := fc.want("hello"); hello.Token != want || len(n.dialled()) != 1 || !strings.Contains(told.String(), "the backend is away") {
			t.Errorf("it said %q, over %d connections; the log has %q", hello.Token, len(n.dialled()), told.String())
		}
		for i := range failures {
			most := min(2*time.Second, 250*time.Millisecond<<i)
			if waited := asked[i+2].Sub(asked[i+1]); waited < most/2 || waited > most+time.Millisecond {
				t.Errorf("after %d failures it waited %v, want from %v to %v", i+1, waited, most/2, most)
			}
		}
		go fc.drain()
	})
}

// Who is given no token from the beginning is a guest.
func TestAFunctionThatGivesNoTokenMakesAGuest(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		o := n.options()
		o.TokenFunc = func(context.Context) (string, error) { return "", nil }
		c, fc := n.dial(o)
		if !c.User().Guest {
			t.Errorf("it is %+v", c.User())
		}
		fc.cut()
		fc = n.next()
		if hello := fc.welcome(); hello.Token != "" || hello.Session != "secret" {
			t.Errorf("it came back as %+v", hello)
		}
		go fc.drain()
	})
}

// While a machine sleeps timers stand still, and the token's time does not.
func TestATokenIsRenewedAfterASleep(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		var slept atomic.Int64
		k := &counting{t: t}
		o := n.options()
		o.clock = func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }
		_, fc := dialWith(n, o, k, 10*time.Hour)
		began := time.Now()
		synctest.Wait()
		slept.Store(int64(9*time.Hour + 59*time.Minute + 30*time.Second))
		if hello := fc.want("hello"); hello.Token != "token-2" || time.Since(began) > time.Minute {
			t.Errorf("after %s it said %q", time.Since(began), hello.Token)
		}
		go fc.drain()
	})
}

// What is said in somebody's name just when that ends is said over the next connection.
func TestWhatIsSaidWithATokenThatEndsIsSaidWithTheNext(t *testing.T) {
	for _, code := range []wire.Code{wire.Expired, wire.Unauthorized} {
		withFakeNode(t, func(t *testing.T, n *fakeNode) {
			c, fc := dialAs(n, &counting{t: t}, 0)
			r := join(t, c, fc, ID{}, JoinOptions{})
			sent := post(r, "on its way")
			fc.say(wire.Reject{Req: fc.want("send").Req, Err: wire.Errorf(code, "it has ended")})
			fc.say(wire.Bye{Code: wire.StatusNoToken})
			fc.ws.Close(wire.StatusNoToken, "")
			fc.cut()
			fc = n.next()
			greet(fc, 0)
			fc.say(wire.Joined{Req: fc.want("join").Req, Room: "lobby"})
			fc.say(wire.Sent{Req: fc.want("send").Req, ID: ID{Ms: 5}})
			synctest.Wait()
			if got := sent.of("on its way"); got != "5-0" {
				t.Errorf("%s: it got %q", code, got)
			}
			go fc.drain()
		})
	}
}

func TestATokenIsAskedForBeforeEveryConnection(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		k := &counting{t: t, fails: func(n int64) error {
			if n == 2 {
				return errors.New("the backend is away")
			}
			return nil
		}}
		c, fc := dialAs(n, k, 0)
		fc.say(wire.Reject{Err: wire.Errorf(wire.Expired, "it has expired")})
		fc.say(wire.Bye{Code: wire.StatusNoToken})
		fc.ws.Close(wire.StatusNoToken, "")
		fc.cut()
		fc = n.next()
		if hello := greet(fc, 0); hello.Token != "token-3" {
			t.Errorf("it came back with %q", hello.Token)
		}
		synctest.Wait()
		if c.Err() != nil {
			t.Error(c.Err())
		}
		go fc.drain()
	})
}

// A function that takes its time over a renewal is not asked beside that, though the connection is lost meanwhile.
func TestATokenIsNeverAskedForTwiceAtATime(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		const takes = time.Minute
		k := &counting{t: t, fails: func(n int64) error {
			if n == 2 {
				time.Sleep(takes)
			}
			return nil
		}}
		_, fc := dialAs(n, k, 40*time.Second)
		time.Sleep(31 * time.Second) // it is asked for the second
		fc.cut()
		cut := time.Now()
		fc = n.next()
		if waited := time.Since(cut); waited < takes-2*time.Second {
			t.Errorf("it came back after %v", waited)
		}
		if hello := greet(fc, 0); hello.Token != "token-3" {
			t.Errorf("it came back with %q", hello.Token)
		}
		go fc.drain()
	})
}

// A function that is asked for a renewal hears that the connection is lost, and does not hold up the next.
func TestWhoIsAskedForATokenHearsThatTheConnectionIsLost(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		k := &counting{t: t}
		o := n.options()
		var c *Client
		done := make(chan struct{})
		o.TokenFunc = func(ctx context.Context) (string, error) {
			if k.asked.Load() == 1 {
				<-ctx.Done()
			}
			return k.give(ctx)
		}
		go func() {
			c, _ = Dial(t.Context(), "ws://node", o)
			close(done)
		}()
		fc := n.next()
		greet(fc, 40*time.Second)
		<-done
		t.Cleanup(func() { c.Close() })
		time.Sleep(31 * time.Second) // it is asked for the second
		fc.cut()
		cut := time.Now()
		fc = n.next()
		if waited := time.Since(cut); k.asked.Load() != 3 || waited > time.Second {
			t.Errorf("it came back after %v, and has asked %d times", waited, k.asked.Load())
		}
		greet(fc, 0)
		go fc.drain()
	})
}

// A token that is refused again and again is no reason to go on as a guest, or for ever.
func TestATokenThatIsRefusedEndsTheClient(t *testing.T) {
	for name, tries := range map[string]int{"a token": 1, "a function": mostRefused} {
		t.Run(name, func(t *testing.T) {
			withFakeNode(t, func(t *testing.T, n *fakeNode) {
				o := n.options()
				if o.Token = "wrong"; tries > 1 {
					o.TokenFunc = (&counting{t: t}).give
				}
				done := make(chan error)
				go func() {
					_, err := Dial(t.Context(), "ws://node", o)
					done <- err
				}()
				for range tries {
					fc := n.next()
					fc.say(wire.Welcome{User: wire.User{Guest: true}, Ping: 25})
					hello := fc.want("hello")
					if hello.Token == "" {
						t.Error("it said hello as a guest")
					}
					fc.say(wire.Reject{Req: hello.Req, Err: wire.Errorf(wire.Unauthorized, "nobody's")})
					go fc.drain()
				}
				if err := <-done; err == nil || !strings.Contains(err.Error(), "nobody's") {
					t.Errorf("got %v", err)
				}
				if got := len(n.dialled()); got != tries {
					t.Errorf("it tried %d times", got)
				}
			})
		})
	}
}

func TestALeftRoomIsTheClientsNoMore(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		l := &log{}
		r := join(t, c, fc, ID{}, JoinOptions{Handle: l.handle})
		sent := post(r, "on its way")
		fc.want("send")
		fc.say(wire.Left{Room: "lobby", Err: wire.Errorf(wire.Forbidden, "you may not join")})
		synctest.Wait()
		if left, ok := l.events[len(l.events)-1].(Left); !ok || left.Err.Code != wire.Forbidden {
			t.Errorf("got %+v", l.events)
		}
		if got := sent.of("on its way"); !strings.Contains(got, "may not join") {
			t.Errorf("what was on its way got %q", got)
		}
		if _, err := r.Send(t.Context(), "x"); !errors.Is(err, ErrLeft) {
			t.Errorf("then a send got %v", err)
		}
		join(t, c, fc, ID{}, JoinOptions{}) // it may try again
	})
}

// Tokens that are refused now and then, with good connections between, do not add up.
func TestATokenThatIsRefusedNowAndThenEndsNothing(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		o := n.options()
		o.TokenFunc = (&counting{t: t}).give
		c, fc := n.dial(o)
		for range 2 * mostRefused {
			time.Sleep(goodFor + time.Second)
			fc.cut()
			refused := n.next()
			refused.say(wire.Welcome{User: wire.User{Guest: true}, Ping: 25})
			refused.say(wire.Reject{Req: refused.want("hello").Req, Err: wire.Errorf(wire.Unauthorized, "nobody's")})
			go refused.drain()
			fc = n.next()
			fc.welcome()
		}
		synctest.Wait()
		if err := c.Err(); err != nil {
			t.Errorf("it has ended: %v", err)
		}
		go fc.drain()
	})
}

// However long a token takes to come, the connection has its time after that.
func TestASlowTokenLeavesTheConnectionItsTime(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		k := &counting{t: t, takes: connectTimeout - time.Second}
		o := n.options()
		o.TokenFunc = k.give
		done := make(chan *Client)
		go func() {
			c, err := Dial(t.Context(), "ws://node", o)
			if err != nil {
				t.Error(err)
			}
			done <- c
		}()
		fc := n.next()
		time.Sleep(connectTimeout / 2) // a node that is busy
		greet(fc, 0)
		c := <-done
		t.Cleanup(func() { c.Close() })
		if tries := len(n.dialled()); tries != 1 {
			t.Errorf("it took %d connections", tries)
		}
		go fc.drain()
	})
}
