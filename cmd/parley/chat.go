package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/node/client"
	"parley/node/wire"
)

// ChatCmd talks in a room: at a terminal with a prompt, in a pipe line by line.
type ChatCmd struct {
	URL string

	Room    string
	Name    string
	Token   string
	History *int
	JSON    bool
	Timeout time.Duration
}

func newChat() *cobra.Command {
	c := cli.Command("chat [url]", "Talk in a room, at a terminal or in a pipe.", new(ChatCmd))
	c.Long = c.Short + " The URL of a node is ws://, wss://, http:// or https://, or just host:port (default localhost:8765)."
	c.Args = cli.AtMost(1)
	return c
}

func (c *ChatCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Room, "room", "", "`NAME` The room. By default the one that the URL names, or else lobby.")
	f.StringVar(&c.Name, "name", "", "`NAME` What to be called.")
	f.StringVar(&c.Token, "token", "", "`TOKEN` Who to be, by a token of the operator's. From the environment only, or a file that $PARLEY_TOKEN_FILE names.")
	cli.SetSecret(f, "token")
	f.Func("history", "`COUNT` Messages from before to show. By default 20 at a terminal, none in a pipe.", func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("expected a whole number but got %q", s)
		}
		c.History = &n
		return nil
	})
	f.BoolVar(&c.JSON, "json", false, "Print messages as JSON, one a line.")
	f.DurationVar(&c.Timeout, "timeout", 30*time.Second, "How long to wait for a connection, and for what was said to be acknowledged.")
}

// Validate refuses what no node takes.
func (c *ChatCmd) Validate() error {
	if c.Room != "" {
		if bad := wire.CheckRoom(c.Room); bad != nil {
			return fmt.Errorf("--room: %s", bad.Message)
		}
	}
	if bad := wire.CheckName(c.Name); bad != nil {
		return fmt.Errorf("--name: %s", bad.Message)
	}
	if c.History != nil && (*c.History < 0 || *c.History > wire.MaxPage) {
		return fmt.Errorf("--history must be from 0 to %d", wire.MaxPage)
	}
	if c.Timeout <= 0 {
		return errors.New("--timeout must be more than 0s")
	}
	return nil
}

// Run implements "parley chat".
func (c *ChatCmd) Run(env *cli.Env) error {
	c.URL = "localhost:8765"
	if len(env.Args) > 0 {
		c.URL = env.Args[0]
	}
	return c.run(env.Ctx, env.In, env.Out, env.Err)
}

// A view is where a chat is read and written. Its methods may be called concurrently, but for readLine.
type view interface {
	readLine() (string, error)
	message(m *client.Message)
	note(format string, args ...any) // for people
	broken() <-chan struct{}         // closed when nothing can be shown any more
	close()
}

// A chat is one run of the command.
type chat struct {
	view
	timeout time.Duration
	keys    string        // what the keys of this run begin with
	down    bool          // owned by the client's reader; the user knows that there is no connection
	shown   chan struct{} // closed, by the client's reader, when what was said before has been shown
	once    sync.Once     // closes it
	out     chan error    // has why, once the node has taken the chat out of the room

	said    int           // lines
	refused atomic.Int64  // lines
	open    atomic.Int64  // lines that are not acknowledged
	slots   chan struct{} // taken by them
}

// maxUnanswered is how many lines are read ahead of their acknowledgement.
const maxUnanswered = 256

// run chats until the input ends and all of it is acknowledged.
func (c *ChatCmd) run(ctx context.Context, in io.Reader, out, errw io.Writer) error {
	addr, room, name, err := target(c.URL)
	if err != nil {
		return err
	}
	if c.Room != "" {
		room = c.Room
	}
	if c.Name != "" {
		name = c.Name
	}
	v, history, err := openView(in, out, errw, room, c.JSON)
	if err != nil {
		return err
	}
	defer v.close()
	if c.History != nil {
		history = *c.History
	}

	ch := &chat{view: v, timeout: c.Timeout, keys: rand.Text()[:16], slots: make(chan struct{}, maxUnanswered), shown: make(chan struct{}), out: make(chan error, 1)}
	var n atomic.Uint64
	o := client.Options{
		Name: name, Token: c.Token, Status: ch.status,
		Key: func() string { return fmt.Sprintf("%s-%d", ch.keys, n.Add(1)) },
	}
	dialling, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cl, err := client.Dial(dialling, addr, o)
	if err != nil {
		return err
	}
	defer cl.Close()
	r, err := cl.Join(dialling, room, client.JoinOptions{Limit: &history, Handle: func(e client.Event) { ch.handle(room, cl.User(), e) }})
	if err != nil {
		return err
	}
	select { // who says nothing would otherwise be gone before
	case <-ch.shown:
	case <-dialling.Done():
	case <-cl.Done():
	}
	return ch.talk(ctx, cl, r)
}

