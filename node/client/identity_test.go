package client

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/node/api"
	"parley/node/nodetest"
	"parley/node/wire"
)

// A giver gives tokens one by one, and the last again and again.
type giver struct {
	tokens []string
	asked  atomic.Int64
	lost   chan error // has why each connection was lost
}

func (g *giver) options() Options {
	g.lost = make(chan error, 99)
	return Options{
		MinBackoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond,
		TokenFunc: func(context.Context) (string, error) {
			n := int(g.asked.Add(1)) - 1
			return g.tokens[min(n, len(g.tokens)-1)], nil
		},
		Status: func(s Status) {
			if !s.Up {
				g.lost <- s.Err
			}
		},
	}
}

func (g *giver) dial(t *testing.T, n *nodetest.Node) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := Dial(ctx, n.URL("/"), g.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// soon waits for what a channel has.
func soon[T any](t *testing.T, from <-chan T, what string) (got T) {
	t.Helper()
	select {
	case got = <-from:
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
	}
	return got
}

func wantCode(t *testing.T, err error, code wire.Code, sentence string) {
	t.Helper()
	said, ok := errors.AsType[*wire.Error](err)
	if !ok || said.Code != code || !strings.Contains(err.Error(), sentence) {
		t.Errorf("got %v, want %s with %q", err, code, sentence)
	}
}

// A token that is not good ends the client, which says why.
func TestATokenThatIsNotGoodEndsTheClientWithItsCode(t *testing.T) {
	t.Parallel()
	n, _ := nodetest.StartKnowing(t)
	for name, c := range map[string]struct {
		token string
		code  wire.Code
		why   string
	}{
		"nobody's": {nodetest.Token(t, 0, time.Hour, nodetest.AllRooms) + "x", wire.Unauthorized, "not signed with a key"},
		"expired":  {nodetest.Token(t, -2*time.Hour, time.Hour, nodetest.AllRooms), wire.Expired, "has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := Dial(ctx, n.URL("/"), Options{Token: c.token})
			wantCode(t, err, c.code, c.why)
			g := &giver{tokens: []string{c.token}}
			_, err = Dial(ctx, n.URL("/"), g.options())
			wantCode(t, err, c.code, c.why)
			if asked := g.asked.Load(); asked != mostRefused {
				t.Errorf("it was asked %d times, want %d", asked, mostRefused)
			}
		})
	}
}

