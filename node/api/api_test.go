package api_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"parley/node"
	"parley/node/api"
	"parley/node/keys"
	"parley/node/nodetest"
	"parley/node/wire"
)

var key = strings.Repeat("k", 32)

func start(t *testing.T) (*nodetest.Node, *api.Client) {
	t.Helper()
	n := nodetest.Start(t, 1, func(cfg *node.Config) {
		cfg.Apps, _ = keys.Parse("backend " + key)
	}).Nodes[0]
	c, err := api.New(n.HTTP("/"), key, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return n, c
}

func TestAnApplicationSpeaksReadsAndManages(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, c := start(t)
	const odd = "a/b ?é"
	p := nodetest.Dial(t, n.URL("/"))
	p.Join(odd)
	p.Join("tea")
	first, err := c.Publish(ctx, odd, api.Draft{From: &wire.Member{ID: "bot", Name: "Bot"}, Data: json.RawMessage(`{"a":1}`), Key: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Until("message"); m.ID != first || m.From.Name != "Bot" || string(m.Data) != `{"a":1}` {
		t.Errorf("heard %s", nodetest.Show(m))
	}
	if again, err := c.Publish(ctx, odd, api.Draft{From: &wire.Member{ID: "bot", Name: "Bot"}, Data: json.RawMessage(`{"a":1}`), Key: "1"}); again != first {
		t.Errorf("again it is %s, %v", again, err)
	}
	out, err := c.Broadcast(ctx, []string{odd, "", "tea"}, api.Draft{Text: "all"})
	if err != nil || len(out) != 3 || out[0].Err != nil || out[1].Err == nil || out[1].Err.Code != wire.BadRequest || out[2].ID.IsZero() || out[0].Room != odd || out[1].Room != "" || out[2].Room != "tea" {
		t.Errorf("broadcast: %+v, %v", out, err)
	}
	list, more, err := c.History(ctx, odd, nil, 1)
	if err != nil || len(list) != 1 || list[0].Text != "all" || list[0].From.ID != "backend" || !more {
		t.Errorf("history: %+v, %v, %v", list, more, err)
	}
	if list, more, err = c.History(ctx, odd, &list[0].ID, 10); err != nil || len(list) != 1 || list[0].ID != first || more {
		t.Errorf("before: %+v, %v, %v", list, more, err)
	}
	if who, count, err := c.Members(ctx, "tea"); err != nil || count != 1 || who[0].ID != p.Welcome.User.ID {
		t.Errorf("members: %+v, %d, %v", who, count, err)
	}
	if rooms, err := c.Rooms(ctx); err != nil || !slices.Equal(rooms, []string{odd, "tea"}) {
		t.Errorf("rooms: %v, %v", rooms, err)
	}
	if err := c.Revoke(ctx, "somebody/else", time.Time{}); err != nil {
		t.Error(err)
	}
	if err := c.RevokeToken(ctx, "7"); err != nil {
		t.Error(err)
	}
	if err := c.Disconnect(ctx, p.Welcome.User.ID); err != nil {
		t.Error(err)
	}
	p.WantClose(wire.StatusKicked)
}

func TestWhatIsRefusedIsAnErrorWithItsCode(t *testing.T) {
	t.Parallel()
	n, good := start(t)
	c, err := api.New(n.HTTP(""), "x"+key, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Rooms(t.Context())
	refused := func(err error) {
		t.Helper()
		if bad := (*wire.Error)(nil); !errors.As(err, &bad) || bad.Code != wire.Unauthorized || strings.Contains(err.Error(), key) {
			t.Errorf("a wrong key: %v", err)
		}
	}
	refused(err)
	_, _, err = c.History(t.Context(), "tea", nil, 1)
	refused(err)
	_, _, err = c.Members(t.Context(), "tea")
	refused(err)
	_, err = c.Broadcast(t.Context(), []string{"tea"}, api.Draft{Text: "x"})
	refused(err)
	refused(c.Disconnect(t.Context(), "ada"))
	refused(c.Revoke(t.Context(), "ada", time.Time{}))
	refused(c.RevokeToken(t.Context(), "7"))
	if _, err := good.Publish(t.Context(), "tea", api.Draft{}); err == nil || !strings.Contains(err.Error(), "bad_request") {
		t.Errorf("nothing said: %v", err)
	}
	for _, tt := range [][2]string{{"chat.example.com", key}, {"ftp://x", key}, {"http://", key}, {"http://x:port", key}, {"http://x", ""}, {"http://x", "a\nb"}} {
		if _, err := api.New(tt[0], tt[1], api.Options{}); err == nil {
			t.Errorf("%q is taken", tt)
		}
	}
}

// What is answered 503, or not at all, is asked again with the same key.
func TestWhatMaySucceedIsTriedAgainWithTheSameKey(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	var first atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := r.Header.Get("Idempotency-Key")
		if k == "" || !first.CompareAndSwap(nil, k) && first.Load() != k {
			t.Errorf("the key is %q", k)
		}
		if is := r.Header.Get("Content-Type"); is != "application/json" {
			t.Errorf("the body is %q", is)
		}
		switch tries.Add(1) {
		case 1:
			w.WriteHeader(503)
		case 2:
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(201)
			w.Write([]byte(`{"id":"5-7"}`))
		}
	}))
	defer s.Close()
	away := new(atomic.Bool) // the first time nobody listens
	c, err := api.New(s.URL, key, api.Options{HTTPClient: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !away.Swap(true) {
				return nil, errors.New("connection refused")
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Publish(t.Context(), "tea", api.Draft{Text: "x"}); err != nil || got.String() != "5-7" || tries.Load() != 3 || !away.Load() {
		t.Errorf("got %s, %v after %d tries", got, err, tries.Load())
	}
}

type answers func(*http.Request) *http.Response

// RoundTrip implements http.RoundTripper.
func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

// Who gets no answer comes back later and later, up to a bound, and not all at once.
func TestWhatDoesNotSucceedIsTriedLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last, most := time.Time{}, 250*time.Millisecond
		tries := 0
		c, err := api.New("http://node", key, api.Options{HTTPClient: &http.Client{Transport: answers(func(r *http.Request) *http.Response {
			if now := time.Now(); tries > 0 {
				if waited := now.Sub(last); waited < most/2 || waited > most {
					t.Errorf("before try %d it waited %v, want from %v to %v", tries, waited, most/2, most)
				}
				most = min(2*most, 8*time.Second)
			}
			tries++
			last = time.Now()
			return &http.Response{StatusCode: 503, Request: r, Body: http.NoBody}
		})}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		bad := (*wire.Error)(nil)
		if _, err := c.Rooms(ctx); !errors.As(err, &bad) || bad.Code != wire.Unavailable || tries < 10 {
			t.Errorf("got %v after %d tries", err, tries)
		}
	})
}

// A node that takes what is asked and does not answer is given up after a while, and asked again.
func TestWhatIsNotAnsweredIsAskedAgain(t *testing.T) { // alone, as it takes the place of what all use
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		defer func(was http.RoundTripper) { http.DefaultTransport = was }(http.DefaultTransport)
		http.DefaultTransport = silent{&tries}
		c, err := api.New("http://node", key, api.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.Rooms(ctx); err == nil || tries.Load() < 4 || strings.Contains(err.Error(), "?") {
			t.Errorf("got %v after %d tries", err, tries.Load())
		}
	})
}

type silent struct{ tries *atomic.Int64 }

// RoundTrip implements http.RoundTripper.
func (s silent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.tries.Add(1)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// All rooms are listed, over as many pages as that takes, each after the last room of the one before.
func TestAllRoomsAreListedPageByPage(t *testing.T) {
	t.Parallel()
	pages := map[string]string{
		"":    `{"rooms":["a","b&c"],"more":true}`,
		"b&c": `{"rooms":["d"],"more":true}`,
		"d":   `{"rooms":["e","z"],"more":true}`,
		"z":   `{"rooms":[],"more":true}`, // they have ended meanwhile
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, pages[r.URL.Query().Get("after")])
	}))
	defer s.Close()
	c, err := api.New(s.URL, key, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if rooms, err := c.Rooms(t.Context()); err != nil || !slices.Equal(rooms, []string{"a", "b&c", "d", "e", "z"}) {
		t.Errorf("got %q, %v", rooms, err)
	}
}

// Who is told to wait does so.
func TestWhoIsOverALimitWaitsAsTheNodeAsks(t *testing.T) {
	t.Parallel()
	const wait = 2 * time.Second
	var refused atomic.Pointer[time.Time]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if now := time.Now(); refused.CompareAndSwap(nil, &now) {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(429)
			w.Write([]byte(`{"code":"rate_limited","detail":"too many requests"}`))
			return
		}
		w.Write([]byte(`{"rooms":["tea"]}`))
	}))
	defer s.Close()
	c, err := api.New(s.URL, key, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if rooms, err := c.Rooms(t.Context()); err != nil || len(rooms) != 1 {
		t.Errorf("got %v, %v", rooms, err)
	}
	if took := time.Since(*refused.Load()); took < wait {
		t.Errorf("it came back after %v, and was asked to wait for %v", took, wait)
	}
}

