package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/api"
	"parley/node/client"
	"parley/node/nodetest"
	"parley/node/wire"
)

// A chatNode is a node in the process, behind a proxy that can cut connections.
type chatNode struct {
	addr string // of the proxy

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func startChatNode(t *testing.T, each ...func(*node.Config)) *chatNode {
	t.Helper()
	behind := nodetest.Start(t, 1, each...).Nodes[0].Addr
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &chatNode{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", behind)
			if err != nil {
				client.Close()
				continue
			}
			n.mu.Lock()
			n.conns = append(n.conns, client, server)
			n.mu.Unlock()
			pass := func(to, from net.Conn) {
				io.Copy(to, from)
				to.Close()
				from.Close()
			}
			wg.Go(func() { pass(client, server) })
			wg.Go(func() { pass(server, client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		n.cut()
		wg.Wait()
	})
	return n
}

// cut breaks all connections. New ones pass.
func (n *chatNode) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, conn := range n.conns {
		conn.Close()
	}
	n.conns = nil
}

// joinChat joins the lobby as somebody else, and gives what is said there.
func joinChat(t *testing.T, n *chatNode, name string) (*client.Room, chan client.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := client.Dial(ctx, "ws://"+n.addr, client.Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	heard := make(chan client.Message, 1000)
	r, err := c.Join(ctx, "lobby", client.JoinOptions{Handle: func(e client.Event) {
		if m, ok := e.(client.Message); ok {
			heard <- m
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r, heard
}

func sayIn(t *testing.T, r *client.Room, d client.Draft) client.ID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	i, err := r.Say(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func hearOf(t *testing.T, heard chan client.Message) client.Message {
	t.Helper()
	select {
	case m := <-heard:
		return m
	case <-time.After(patience):
		t.Fatal("nothing was said")
		return client.Message{}
	}
}

// A transcript is an output that a test can wait on.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer  // guarded by mu
	new chan struct{} // closed and made anew under mu, when something was written
}

func newTranscript() *transcript { return &transcript{new: make(chan struct{})} }

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.new)
	w.new = make(chan struct{})
	return w.buf.Write(p)
}

// wait waits until the output has a text, and gives all of it.
func (w *transcript) wait(t *testing.T, text string) string {
	t.Helper()
	late := time.After(patience)
	for {
		w.mu.Lock()
		all, more := w.buf.String(), w.new
		w.mu.Unlock()
		if strings.Contains(all, text) {
			return all
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%q was not written, but %q", text, all)
		}
	}
}

// A running chat is one that reads from a pipe.
type runningChat struct {
	in        *io.PipeWriter
	out, errw *transcript
	ended     chan error
}

func startChat(t *testing.T, c ChatCmd) *runningChat {
	in, w := io.Pipe()
	r := &runningChat{in: w, out: newTranscript(), errw: newTranscript(), ended: make(chan error, 1)}
	go func() { r.ended <- c.run(t.Context(), in, r.out, r.errw) }()
	r.errw.wait(t, "in lobby as ")
	return r
}

func (r *runningChat) end(t *testing.T) error {
	t.Helper()
	r.in.Close()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		t.Fatal("the chat did not end with its input")
		return nil
	}
}

func TestChatSaysTheLinesOfAPipeAndEndsWhenAllAreAcknowledged(t *testing.T) {
	n := startChatNode(t)
	_, heard := joinChat(t, n, "Bob")
	var in strings.Builder
	const lines = 3 * maxUnanswered
	for i := range lines {
		fmt.Fprintf(&in, "line %d\r\n\n", i)
	}
	out, errw := newTranscript(), newTranscript()
	c := ChatCmd{URL: n.addr, Name: "Ada", Timeout: patience}
	if err := c.run(t.Context(), strings.NewReader(in.String()), out, errw); err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		if m := hearOf(t, heard); m.Text != fmt.Sprint("line ", i) || m.From.Name != "Ada" {
			t.Fatalf("message %d was %+v", i, m)
		}
	}
	if out.buf.Len() > 0 {
		t.Errorf("its own lines came back: %q", out.buf.String())
	}
}

func TestChatPrintsWhatOthersSayAndNothingThatATerminalActsOn(t *testing.T) {
	n := startChatNode(t)
	bob, heard := joinChat(t, n, "Bob")
	sayIn(t, bob, client.Draft{Text: "before"})
	last := 1
	ch := startChat(t, ChatCmd{URL: "ws://" + n.addr + "/?name=Ada&room=lobby", History: &last, Timeout: patience})
	sayIn(t, bob, client.Draft{Text: "a\tb\x1b[31m\x07\x7f\u009b2J\nc\u202ed é 👩‍🚀"})
	sayIn(t, bob, client.Draft{Data: json.RawMessage(`{"a":"\u001b"}`)})
	got := ch.out.wait(t, "{")
	want := "Bob: before\nBob: a b␛[31m␇␡\uFFFD2J␊c\uFFFDd é 👩‍🚀\nBob: {\"a\":\"\\u001b\"}\n"
	if got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	for range 3 {
		hearOf(t, heard)
	}
	joinChat(t, n, "Cleo")
	ch.errw.wait(t, "parley: Cleo came\n")
	fmt.Fprintln(ch.in, "thanks")
	if m := hearOf(t, heard); m.Text != "thanks" || m.From.Name != "Ada" {
		t.Errorf("heard %+v", m)
	}
	if err := ch.end(t); err != nil {
		t.Error(err)
	}
}

// Everyone sees the keys of what is said, and may say something with the like. That is shown, as is all that others say.
func TestChatShowsWhatOthersSayWhateverItsKey(t *testing.T) {
	n := startChatNode(t)
	bob, heard := joinChat(t, n, "Bob")
	ch := startChat(t, ChatCmd{URL: n.addr, Name: "Ada", Timeout: patience})
	fmt.Fprintln(ch.in, "mine")
	key := hearOf(t, heard).Key
	sayIn(t, bob, client.Draft{Text: "with your key", Key: key})
	sayIn(t, bob, client.Draft{Text: "with one like it", Key: key + "0"})
	sayIn(t, bob, client.Draft{Text: "last"})
	if got, want := ch.out.wait(t, "last"), "Bob: with your key\nBob: with one like it\nBob: last\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if err := ch.end(t); err != nil {
		t.Error(err)
	}
}

func TestChatPrintsJSONLines(t *testing.T) {
	n := startChatNode(t)
	bob, _ := joinChat(t, n, "Bob")
	ch := startChat(t, ChatCmd{URL: n.addr, JSON: true, Timeout: patience})
	i := sayIn(t, bob, client.Draft{Text: "a\n\u009b\u202e\u2028", Data: json.RawMessage(`["\u007f"]`), Key: "k"})
	got := ch.out.wait(t, "\n")
	prefix := fmt.Sprintf(`{"op":"message","id":"%v","room":"lobby","from":{"id":"guest-`, i)
	if !strings.HasPrefix(got, prefix) || !strings.Contains(got, `"text":"a\n\u009b\u202e\u2028","data":["\u007f"],"key":"k","at":`) {
		t.Errorf("printed %s", got)
	}
	var m struct{ Text string }
	if err := json.Unmarshal([]byte(got), &m); err != nil || m.Text != "a\n\u009b\u202e\u2028" {
		t.Errorf("%v, %q", err, m.Text)
	}
	if err := ch.end(t); err != nil {
		t.Error(err)
	}
}

func TestChatSaysWhatHappensInTheRoom(t *testing.T) {
	ada, bob := wire.Member{ID: "a", Name: "Ada"}, wire.Member{ID: "b"}
	crowd := make([]wire.Member, 9)
	for i := range crowd {
		crowd[i] = bob
	}
	no := false
	for _, tt := range []struct {
		event client.Event
		want  string
	}{
		{client.Joined{Count: 1, Members: crowd[:1]}, "parley: in tea as Ada, alone\n"},
		{client.Joined{Count: 2, Members: []wire.Member{ada, bob}}, "parley: in tea as Ada, 2 here: Ada, b\n"},
		{client.Joined{Count: 8, Members: crowd[:8]}, "parley: in tea as Ada, 8 here: b, b, b, b, b, b, b, b\n"},
		{client.Joined{Count: 9, Members: crowd}, "parley: in tea as Ada, 9 here: b, b, b, b, b, b, b, b, …\n"},
		{client.Joined{Count: 9, Members: crowd, Recovered: &no}, ""}, // again
		{client.Gap{}, "parley: some messages are missing here\n"},
		{client.Presence{Event: wire.EventJoin, User: bob}, "parley: b came\n"},
		{client.Presence{Event: wire.EventLeave, User: bob}, "parley: b left\n"},
		{client.Presence{Event: wire.EventUpdate, User: bob}, ""},
		{client.Presence{Event: wire.EventJoin, User: ada}, ""},
		{client.Signal{Kind: "typing", User: bob}, ""},
		{client.Message{Entry: wire.Entry{From: ada, Text: "here", Key: "KEYS-1"}, Mine: true}, ""}, // it is on the screen
		{client.Message{Entry: wire.Entry{From: ada, Text: "elsewhere", Key: "OTHERS-1"}, Mine: true}, "Ada: elsewhere\n"},
	} {
		var told strings.Builder
		ch := &chat{view: &pipe{out: &told, errw: &told}, keys: "KEYS"}
		if ch.handle("tea", wire.User{ID: "a", Name: "Ada"}, tt.event); told.String() != tt.want {
			t.Errorf("%+v is told as %q, want %q", tt.event, told.String(), tt.want)
		}
	}
}

func TestChatSaysWhichLinesWereRefused(t *testing.T) {
	n := startChatNode(t)
	_, heard := joinChat(t, n, "Bob")
	ch := startChat(t, ChatCmd{URL: n.addr, Timeout: patience})
	fmt.Fprintf(ch.in, "fine\n%s\n\xff\nfine too\n", strings.Repeat("x", 5000))
	err := ch.end(t)
	if err == nil || err.Error() != "2 of 4 lines were not sent" {
		t.Errorf("ended with %v", err)
	}
	ch.errw.wait(t, "line 2 was not sent: text is 5000 bytes: at most 4096 are allowed\n")
	ch.errw.wait(t, "line 3 was not sent: what is said has to be valid UTF-8\n")
	if a, b := hearOf(t, heard), hearOf(t, heard); a.Text != "fine" || b.Text != "fine too" {
		t.Errorf("heard %q and %q", a.Text, b.Text)
	}
}

func TestChatSaysThatALineIsTooLong(t *testing.T) {
	n := startChatNode(t)
	c := ChatCmd{URL: n.addr, Timeout: patience}
	err := c.run(t.Context(), strings.NewReader(strings.Repeat("x", wire.MaxFrame+1)), io.Discard, io.Discard)
	if want := fmt.Sprintf("a line is longer than %d bytes", wire.MaxFrame); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("ended with %v, want %s", err, want)
	}
}

// A muteBus never says what became of a publish.
type muteBus struct{ bus.Bus }

func (muteBus) Publish(string, bus.Draft, func(bus.ID, error)) {}

func TestChatFailsIfItIsNotAcknowledgedInTime(t *testing.T) {
	n := startChatNode(t, func(c *node.Config) { c.Bus = muteBus{c.Bus} })
	c := ChatCmd{URL: n.addr, Timeout: time.Second}
	err := c.run(t.Context(), strings.NewReader("anyone?\n"), io.Discard, io.Discard)
	if err == nil || err.Error() != "1 of 1 lines were not acknowledged within 1s: they may have been said, or not" {
		t.Errorf("ended with %v", err)
	}
}

// Who interrupts a chat is told what may not have been said, and nothing where all was.
func TestChatThatIsInterruptedSaysWhatIsNotAcknowledged(t *testing.T) {
	for want, each := range map[string]func(*node.Config){
		"":                   func(*node.Config) {},
		"interrupted: 1 of ": func(c *node.Config) { c.Bus = muteBus{c.Bus} },
	} {
		n := startChatNode(t, each)
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		in, w := io.Pipe()
		defer w.Close()
		errw, ended := newTranscript(), make(chan error, 1)
		c := ChatCmd{URL: n.addr, Timeout: patience}
		go func() { ended <- c.run(ctx, in, io.Discard, errw) }()
		errw.wait(t, "in lobby as ")
		fmt.Fprintln(w, "hello")
		if want == "" {
			_, heard := joinChat(t, n, "Bob")
			if m := hearOf(t, heard); m.Text != "hello" {
				t.Errorf("heard %+v", m)
			}
		} else {
			fmt.Fprintln(w) // is taken after what was said
		}
		interrupt()
		select {
		case err := <-ended:
			if (err != nil) != (want != "") || err != nil && !strings.HasPrefix(err.Error(), want) {
				t.Errorf("ended with %v, want %q", err, want)
			}
		case <-time.After(patience):
			t.Fatal("it goes on")
		}
	}
}

// A chat from which the node takes the room, or the connection, does not wait on in silence.
func TestChatEndsWhenItIsPutOut(t *testing.T) {
	const key = "0123456789abcdef0123456789abcdef"
	addr := freeAddr(t)
	start := func(args ...string) *process {
		cmd := parley(append([]string{"--listen", addr}, args...)...)
		cmd.Env = append(cmd.Env, "PARLEY_API_KEYS=backend "+key)
		p, err := startProcess(cmd)
		if err != nil {
			t.Fatal(err)
		}
		endAfter(t, p)
		return p
	}
	wantEnd := func(ch *runningChat, want string) {
		t.Helper()
		defer ch.in.Close()
		select {
		case err := <-ch.ended:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("it ended with %v, want %s", err, want)
			}
		case <-time.After(patience):
			t.Fatal("it waits on")
		}
	}
	n := start()
	put := startChat(t, ChatCmd{URL: addr, Timeout: patience})
	app, err := api.New(n.url, key, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	who, _, err := app.Members(t.Context(), "lobby")
	if err != nil || len(who) != 1 {
		t.Fatalf("%v are there, %v", who, err)
	}
	if err := app.Disconnect(t.Context(), who[0].ID); err != nil {
		t.Fatal(err)
	}
	wantEnd(put, "disconnected")

	left := startChat(t, ChatCmd{URL: addr, Timeout: patience})
	n.kill()
	start("--guest-rights", "tea:read") // as the operator decides meanwhile
	wantEnd(left, "no longer in lobby: forbidden: ")
}

func TestChatComesBackAfterACut(t *testing.T) {
	n := startChatNode(t)
	ch := startChat(t, ChatCmd{URL: n.addr, Name: "Ada", Timeout: patience})
	n.cut()
	fmt.Fprintln(ch.in, "still here")
	ch.errw.wait(t, "trying again…\n")
	ch.errw.wait(t, "parley: connected\n")
	bob, heard := joinChat(t, n, "Bob")
	if m := hearOf(t, heard); m.Text != "still here" {
		t.Errorf("heard %+v", m)
	}
	sayIn(t, bob, client.Draft{Text: "good"})
	ch.out.wait(t, "Bob: good\n")
	if told := ch.errw.wait(t, "Bob came"); strings.Count(told, "in lobby as ") != 1 {
		t.Errorf("it says again that it is there: %q", told)
	}
	if err := ch.end(t); err != nil {
		t.Error(err)
	}
}

func TestChatSaysWhyItCannotConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	n := startChatNode(t)
	for _, c := range []struct {
		cmd  ChatCmd
		want string
	}{
		{ChatCmd{URL: l.Addr().String(), Timeout: time.Second}, "connection refused"},
		{ChatCmd{URL: n.addr + "/nowhere"}, "404"},
		{ChatCmd{URL: n.addr, Token: "x"}, "unauthorized"},
		{ChatCmd{URL: n.addr, Room: "a\x07b"}, "control character"},
		{ChatCmd{URL: "ftp://" + n.addr}, "such as ws://host:8765"},
		{ChatCmd{URL: "http://[::1"}, "no address"},
	} {
		c.cmd.Timeout = cmp.Or(c.cmd.Timeout, patience)
		err := c.cmd.run(t.Context(), strings.NewReader("hello\n"), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want …%s…", c.cmd, err, c.want)
		}
	}
}

