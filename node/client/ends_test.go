package client

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"

	"parley/node/wire"
)

func TestWhatIsRefusedForGoodEndsTheClient(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		n.set(func() {
			n.refuse = func(w http.ResponseWriter) { http.Error(w, "the origin is not allowed\n", http.StatusForbidden) }
		})
		if _, err := Dial(t.Context(), "ws://node", n.options()); err == nil || !strings.Contains(err.Error(), "403 Forbidden: the origin is not allowed") {
			t.Errorf("got %v", err)
		}
		n.set(func() { n.refuse = nil })

		errs := make(chan error)
		for _, code := range []wire.Code{wire.Unauthorized, wire.BadRequest, wire.Forbidden} {
			go func() {
				_, err := Dial(t.Context(), "ws://node", n.options())
				errs <- err
			}()
			fc := n.next()
			h := fc.want("hello")
			fc.say(wire.Reject{Req: h.Req, Err: wire.Errorf(code, "not you")})
			if e, ok := errors.AsType[*wire.Error](<-errs); !ok || e.Code != code {
				t.Errorf("got %v", e)
			}
		}

		var last Status
		options := n.options()
		options.Status = func(s Status) { last = s }
		c, fc := n.dial(options)
		r := join(t, c, fc, ID{}, JoinOptions{})
		o := post(r, "a")
		wantSends(t, fc, "a")
		go fc.ws.Close(wire.StatusKicked, "banned")
		<-c.Done()
		if last.Up || last.Retry != 0 || last.Err != c.Err() {
			t.Errorf("last it was told %+v", last)
		}
		if err := c.Err(); err == nil || !strings.Contains(err.Error(), "4403 banned") {
			t.Errorf("ended with %v", err)
		}
		if !strings.Contains(o.of("a"), "4403") {
			t.Errorf("got %v", o.results)
		}
		if _, err := r.Send(t.Context(), "x"); err != c.Err() {
			t.Errorf("a send after the end got %v", err)
		}
		if _, _, err := r.Members(t.Context()); err != c.Err() {
			t.Errorf("a question after the end got %v", err)
		}
		if c.Close(); !strings.Contains(c.Err().Error(), "4403") {
			t.Errorf("once it is closed too, it has ended with %v", c.Err())
		}
		for _, url := range []string{"", "host:80", "ftp://host", "ws://", ":"} {
			if _, err := Dial(t.Context(), url, Options{}); err == nil {
				t.Errorf("Dial(%q) is no error", url)
			}
		}
	})
}

// A goodbye says what the close does that may be lost behind it.
func TestAGoodbyeForGoodEndsTheClientWithoutAClose(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		c, fc := n.dial(n.options())
		fc.say(wire.Bye{Code: wire.StatusKicked, Reason: "banned"})
		synctest.Wait()
		fc.cut()
		<-c.Done()
		if err := c.Err(); err == nil || !strings.Contains(err.Error(), "4403 banned") {
			t.Errorf("ended with %v", err)
		}
	})
}

// What the node complains of before it ends a connection for good is why; before a mere loss it is not.
func TestWhatANodeComplainsOfIsWhyItEndsAConnection(t *testing.T) {
	withFakeNode(t, func(t *testing.T, n *fakeNode) {
		for code, why := range map[int]*wire.Error{
			wire.StatusKicked:  wire.Errorf(wire.Forbidden, "the operator has disconnected you"),
			wire.StatusNoToken: wire.Errorf(wire.Expired, "the token has expired"),
			wire.StatusRestart: nil,
		} {
			dials := len(n.dialled())
			o := n.options()
			o.Token = "the only one"
			lost := make(chan error, 9)
			o.Status = func(s Status) {
				if !s.Up {
					lost <- s.Err
				}
			}
			c, fc := n.dial(o)
			complaint := cmp.Or(why, wire.Errorf(wire.BadRequest, "whose?"))
			fc.say(wire.Reject{Err: complaint})
			fc.say(wire.Bye{Code: code, Reason: "goodbye"})
			synctest.Wait()
			fc.cut()
			if said, ok := errors.AsType[*wire.Error](<-lost); ok != (why != nil) || ok && *said != *why {
				t.Errorf("%d: it ended with %v, want %v", code, said, why)
			}
			if why == nil {
				n.next().welcome()
				continue
			}
			if <-c.Done(); len(n.dialled()) != dials+1 {
				t.Errorf("%d: it came back", code)
			}
		}
	})
}

// What is added to the handshake reaches who answers it.
func TestAHandshakeHasTheHeaderThatOptionsSay(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, r.Header.Get("X-Team"), http.StatusForbidden)
	}))
	defer s.Close()
	_, err := Dial(t.Context(), s.URL, Options{Header: http.Header{"X-Team": {"tea"}}})
	if err == nil || !strings.HasSuffix(err.Error(), ": tea") {
		t.Errorf("got %v", err)
	}
}

// What is no node, or not the one that it should be, will be none later.
func TestWhoIsNoNodeIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := websocket.Accept(w, r, nil); err == nil {
			ws.Read(r.Context())
			ws.CloseNow()
		}
	})
	other, stranger := httptest.NewServer(h), httptest.NewUnstartedServer(h)
	stranger.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	stranger.StartTLS()
	defer other.Close()
	defer stranger.Close()
	for url, says := range map[string]string{other.URL: "it does not speak " + wire.Subprotocol, stranger.URL: "failed to verify certificate"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := Dial(ctx, url, Options{}); err == nil || !strings.Contains(err.Error(), says) || ctx.Err() != nil {
			t.Errorf("got %v, want that %s", err, says)
		}
	}
}