// What expires, or is revoked, while one is there ends it; who has a function comes back with the next, and nothing is lost.
func TestWhatEndsATokenIsTold(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		code wire.Code
		why  string
	}{"expired": {wire.Expired, "the token has expired"}, "revoked": {wire.Unauthorized, "this was revoked"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, app := nodetest.StartKnowing(t)
			first := nodetest.Token(t, -time.Minute, time.Hour, nodetest.AllRooms)
			if name == "expired" {
				first = nodetest.Token(t, -time.Hour, time.Hour+3*time.Second, nodetest.AllRooms)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			once, err := Dial(ctx, n.URL("/"), Options{Token: first})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { once.Close() })
			g := &giver{tokens: []string{first, nodetest.Token(t, 5*time.Second, time.Hour, nodetest.AllRooms)}}
			c := g.dial(t, n)
			r, err := c.Join(ctx, "design", JoinOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if name == "revoked" {
				if err := app.Revoke(ctx, "ada", time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
			soon(t, once.Done(), "the end")
			wantCode(t, once.Err(), want.code, want.why)
			for g.asked.Load() < 2 { // says something all the time
				if _, err := r.Send(ctx, "on and on"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := r.Send(ctx, "still here"); err != nil {
				t.Fatal(err)
			}
			if u := c.User(); u.ID != "ada" || u.Guest {
				t.Errorf("it is %+v", u)
			}
		})
	}
}

// A right that was taken away while one was not connected is told as one that is taken away in a room.
func TestARightThatIsGoneAfterABreakIsTold(t *testing.T) {
	t.Parallel()
	n, _ := nodetest.StartKnowing(t)
	g := &giver{tokens: []string{nodetest.Token(t, 0, time.Hour, nodetest.AllRooms), nodetest.Token(t, 1, time.Hour, `{"other":["join"]}`)}}
	c := g.dial(t, n)
	left, joined := make(chan Left, 9), make(chan Joined, 9)
	join := func(name string) *Room {
		r, err := c.Join(t.Context(), name, JoinOptions{Handle: func(e Event) {
			switch e := e.(type) {
			case Left:
				left <- e
			case Joined:
				joined <- e
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		soon(t, joined, "the join")
		return r
	}
	design, _ := join("design"), join("other")
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	l.ws.CloseNow()
	wantCode(t, soon(t, left, "left").Err, wire.Forbidden, `you may not join in the room "design"`)
	soon(t, joined, "the other room")
	if _, err := design.Send(t.Context(), "x"); !errors.Is(err, ErrLeft) {
		t.Errorf("then a send got %v", err)
	}
}

// A right that a renewed token takes away, over the same connection or the next, ends its room.
func TestARightThatARenewalTakesAwayEndsItsRoom(t *testing.T) {
	t.Parallel()
	n, _ := nodetest.StartKnowing(t)
	g := &giver{tokens: []string{nodetest.Token(t, -time.Hour, time.Hour+4*time.Second, nodetest.AllRooms), nodetest.Token(t, 1, time.Hour, `{"other":["join"]}`)}}
	c := g.dial(t, n)
	left := make(chan Left, 1)
	_, err := c.Join(t.Context(), "design", JoinOptions{Handle: func(e Event) {
		if e, is := e.(Left); is {
			left <- e
		}
	}})
	if err != nil { // on a machine so busy that the token was renewed before
		wantCode(t, err, wire.Forbidden, `you may not join in the room "design"`)
		return
	}
	wantCode(t, soon(t, left, "left").Err, wire.Forbidden, `you may not join in the room "design"`)
}

// Nobody who had a token becomes a guest for want of the next.
func TestNobodyBecomesAGuestForWantOfAToken(t *testing.T) {
	t.Parallel()
	n, _ := nodetest.StartKnowing(t)
	good := nodetest.Token(t, 0, time.Hour, nodetest.AllRooms)
	g := &giver{tokens: []string{good, "", good}}
	c := g.dial(t, n)
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	l.ws.CloseNow()
	soon(t, g.lost, "the loss")
	if err := soon(t, g.lost, "the want"); !strings.Contains(err.Error(), "ask for a token: there is none") {
		t.Errorf("got %v", err)
	}
	if _, err := c.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if u := c.User(); u.ID != "ada" || g.asked.Load() != 3 {
		t.Errorf("after %d tokens it is %+v", g.asked.Load(), u)
	}
}

// The keys of what an application says for a user are its own: the same key of the user's names another message, and both are heard.
func TestTheKeysOfAnApplicationMeetNoneOfTheUsers(t *testing.T) {
	t.Parallel()
	n, app := nodetest.StartKnowing(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	g := &giver{tokens: []string{nodetest.Token(t, 0, time.Hour, nodetest.AllRooms)}}
	heard := make(chan string, 9)
	room, err := g.dial(t, n).Join(ctx, "tea", JoinOptions{Handle: func(e Event) {
		if m, ok := e.(Message); ok {
			heard <- m.Text + string(m.Data)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	const key = "order 17"
	if _, err := app.Publish(ctx, "tea", api.Draft{From: &wire.Member{ID: "ada"}, Text: "it is ordered", Key: key}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Draft{{Text: "thanks", Data: []byte("1"), Key: key}, {Text: "that is all"}} {
		if _, err := room.Say(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"it is ordered", "thanks1", "that is all"} {
		if got := soon(t, heard, want); got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
	}
}