// A proxy says only with the status whether asking again may help.
func TestWhatAProxyRefusesIsAskedAgainOnlyWhereThatMayHelp(t *testing.T) {
	t.Parallel()
	for status, again := range map[int]bool{400: false, 403: false, 404: false, 408: true, 429: true, 500: true, 502: true, 504: true} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			page := "<h1>no</h1>"
			if status%2 == 0 {
				page = `{"message":"no"}`
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var asked atomic.Int64
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) == 1 {
					http.Error(w, page, status)
					return
				}
				w.Write([]byte(`{"rooms":["tea"]}`))
			}))
			defer s.Close()
			c, err := api.New(s.URL, key, api.Options{})
			if err != nil {
				t.Fatal(err)
			}
			rooms, err := c.Rooms(ctx)
			bad := (*wire.Error)(nil)
			switch {
			case again && (err != nil || len(rooms) != 1):
				t.Errorf("got %v, %v", rooms, err)
			case !again && (!errors.As(err, &bad) || bad.Code != wire.BadRequest || asked.Load() != 1):
				t.Errorf("got %v, %v after it was asked %d times", rooms, err, asked.Load())
			}
		})
	}
}

// Who is not trusted will not be later: there is no point in asking again.
func TestACertificateThatIsNotTrustedIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	c, err := api.New(s.URL, key, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Rooms(ctx); !errors.As(err, new(*tls.CertificateVerificationError)) || ctx.Err() != nil {
		t.Errorf("got %v", err)
	}
}

