package client

import (
	"context"
	"time"

	"parley/node/wire"
)

// ask sends a request and waits for its answer. It asks again over another connection, and where that may help, but not for
// a signal, which would come too late.
func (c *Client) ask(ctx context.Context, r wire.Request) (*wire.Frame, error) {
	for {
		answer := make(chan *wire.Frame, 1) // one each: the reader never waits for who has gone on
		l, err := c.await(ctx)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		if r.Op == "hello" {
			r = c.helloLocked() // a name, or a token, may have come since
		}
		if bad := c.checkLocked(&r); bad != nil {
			c.mu.Unlock()
			return nil, bad
		}
		l.requestLocked(r, func(f *wire.Frame) { answer <- f })
		c.mu.Unlock()
		select {
		case f := <-answer:
			if f.Op != "error" {
				return f, nil
			}
			if r.Op == "signal" || r.Op == "hello" && !mayRepeat(f.Err()) || !c.again(f.Err()) {
				return nil, f.Err()
			}
			l.pause(ctx, f.RetryAfter+c.backoff(0))
		case <-l.lost:
			if r.Op == "signal" {
				return nil, ErrLost
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// await waits for a connection.
func (c *Client) await(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, up, err := c.link, c.up, c.err
		c.mu.Unlock()
		if err != nil || l != nil {
			return l, err
		}
		select {
		case <-up:
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pause waits as the node asks, but not past the link: it may be another node that comes next.
func (l *link) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.lost:
	case <-ctx.Done():
	}
}
