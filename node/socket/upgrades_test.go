package socket

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// probes are what the tests' listeners ask for.
var probes = net.KeepAliveConfig{Enable: true, Idle: 40 * time.Second, Interval: 20 * time.Second, Count: 5}

// upgrading is an http.Server behind Upgrades, and counts what Upgrades served.
func upgrading(t *testing.T, h http.Handler) (addr string, served *atomic.Int32) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", probes)
	if err != nil {
		t.Fatal(err)
	}
	served = new(atomic.Int32)
	quiet := log.New(io.Discard, "", 0)
	server := &http.Server{Handler: h, ErrorLog: quiet}
	u := &Upgrades{Listener: l, Log: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		h.ServeHTTP(w, r)
	})}
	over := make(chan struct{})
	go func() {
		defer close(over)
		server.Serve(u)
	}()
	t.Cleanup(func() {
		server.Shutdown(context.Background()) // it waits for handlers
		<-over
		u.Wait()
	})
	return l.Addr().String(), served
}

const plainUpgrade = "GET /ws?room=a HTTP/1.1\r\nHost: here:80\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// Whatever is asked, it is answered as an http.Server alone would.
func TestUpgradesAnswerAsAnHTTPServer(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(plainUpgrade, old, new, 1) }
	requests := map[string]struct {
		raw   string
		taken int32
	}{
		"an upgrade":                 {plainUpgrade, 1},
		"in other letters":           {with("Upgrade: websocket", "uPGRADE:\twebSocket "), 1},
		"with a long head":           {with("Host", "Cookie: "+strings.Repeat("c", 3000)+"\r\nHost"), 1},
		"with too long a head":       {with("Host", "Cookie: "+strings.Repeat("c", 5000)+"\r\nHost"), 0},
		"no version":                 {with("Sec-WebSocket-Version: 13\r\n", ""), 1},
		"another version":            {with("Version: 13", "Version: 12"), 1},
		"no key":                     {with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 1},
		"no connection":              {with("Connection: Upgrade\r\n", ""), 1},
		"another protocol":           {with("websocket", "h2c"), 0},
		"two protocols":              {with("websocket", "websocket\r\nUpgrade: h2c"), 0},
		"no upgrade":                 {with("Upgrade: websocket\r\n", ""), 0},
		"a POST":                     {with("GET", "POST"), 0},
		"HTTP/1.0":                   {with("HTTP/1.1", "HTTP/1.0"), 0},
		"no host":                    {with("Host: here:80\r\n", ""), 0},
		"two hosts":                  {with("Host", "Host: b\r\nHost"), 0},
		"a bad host":                 {with("here", "he re"), 0},
		"a body":                     {with("Host", "Content-Length: 2\r\nHost") + "ab", 0},
		"a body in chunks":           {with("Host", "Transfer-Encoding: chunked\r\nHost") + "0\r\n\r\n", 0},
		"an expectation":             {with("Host", "Expect: the-unexpected\r\nHost"), 0},
		"a folded line":              {with("Upgrade\r\n", "Upgrade\r\n folded\r\n"), 0},
		"a bad name":                 {with("Connection", "Conn ection"), 0},
		"a control character":        {with("here", "he\x01re"), 0},
		"a bad escape":               {with("room=a", "room=a%zz") + "", 1}, // the query is the handler's to read
		"a bad escape in the path":   {with("/ws", "/%zz"), 0},
		"a space in the path":        {with("/ws", "/w s"), 0},
		"an absolute path":           {with("/ws", "http://here/ws"), 0},
		"ends of lines without a CR": {strings.ReplaceAll(plainUpgrade, "\r\n", "\n"), 0},
		"a bare CR":                  {with("here", "he\rre"), 0},
		"nonsense":                   {"\x16\x03\x01 hello\r\n\r\n", 0},
	}
	g := NewGroup(Config{QueueBytes: 64 << 10, StallTimeout: 10 * time.Second, MessageWait: 30 * time.Second})
	t.Cleanup(g.Close)
	var open sync.WaitGroup
	t.Cleanup(open.Wait) // once no server calls the handler any more
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Done()
		if r.Header.Get("Upgrade") == "" || r.ProtoMinor == 0 || r.Method != "GET" {
			w.Header().Set("X-Why", "no upgrade")
			http.Error(w, r.Method+" "+r.Host+" "+r.URL.String()+" "+r.Proto, http.StatusTeapot)
			return
		}
		c, err := g.Accept(w, r, "echo")
		if err != nil {
			return
		}
		ended := make(chan int, 1)
		open.Go(func() { <-ended })
		e := &echo{c: c, ended: ended}
		c.Put(nil)
		c.Finish([]byte{0x88, 0}, 1000)
		c.Serve(e)
	})
	alone := httptest.NewServer(handler)
	t.Cleanup(alone.Close)
	alone.Config.ErrorLog = log.New(io.Discard, "", 0)
	addr, served := upgrading(t, handler)
	for name, rq := range requests {
		before := served.Load()
		want, got := exchange(t, alone.Listener.Addr().String(), rq.raw), exchange(t, addr, rq.raw)
		if got != want {
			t.Errorf("%s is answered\n%s\nwhere an http.Server says\n%s", name, got, want)
		}
		if n := served.Load() - before; n != rq.taken && runtime.GOOS == "linux" {
			t.Errorf("%s: %d were taken, want %d", name, n, rq.taken)
		}
	}
}