// Of an answer that breaks off nobody knows what it says: what was asked is asked again, with the same key.
func TestAnAnswerThatBreaksOffIsAskedForAgain(t *testing.T) {
	t.Parallel()
	const answer = `{"id":"5-7"}`
	for name, begin := range map[string]func(w http.ResponseWriter){
		"with a length": func(w http.ResponseWriter) { w.Header().Set("Content-Length", strconv.Itoa(len(answer))) },
		"in chunks":     func(http.ResponseWriter) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			asked, keys := new(atomic.Int64), make(chan string, 100)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if keys <- r.Header.Get("Idempotency-Key"); asked.Add(1) > 1 {
					w.Write([]byte(answer))
					return
				}
				begin(w)
				w.Write([]byte(answer[:5]))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}))
			defer s.Close()
			c, err := api.New(s.URL, key, api.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Publish(ctx, "tea", api.Draft{Text: "x"}); err != nil || got.String() != "5-7" {
				t.Errorf("got %s, %v", got, err)
			}
			first, second := <-keys, <-keys
			if len(keys) > 0 || first != second {
				t.Errorf("it was asked %d times, with the keys %q and %q", asked.Load(), first, second)
			}
		})
	}
}

// A redirect may make a GET of a POST (RFC 9110, section 15.4), whose answer would pass for that of what was never said.
func TestARedirectIsFollowedOnlyWhereItAsksTheSame(t *testing.T) {
	t.Parallel()
	for status, follow := range map[int]bool{301: false, 302: false, 303: false, 307: true, 308: true} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			var said atomic.Int64
			mux := http.NewServeMux()
			mux.HandleFunc("/moved/", func(w http.ResponseWriter, r *http.Request) {
				if text, _ := io.ReadAll(r.Body); r.Method == "POST" && strings.Contains(string(text), "hello") {
					said.Add(1)
					w.Write([]byte(`{"id":"5-7"}`))
					return
				}
				w.Write([]byte(`{"rooms":["tea"],"messages":[]}`))
			})
			mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/moved"+r.URL.Path, status) })
			s := httptest.NewServer(mux)
			defer s.Close()
			for name, client := range map[string]*http.Client{
				"ours":              nil,
				"theirs":            {CheckRedirect: func(*http.Request, []*http.Request) error { return nil }},
				"theirs that stays": {CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
			} {
				follow := follow && name != "theirs that stays"
				said.Store(0)
				c, err := api.New(s.URL, key, api.Options{HTTPClient: client})
				if err != nil {
					t.Fatal(err)
				}
				id, err := c.Publish(t.Context(), "tea", api.Draft{Text: "hello"})
				bad := (*wire.Error)(nil)
				switch {
				case follow && (err != nil || id.String() != "5-7" || said.Load() != 1):
					t.Errorf("%s: got %s, %v, said %d times", name, id, err, said.Load())
				case !follow && (!errors.As(err, &bad) || bad.Code != wire.BadRequest || !strings.Contains(bad.Message, "/moved/v1/rooms/tea/messages")):
					t.Errorf("%s: got %s, %v, want to be told where it moved", name, id, err)
				}
				if rooms, err := c.Rooms(t.Context()); (err == nil) != (name != "theirs that stays") || err == nil && len(rooms) != 1 {
					t.Errorf("%s: a GET that is led on got %v, %v", name, rooms, err)
				}
			}
		})
	}
	t.Run("in a circle", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
		}))
		defer s.Close()
		c, err := api.New(s.URL, key, api.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // it is asked again later
		defer cancel()
		if _, err := c.Publish(ctx, "tea", api.Draft{Text: "hello"}); err == nil || asked.Load() > 10 {
			t.Errorf("got %v after %d requests", err, asked.Load())
		}
	})
}

