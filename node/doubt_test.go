package node_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// awayFor is a bus that does not answer its first sends, and says so of all of them once it has them.
type awayFor struct {
	bus.Bus
	sends int

	mu   sync.Mutex
	held []func(bus.ID, error)
}

func (b *awayFor) Publish(room string, d bus.Draft, done func(bus.ID, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.held) == b.sends {
		b.Bus.Publish(room, d, done)
		return
	}
	if b.held = append(b.held, done); len(b.held) == b.sends {
		go func() { // in their order, as a bus does
			for _, done := range b.held {
				done(bus.ID{}, bus.ErrUnavailable)
			}
		}()
	}
}

// Where several sends are in doubt the first is waited for: what is behind it must not overtake its repeat.
func TestOfSeveralSendsInDoubtTheFirstIsRepeatedFirst(t *testing.T) {
	t.Parallel()
	const sends = 3
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = &awayFor{Bus: cfg.Bus, sends: sends} })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("tea", `"limit":0`)
	say := func() {
		for i := range sends {
			p.Say(`{"op":"send","req":%d,"room":"tea","text":"text %d","key":"%d"}`, i, i, i)
		}
	}
	say()
	for range sends {
		p.WantError(wire.Unavailable)
	}
	say()
	for i := range sends {
		if m := p.Until("message"); m.Text != fmt.Sprint("text ", i) {
			t.Fatalf("heard %q, want that of %d", m.Text, i)
		}
	}
}

// What a client sent before it had read that its first send is in doubt does not overtake that, however late it reads.
func TestWhatIsSentUnawareOfADoubtDoesNotOvertake(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = &awayFor{Bus: cfg.Bus, sends: 1} })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("tea", `"limit":0`)
	p.Say(`{"op":"send","req":1,"room":"tea","text":"first"}`) // without a key it is waited for a second only
	time.Sleep(1500 * time.Millisecond)                        // and it reads nothing, pings neither
	p.Say(`{"op":"send","req":2,"room":"tea","text":"second"}`)
	for range 2 {
		p.WantError(wire.Unavailable)
	}
	began := time.Now()
	p.SendText("tea", "first", `"key":"again"`)
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("once it had read, it got through after %v", d)
	}
}

// A ping that asks whether the client knows comes after what it is to know.
func TestAPingFollowsARefusal(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = &awayFor{Bus: cfg.Bus, sends: 1} })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var heard []string // owned by Read
	ws, _, err := websocket.Dial(ctx, c.Nodes[0].URL("/"), &websocket.DialOptions{
		Subprotocols: []string{wire.Subprotocol},
		OnPingReceived: func(_ context.Context, payload []byte) bool {
			if len(payload) > 0 { // else it keeps the connection alive
				heard = append(heard, "ping")
			}
			return true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for _, say := range []string{`{"op":"join","room":"tea"}`, `{"op":"send","room":"tea","text":"a","key":"a"}`} {
		if err := ws.Write(ctx, websocket.MessageText, []byte(say)); err != nil {
			t.Fatal(err)
		}
	}
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		f, err := wire.ParseFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, f.Op)
		refused, pinged := slices.Index(heard, "error"), slices.Index(heard, "ping")
		switch {
		case refused < 0:
		case pinged < 0: // it reads on
			ws.Write(ctx, websocket.MessageText, []byte(`{"op":"ping"}`))
		case pinged < refused:
			t.Fatalf("heard %v", heard)
		default:
			return
		}
	}
}

// A page of long messages has as many as fit into an answer, and says that there are more.
func TestAPageIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	const said, most = 60, 80 << 10
	c := nodetest.Start(t, 1)
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("tea", `"limit":0`)
	pad := strings.Repeat("x", 4000)
	for i := range said {
		p.SendText("tea", fmt.Sprint(i, " ", pad))
	}
	p = nodetest.Dial(t, c.Nodes[0].URL("/"))
	left, before := said, ""
	for left > 0 {
		p.Say(`{"op":"history","room":"tea","limit":200%s}`, before)
		text := p.Read()
		page, err := wire.ParseFrame([]byte(text))
		if err != nil || page.Op != "ok" || len(page.Messages) == 0 {
			t.Fatalf("got %.200s", text)
		}
		if len(text) > most {
			t.Errorf("a page has %d bytes, want at most %d", len(text), most)
		}
		for i := range page.Messages {
			m := page.Messages[len(page.Messages)-1-i]
			if left--; !strings.HasPrefix(m.Text, fmt.Sprint(left, " ")) {
				t.Fatalf("%.20q comes before what was said as %d", m.Text, left+1)
			}
		}
		if page.More != (left > 0) {
			t.Errorf("more: %v, with %d left", page.More, left)
		}
		before = fmt.Sprintf(`,"before":%q`, page.Messages[0].ID)
	}
}

// An answer that names its origin is no answer for another.
func TestAnswersToPagesVaryByTheirOrigin(t *testing.T) {
	c := nodetest.Start(t, 1)
	for _, method := range []string{http.MethodGet, http.MethodOptions} {
		_, h, _ := call(t, method, c.Nodes[0].HTTP("/v1/rooms/tea/members"), "", "Origin", "https://a.example")
		if h.Get("Access-Control-Allow-Origin") != "https://a.example" || !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: %v", method, h)
		}
	}
}