// target makes sense of what names a node, and takes the room and the name out of a link to the page.
func target(s string) (addr, room, name string, err error) {
	if !strings.Contains(s, "://") {
		host, path, _ := strings.Cut(s, "/")
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "8765")
		}
		if strings.HasPrefix(host, ":") {
			host = "localhost" + host
		}
		s = "ws://" + host + "/" + path
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", "", "", fmt.Errorf("%s is no address of a node: %w", s, err)
	}
	q := u.Query()
	room, name = q.Get("room"), q.Get("name")
	if room == "" {
		room = "lobby"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String(), room, name, nil
}

// talk says the lines of the input.
func (ch *chat) talk(ctx context.Context, cl *client.Client, r *client.Room) error {
	lines, ended := make(chan string), make(chan error, 1)
	done := make(chan struct{})
	defer close(done)
	go func() { // ends with the input, which close ends where it can
		for {
			line, err := ch.readLine()
			if err != nil {
				ended <- err
				return
			}
			select {
			case lines <- line:
			case <-done:
				return
			}
		}
	}()
	for {
		select {
		case line := <-lines:
			if err := ch.say(ctx, cl, r, line); err != nil {
				return err
			}
		case err := <-ended:
			return errors.Join(ignoreEOF(err), ch.finish(ctx, cl))
		case <-ctx.Done():
			return ch.finish(ctx, cl)
		case <-cl.Done():
			return cl.Err()
		case err := <-ch.out:
			return err
		case <-ch.broken():
			return nil // nobody listens
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read what to say: %w", err)
}

// say says a line, once there is room for it among those that are not acknowledged.
func (ch *chat) say(ctx context.Context, cl *client.Client, r *client.Room, line string) error {
	line = strings.TrimRight(line, "\r\n")
	ch.said++
	if line == "" {
		return nil
	}
	if err := ch.take(ctx, cl); err != nil {
		return err
	}
	n := ch.said
	ch.open.Add(1)
	r.SendAsync(client.Draft{Text: line}, func(_ client.ID, err error) {
		if err != nil && !errors.Is(err, client.ErrClosed) {
			ch.refused.Add(1)
			ch.note("line %d was not sent: %s", n, clean(reason(err)))
		}
		ch.open.Add(-1)
		<-ch.slots
	})
	return nil
}

// reason is an error for people, without the wire's code.
func reason(err error) string {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// take takes one of the slots.
func (ch *chat) take(ctx context.Context, cl *client.Client) error {
	t := time.NewTimer(ch.timeout)
	defer t.Stop()
	select {
	case ch.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case ch.slots <- struct{}{}:
		return nil
	case <-t.C:
		return fmt.Errorf("%d of %d lines were not acknowledged within %v: they may have been said, or not", ch.open.Load(), ch.said, ch.timeout)
	case <-cl.Done():
		return cl.Err()
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %d of %d lines were not acknowledged: they may have been said, or not", ch.open.Load(), ch.said)
	}
}

// finish waits until every line is acknowledged.
func (ch *chat) finish(ctx context.Context, cl *client.Client) error {
	for range cap(ch.slots) {
		if err := ch.take(ctx, cl); err != nil {
			return err
		}
	}
	if n := ch.refused.Load(); n > 0 {
		return fmt.Errorf("%d of %d lines were not sent", n, ch.said)
	}
	return nil
}

// status tells when the connection is lost, and when it is back; not of each attempt.
func (ch *chat) status(s client.Status) {
	switch {
	case s.Up && ch.down:
		ch.note("connected")
	case !s.Up && !ch.down && s.Retry > 0:
		ch.note("%s: trying again…", clean(s.Err.Error()))
	}
	ch.down = !s.Up
}

// handle shows what happens in the room.
func (ch *chat) handle(room string, me wire.User, e client.Event) {
	switch e := e.(type) {
	case client.Joined:
		if e.Recovered == nil {
			ch.note("in %s as %s, %s", clean(room), who(wire.Member{ID: me.ID, Name: me.Name}), present(e))
		}
	case client.Message:
		if !strings.HasPrefix(e.Key, ch.keys) || !e.Mine {
			ch.message(&e)
		}
	case client.Live:
		ch.once.Do(func() { close(ch.shown) })
	case client.Gap:
		ch.note("some messages are missing here")
	case client.Left:
		ch.out <- fmt.Errorf("no longer in %s: %w", clean(room), e.Err)
	case client.Presence:
		switch {
		case e.User.ID == me.ID:
		case e.Event == wire.EventJoin:
			ch.note("%s came", who(e.User))
		case e.Event == wire.EventLeave:
			ch.note("%s left", who(e.User))
		}
	}
}

// present says who else is there, as far as that makes a line.
func present(e client.Joined) string {
	if e.Count <= 1 {
		return "alone"
	}
	const most = 8
	names := make([]string, 0, most+1)
	for _, m := range e.Members[:min(most, len(e.Members))] {
		names = append(names, who(m))
	}
	if e.Count > len(names) {
		names = append(names, "…")
	}
	return fmt.Sprintf("%d here: %s", e.Count, strings.Join(names, ", "))
}
