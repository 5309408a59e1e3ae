package client

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/node"
	"parley/node/api"
	"parley/node/keys"
	"parley/node/nodetest"
	"parley/node/token"
	"parley/node/wire"
)

const (
	tokenSecret = "the secret of a node under test, of 32"
	appKey      = "the-key-of-an-application-under-test"
)

// startKnowing runs a node that takes tokens, API keys, and guests: who should be somebody could become one.
func startKnowing(t *testing.T) (*nodetest.Node, *api.Client) {
	t.Helper()
	v, err := token.New(t.Context(), token.Config{Secret: []byte(tokenSecret), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Parse("backend " + appKey)
	if err != nil {
		t.Fatal(err)
	}
	n := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Auth, cfg.Apps, cfg.Guests = v, ring, true }).Nodes[0]
	app, err := api.New(n.HTTP(""), appKey, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return n, app
}

// tokenOf is one of ada's: issued so long from now, for so long, in rooms as the claim says.
func tokenOf(t *testing.T, issued, life time.Duration, rooms string) string {
	t.Helper()
	at := time.Now().Add(issued)
	c := token.Claims{Name: "Ada", Rooms: json.RawMessage(rooms)}
	c.Subject, c.IssuedAt, c.ExpiresAt = "ada", jwt.NewNumericDate(at), jwt.NewNumericDate(at.Add(life))
	tok, err := token.Make(c, []byte(tokenSecret))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

const allRooms = `{"*":["*"]}`

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
	n, _ := startKnowing(t)
	for name, c := range map[string]struct {
		token string
		code  wire.Code
		why   string
	}{
		"nobody's": {tokenOf(t, 0, time.Hour, allRooms) + "x", wire.Unauthorized, "not signed with a key"},
		"expired":  {tokenOf(t, -2*time.Hour, time.Hour, allRooms), wire.Expired, "has expired"},
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
			n, app := startKnowing(t)
			first := tokenOf(t, -time.Minute, time.Hour, allRooms)
			if name == "expired" {
				first = tokenOf(t, -time.Hour, time.Hour+3*time.Second, allRooms)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			once, err := Dial(ctx, n.URL("/"), Options{Token: first})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { once.Close() })
			g := &giver{tokens: []string{first, tokenOf(t, 5*time.Second, time.Hour, allRooms)}}
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
	n, _ := startKnowing(t)
	g := &giver{tokens: []string{tokenOf(t, 0, time.Hour, allRooms), tokenOf(t, 1, time.Hour, `{"other":["join"]}`)}}
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
	n, _ := startKnowing(t)
	g := &giver{tokens: []string{tokenOf(t, -time.Hour, time.Hour+4*time.Second, allRooms), tokenOf(t, 1, time.Hour, `{"other":["join"]}`)}}
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
	n, _ := startKnowing(t)
	good := tokenOf(t, 0, time.Hour, allRooms)
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
