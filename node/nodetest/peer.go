package nodetest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/bus/id"
	"parley/node/wire"
)

// patience is how long a Peer waits for what has to come.
const patience = time.Minute

// A Peer is a client that does only what the test says. It reads nothing by itself: between two calls it is frozen.
type Peer struct {
	t  testing.TB
	WS *websocket.Conn
	nc net.Conn

	Welcome wire.Frame // of a JSON peer
}

// Dial connects a peer that speaks parley.v1, and reads its welcome.
func Dial(t testing.TB, url string) *Peer {
	t.Helper()
	p := dial(t, url, wire.Subprotocol)
	p.Welcome = p.Want("welcome")
	return p
}

// DialPlain connects a peer that speaks plain text.
func DialPlain(t testing.TB, url string) *Peer {
	t.Helper()
	return dial(t, url)
}

func dial(t testing.TB, url string, subprotocols ...string) *Peer {
	t.Helper()
	p := &Peer{t: t}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		p.nc = nc
		return nc, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport},
		Subprotocols: subprotocols,
	})
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	ws.SetReadLimit(-1)
	p.WS = ws
	t.Cleanup(p.Cut)
	return p
}

// Narrow makes the peer's receive buffer small, so that it is soon full when the peer does not read.
func (p *Peer) Narrow() { p.nc.(*net.TCPConn).SetReadBuffer(64 << 10) }

// Cut drops the connection without a close.
func (p *Peer) Cut() { p.nc.Close(); p.WS.CloseNow() }

// Say sends a text message.
func (p *Peer) Say(format string, args ...any) {
	p.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	p.Write(websocket.MessageText, []byte(format))
}

// Write sends a message.
func (p *Peer) Write(kind websocket.MessageType, b []byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.WS.Write(ctx, kind, b); err != nil {
		p.t.Fatalf("send %.80q: %v", b, err)
	}
}

// Read gives the next text message.
func (p *Peer) Read() string {
	p.t.Helper()
	text, err := p.read()
	if err != nil {
		p.t.Fatalf("waiting for a message: %v", err)
	}
	return text
}

func (p *Peer) read() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := p.WS.Read(ctx)
	return string(b), err
}

// Next gives the next frame.
func (p *Peer) Next() wire.Frame {
	p.t.Helper()
	text := p.Read()
	f, err := wire.ParseFrame([]byte(text))
	if err != nil {
		p.t.Fatalf("%v: %s", err, text)
	}
	return f
}

// Want gives the next frame, which has to be of that op.
func (p *Peer) Want(op string) wire.Frame {
	p.t.Helper()
	f := p.Next()
	if f.Op != op {
		p.t.Fatalf("got %s, want %s", Show(f), op)
	}
	return f
}

// Until gives the next frame of that op, passing over others, but not over errors.
func (p *Peer) Until(op string) wire.Frame {
	p.t.Helper()
	for {
		f := p.Next()
		if f.Op == op {
			return f
		}
		if f.Op == "error" || f.Op == "bye" {
			p.t.Fatalf("got %s, want %s", Show(f), op)
		}
	}
}

// WantError gives the next frame but for presence, which has to be an error of that code.
func (p *Peer) WantError(code wire.Code) *wire.Error {
	p.t.Helper()
	f := p.Next()
	for f.Op == "presence" {
		f = p.Next()
	}
	if f.Op != "error" || f.Code != code {
		p.t.Fatalf("got %s, want an error of the code %s", Show(f), code)
	}
	return f.Err()
}

// UntilError gives the next error, passing over all else.
func (p *Peer) UntilError() wire.Frame {
	p.t.Helper()
	for {
		if f := p.Next(); f.Op == "error" {
			return f
		}
	}
}

// WantClose reads on until the connection closes, which has to be with that code.
func (p *Peer) WantClose(code int) {
	p.t.Helper()
	for {
		if _, err := p.read(); err != nil {
			if got := websocket.CloseStatus(err); int(got) != code {
				p.t.Fatalf("closed with %d (%v), want %d", got, err, code)
			}
			return
		}
	}
}

// Join enters a room, again while the bus does not answer, and reads everything up to live: the answer and the backlog.
func (p *Peer) Join(room string, more ...string) (joined wire.Frame, backlog []wire.Frame) {
	p.t.Helper()
	extra := ""
	for _, m := range more {
		extra += "," + m
	}
	joined = p.ask(fmt.Sprintf(`{"op":"join","req":"join","room":%s%s}`, Quote(room), extra), true)
	for {
		f := p.Next()
		switch f.Op {
		case "live":
			return joined, backlog
		case "message", "gap":
			backlog = append(backlog, f)
		case "presence":
		default:
			p.t.Fatalf("got %s in the backlog", Show(f))
		}
	}
}

// SendText says something in a room and gives its id once it is acknowledged. What has a key is repeated while the bus does not
// answer.
func (p *Peer) SendText(room, text string, more ...string) id.ID {
	p.t.Helper()
	extra := ""
	for _, m := range more {
		extra += "," + m
	}
	request := fmt.Sprintf(`{"op":"send","req":"send","room":%s,"text":%s%s}`, Quote(room), Quote(text), extra)
	return p.ask(request, strings.Contains(extra, `"key":`)).ID
}

// ask gives the answer ok to a request. What may be repeated is, while the bus does not answer.
func (p *Peer) ask(request string, repeat bool) wire.Frame {
	p.t.Helper()
	for began := time.Now(); ; {
		p.Say("%s", request)
		f := p.Next()
		for f.Op != "ok" && f.Op != "error" {
			f = p.Next()
		}
		if f.Op == "ok" {
			return f
		}
		if f.Code != wire.Unavailable || !repeat || time.Since(began) > patience {
			p.t.Fatalf("got %s, want ok", Show(f))
		}
		time.Sleep(f.RetryAfter)
	}
}

// Quote is s as JSON.
func Quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// Show is a frame as it reads in a failure.
func Show(f wire.Frame) string {
	b, _ := json.Marshal(f)
	return fmt.Sprintf("%s code=%s close=%d %.400s", f.Op, f.Code, f.Close, b)
}