// What no node says, such as the page of a login before the network, is an error: nothing passes for said that has no id, and
// nobody for revoked.
func TestAnAnswerThatNoNodeGivesIsAnError(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{`<html>log in</html>`, ``, `null`, `{}`, `{"id":"0-0"}`, `{"results":[]}`, `{"results":[{"room":"tea","id":"5-7"}]}`, `{"results":[{},{}]}`, `{"results":[{"id":"0-0"},{"id":"5-7"}]}`} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(answer)) }))
			defer s.Close()
			c, err := api.New(s.URL, key, api.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if id, err := c.Publish(t.Context(), "tea", api.Draft{Text: "x"}); err == nil {
				t.Errorf("publish got %s and no error", id)
			}
			if list, err := c.Broadcast(t.Context(), []string{"tea", "milk"}, api.Draft{Text: "x"}); err == nil {
				t.Errorf("broadcast got %v and no error", list)
			}
			for what, err := range map[string]error{
				"disconnect": c.Disconnect(t.Context(), "ada"), "revoke": c.Revoke(t.Context(), "ada", time.Time{}), "revoke a token": c.RevokeToken(t.Context(), "7"),
			} {
				if err == nil {
					t.Errorf("%s got no error", what)
				}
			}
			if json.Valid([]byte(answer)) {
				return
			}
			if rooms, err := c.Rooms(t.Context()); err == nil {
				t.Errorf("the rooms are %v and no error", rooms)
			}
			if list, _, err := c.Members(t.Context(), "tea"); err == nil {
				t.Errorf("the members are %v and no error", list)
			}
			if list, _, err := c.History(t.Context(), "tea", nil, 1); err == nil {
				t.Errorf("the messages are %v and no error", list)
			}
		})
	}
}
