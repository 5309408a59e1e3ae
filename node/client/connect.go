package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"parley/node/wire"
)

// Status tells of a connection that was won, or of one that was lost or not made.
type Status struct {
	Up    bool
	Node  string        // the node's name, if Up
	Err   error         // why there is no connection, if not Up
	Retry time.Duration // until the next attempt, if not Up; zero if there will be none
}

// goodFor is how long a connection lasts that is no sign of trouble: the backoff starts anew after it.
const goodFor = 5 * time.Second

// A failure is why a connection was not made, or ended.
type failure struct {
	err   error
	after time.Duration // the node asks not to come back before
	final bool          // there is no point in coming back
	good  bool          // it was a connection for a while: no sign of trouble
	token bool          // the token was refused, or has expired
}

// run keeps the client connected until it ends.
func (c *Client) run() {
	defer close(c.done)
	defer c.stop()
	refused := 0 // tokens, one after the other
	for attempt := 0; c.Err() == nil; attempt++ {
		f := c.connect()
		if f.good {
			attempt, refused = 0, 0
		}
		if f.token {
			refused++
			f.final = c.opts.TokenFunc == nil || refused == mostRefused
		}
		if c.Err() != nil {
			return
		}
		if f.final {
			c.end(f.err)
			c.opts.Status(Status{Err: f.err})
			return
		}
		wait := f.after + c.backoff(attempt)
		c.mu.Lock()
		c.lastErr = f.err
		c.mu.Unlock()
		c.opts.Log.Debug("not connected", "err", f.err, "retry", wait)
		c.opts.Status(Status{Err: f.err, Retry: wait})
		sleep(c.ctx, wait)
	}
}

// mostRefused is how many tokens in a row may be refused that TokenFunc gave: those of the second in which others were revoked are.
const mostRefused = 4

// backoff grows exponentially. Half of it is chance, so that a crowd does not come back at once.
func (c *Client) backoff(attempt int) time.Duration {
	d := c.opts.MaxBackoff
	if attempt < 20 {
		d = min(d, c.opts.MinBackoff<<attempt)
	}
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// connect makes a connection, and serves it until it is lost.
func (c *Client) connect() failure {
	l := newLink(c.ctx)
	defer l.end(nil)
	if err := c.askToken(l.ctx); err != nil {
		return failure{err: err}
	}
	l.silence.Reset(l.patience) // which asking may have taken
	ws, resp, err := websocket.Dial(l.ctx, c.url, &websocket.DialOptions{
		HTTPClient:   c.opts.HTTPClient,
		HTTPHeader:   c.opts.Header,
		Subprotocols: []string{wire.Subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			l.heard()
			return true
		},
	})
	if err != nil {
		return c.dialFailure(resp, cmp.Or(context.Cause(l.ctx), err))
	}
	l.ws = ws
	if ws.Subprotocol() != wire.Subprotocol {
		ws.CloseNow()
		return failure{err: fmt.Errorf("connect to %s: it does not speak %s", c.url, wire.Subprotocol), final: true}
	}
	f := lossOf(c.serve(l), l.bye, l.complaint)
	f.good = !l.began.IsZero() && time.Since(l.began) > goodFor // an attempt that times out lasts as long, and is none
	return f
}

// dialFailure makes sense of a handshake that failed.
func (c *Client) dialFailure(resp *http.Response, err error) failure {
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err // without the names of the layers between
	}
	if resp == nil {
		distrust := errors.As(err, new(*tls.CertificateVerificationError))
		return failure{err: fmt.Errorf("connect to %s: %w", c.url, err), final: distrust}
	}
	said, _ := io.ReadAll(resp.Body)
	line, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
	seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	code := resp.StatusCode
	return failure{
		err:   fmt.Errorf("connect to %s: %s: %s", c.url, wire.Harmless(resp.Status), wire.Harmless(cmp.Or(line, err.Error()))),
		after: time.Duration(seconds) * time.Second,
		final: code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests,
	}
}

// lossOf makes sense of the error with which a connection ended. bye is the node's goodbye, if it said one, and complaint the error
// before it.
func lossOf(err error, bye *wire.Frame, complaint *wire.Error) failure {
	if refused, ok := errors.AsType[*wire.Error](err); ok { // the hello
		token := refused.Code == wire.Expired || refused.Code == wire.Unauthorized
		return failure{err: err, after: refused.RetryAfter, final: !mayRepeat(refused), token: token}
	}
	f := failure{err: fmt.Errorf("the connection was lost: %w", err)}
	closed, ok := errors.AsType[websocket.CloseError](err)
	if bye != nil {
		closed = websocket.CloseError{Code: websocket.StatusCode(bye.Close), Reason: bye.Reason}
		f.after = bye.RetryAfter
	}
	if ok || bye != nil {
		f.err = fmt.Errorf("the node closed the connection: %d %s", closed.Code, wire.Harmless(closed.Reason))
	}
	switch closed.Code {
	case wire.StatusUnsupported, wire.StatusNotUTF8, wire.StatusPolicy, wire.StatusTooBig, wire.StatusKicked:
		f.final = true
	case wire.StatusNoToken:
		f.token = true
	}
	if complaint != nil && (closed.Code == wire.StatusNoToken || closed.Code == wire.StatusKicked) {
		f.err = fmt.Errorf("the node closed the connection: %w", complaint)
	}
	return f
}

// mayRepeat reports whether the same request may succeed later.
func mayRepeat(e *wire.Error) bool { return e.Code == wire.Unavailable || e.Code == wire.RateLimited }

// again is mayRepeat for what is asked in somebody's name: once that does not hold any more the node ends the connection, and the next
// one has a fresh token.
func (c *Client) again(e *wire.Error) bool {
	return mayRepeat(e) || c.opts.TokenFunc != nil && (e.Code == wire.Expired || e.Code == wire.Unauthorized)
}