// exchange gives what a request is answered, without what differs by the time or by whether the connection goes on.
func exchange(t *testing.T, addr, raw string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(nc, raw); err != nil {
		t.Fatal(err)
	}
	a, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		return "no answer"
	}
	body := ""
	if a.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(a.Body)
		body = string(b)
		a.Header.Del("Connection")
	}
	a.Header.Del("Date")
	var head strings.Builder
	a.Header.Write(&head)
	return a.Proto + " " + a.Status + "\r\n" + head.String() + body
}

func TestWhatFollowsAnUpgradeIsHeard(t *testing.T) {
	g := NewGroup(Config{QueueBytes: 64 << 10, StallTimeout: 10 * time.Second, MessageWait: 30 * time.Second})
	defer g.Close()
	ended := make(chan int, 2)
	from := make(chan string, 2)
	addr, _ := upgrading(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from <- r.RemoteAddr
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		if c, err := g.Accept(w, r, "echo"); err == nil {
			c.Put(nil)
			c.Serve(&echo{c: c, ended: ended})
		}
	}))
	hello := string([]byte{0x81, 0x80 | 5, 0, 0, 0, 0}) + "hello" + string([]byte{0x88, 0x80, 0, 0, 0, 0})
	t.Run("after the handshake", func(t *testing.T) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(nc, plainUpgrade+hello)
		all, _ := io.ReadAll(nc)
		if _, frames, _ := strings.Cut(string(all), "\r\n\r\n"); !strings.HasPrefix(frames, "\x81\x05hello\x88") {
			t.Errorf("heard %q", all)
		}
		if a := <-from; a != nc.LocalAddr().String() {
			t.Errorf("it comes from %q, want %v", a, nc.LocalAddr())
		}
		<-ended
	})
	t.Run("after a refusal", func(t *testing.T) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(nc, strings.Replace(plainUpgrade, "/ws", "/no", 1)+strings.Repeat(hello, 100))
		all, err := io.ReadAll(nc)
		if err != nil || !strings.HasSuffix(string(all), "\r\n\r\nno\n") {
			t.Errorf("read %q, %v", all, err)
		}
	})
}

func TestAHandlerThatPanicsHarmsOnlyItsConnection(t *testing.T) {
	g := NewGroup(Config{QueueBytes: 64 << 10, StallTimeout: 10 * time.Second, MessageWait: 30 * time.Second})
	defer g.Close()
	ended := make(chan int, 1)
	addr, _ := upgrading(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic("at the disco")
		}
		c, err := g.Accept(w, r, "echo")
		if err != nil {
			t.Error(err)
			return
		}
		c.Put(nil)
		c.Serve(&echo{c: c, ended: ended})
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, "ws://"+addr+"/panic", nil); err == nil {
		t.Error("a panic is an open connection")
	}
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Close(websocket.StatusNormalClosure, "")
	<-ended
}
