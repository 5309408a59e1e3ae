// Package client is the Go client of Parley: rooms that outlive the connection. It reconnects by itself, resumes each room
// where it was, and repeats what was not acknowledged, in order and with the same key, so that nothing is said twice.
package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"parley/node/wire"
)

var (
	// ErrClosed is what calls get after Close.
	ErrClosed = errors.New("the client is closed")
	// ErrLeft is what a send gets that has no answer when the room is left.
	ErrLeft = errors.New("the room was left")
	// ErrLost is what a signal gets whose connection is lost before the answer comes.
	ErrLost = errors.New("the connection was lost")
	// ErrUnconfirmed is what a send gets that would have to be repeated after KeyLife.
	ErrUnconfirmed = errors.New("no answer came: the message may be in the room, or not")
)

// KeyLife is how long nodes remember a key at least, so how long it is safe to repeat a send.
const KeyLife = 10 * time.Minute

// Options are optional.
type Options struct {
	Name    string // shown to others; default chosen by the node
	Token   string // who one is, to the operator; default a guest
	Session string // makes a guest the same again; default a new one

	// TokenFunc gives the token, instead of Token: it is asked before every connection and before the token expires, never twice at
	// a time. Where it gives an error it is asked again, later and later; so it is where it gives none, after having given one. From the
	// beginning none is a guest's.
	TokenFunc func(ctx context.Context) (string, error)

	// Status is told of each connection won and lost, on the goroutine that reads: it must not block.
	Status func(Status)

	Key        func() string // makes idempotency keys; default a random prefix and a count
	Log        *slog.Logger  // default none
	HTTPClient *http.Client  // for the handshake; default http.DefaultClient
	Header     http.Header   // added to the handshake

	MinBackoff time.Duration // between the first attempts to connect; it doubles from there, jittered; default 250 ms
	MaxBackoff time.Duration // default 15 s

	clock func() time.Time // a test's; default time.Now
}

func (o Options) withDefaults() Options {
	if o.Status == nil {
		o.Status = func(Status) {}
	}
	if o.Key == nil {
		prefix, n := rand.Text(), new(atomic.Uint64)
		o.Key = func() string { return prefix + "-" + strconv.FormatUint(n.Add(1), 36) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.clock == nil {
		o.clock = time.Now
	}
	o.MinBackoff = cmp.Or(o.MinBackoff, 250*time.Millisecond)
	o.MaxBackoff = max(o.MinBackoff, cmp.Or(o.MaxBackoff, 15*time.Second))
	return o
}

// A Client is a connection that comes back. All methods may be called concurrently.
type Client struct {
	url  string             // static
	opts Options            // static
	ctx  context.Context    // static; connections end with it
	stop context.CancelFunc // static
	done chan struct{}      // static; closed when the client has ended

	mu       sync.Mutex
	link     *link            // guarded by mu; nil while there is no connection
	up       chan struct{}    // guarded by mu; closed while there is one
	rooms    map[string]*Room // guarded by mu; by name
	user     wire.User        // guarded by mu
	name     string           // guarded by mu; the one that was asked for, if any
	named    int64            // guarded by mu; since when the node has it so, in ms since 1970; 0 if it does not know it yet
	renames  []*rename        // guarded by mu; under way
	session  string           // guarded by mu
	token    string           // guarded by mu; the last one
	limits   wire.Limits      // guarded by mu
	err      error            // guarded by mu; why the client has ended
	lastErr  error            // guarded by mu; why the last connection was not made or was lost
	finished []func()         // guarded by mu; what unlock calls
}

// Dial connects to a node: ws, wss, http or https. It returns when the node has said welcome. What may yet succeed it tries
// again until ctx is done, which bounds nothing later. The caller must Close the client.
func Dial(ctx context.Context, to string, o Options) (*Client, error) {
	switch u, err := url.Parse(to); {
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	case u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" && u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("connect to %s: it is no address such as ws://host:8765", to)
	}
	c := &Client{
		url:     to,
		opts:    o.withDefaults(),
		done:    make(chan struct{}),
		up:      make(chan struct{}),
		rooms:   make(map[string]*Room),
		name:    o.Name,
		session: o.Session,
		token:   o.Token,
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	up := c.up
	go c.run()
	select {
	case <-up:
		return c, nil
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
	}
	c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return nil, cmp.Or(c.lastErr, fmt.Errorf("connect to %s: %w", to, ctx.Err()))
}

// Close ends the client: what is not acknowledged gets ErrClosed. It must not be called by a handler.
func (c *Client) Close() error {
	c.end(ErrClosed)
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.close()
	}
	c.stop()
	<-c.done
	return nil
}

// end settles everything with err.
func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for _, r := range c.rooms {
		r.endLocked(err)
	}
	clear(c.rooms)
}

// Done is closed when the client has ended: by Close, or since the node refuses it for good. Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the client has ended; nil if it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// User is who the client speaks for.
func (c *Client) User() wire.User {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user
}

// Rename has a guest called by another name, over all that the same guest has open: the name chosen last counts. It is kept over
// all connections to come.
func (c *Client) Rename(ctx context.Context, name string) error {
	c.mu.Lock()
	r := &rename{before: c.name, named: c.named}
	c.renames = append(c.renames, r)
	c.name, c.named = name, 0
	c.mu.Unlock()
	f, err := c.ask(ctx, wire.Request{Op: "hello"})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renames = slices.DeleteFunc(c.renames, func(o *rename) bool { return o == r })
	if err == nil {
		c.greetLocked(f)
		return nil
	}
	if refused := new(wire.Error); errors.As(err, &refused) {
		if c.name == name {
			c.name, c.named = r.before, r.named
		}
		for _, o := range c.renames {
			if o.before == name { // which is no name to go back to
				*o = *r
			}
		}
	}
	return fmt.Errorf("take the name %q: %w", name, err)
}

// A rename is under way. It has what the name was before, and since when.
type rename struct {
	before string
	named  int64
}

// greetLocked takes a welcome.
func (c *Client) greetLocked(f *wire.Frame) {
	c.user, c.session, c.limits = f.User, f.Session, f.Limits
	if f.User.Name == c.name {
		c.named = f.Named
	}
}

// Session makes a guest the same guest again, given to Dial in Options. It is a secret.
func (c *Client) Session() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// checkLocked says what is wrong with a request before a node does.
func (c *Client) checkLocked(r *wire.Request) *wire.Error {
	maxText := cmp.Or(c.limits.Text, wire.MaxFrame)
	if bad := wire.CheckText(r.Text, maxText); bad != nil {
		return bad // JSON would hide that it is not UTF-8
	}
	frame := r.Append(nil)
	if _, bad := wire.Parse(frame, maxText); bad != nil {
		return bad
	}
	if most := cmp.Or(c.limits.Frame, wire.MaxFrame) - len(`,"req":18446744073709551615`); len(frame) > most {
		return wire.Errorf(wire.TooLarge, "the message is %d bytes: at most %d are allowed", len(frame), most)
	}
	return nil
}

// unlock gives mu up, and calls what was finished under it: callbacks may use the client.
func (c *Client) unlock() {
	finished := c.finished
	c.finished = nil
	c.mu.Unlock()
	for _, f := range finished {
		f()
	}
}