func TestChatFindsTheNodeAndTheRoomInAnURL(t *testing.T) {
	for in, want := range map[string]string{
		"chat":                   "ws://chat:8765/ lobby",
		"chat:99":                "ws://chat:99/ lobby",
		":99":                    "ws://localhost:99/ lobby",
		"[::1]:99":               "ws://[::1]:99/ lobby",
		"[::1]":                  "ws://[::1]:8765/ lobby",
		"chat/ws":                "ws://chat:8765/ws lobby",
		"wss://chat.example.com": "wss://chat.example.com lobby",
		"https://chat.example/?room=a%20b&name=Al": "https://chat.example/ a b Al",
		"http://chat/ws?room=x#y":                  "http://chat/ws x",
	} {
		addr, room, name, err := target(in)
		if got := strings.TrimSpace(addr + " " + room + " " + name); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
}

// A closedWriter is an output that nobody reads any more.
type closedWriter struct{}

func (closedWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestChatEndsWhenNobodyReadsItsOutput(t *testing.T) {
	n := startChatNode(t)
	bob, _ := joinChat(t, n, "Bob")
	in, w := io.Pipe()
	defer w.Close()
	errw, ended := newTranscript(), make(chan error, 1)
	c := ChatCmd{URL: n.addr, Timeout: patience}
	go func() { ended <- c.run(t.Context(), in, closedWriter{}, errw) }()
	errw.wait(t, "in lobby as ")
	sayIn(t, bob, client.Draft{Text: "hello?"})
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it goes on")
	}
}
