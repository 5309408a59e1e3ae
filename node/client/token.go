package client

import (
	"context"
	"fmt"
	"time"

	"parley/node/wire"
)

// askToken asks for a token, if there is whom to ask. Only the goroutine that connects, and that of the link's renewal, which ends
// before the next, call it.
func (c *Client) askToken(ctx context.Context) error {
	if c.opts.TokenFunc == nil {
		return nil
	}
	token, err := c.opts.TokenFunc(ctx)
	if err != nil {
		return fmt.Errorf("ask for a token: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = token
	return nil
}

// lasts notes how long the token lasts that a welcome has taken.
func (l *link) lasts(welcome *wire.Frame) {
	select {
	case <-l.welcomes: // an older one
	default:
	}
	l.welcomes <- welcome.Expires
}

// renewal is when to renew a token that lasts for d: with a quarter of it left, or a minute.
func renewal(d time.Duration) time.Duration { return d - min(d/4, time.Minute) }

// renewed takes the answer to a hello with a fresh token. One that is refused changes nothing: the old one may last yet.
func (c *Client) renewed(l *link, f *wire.Frame) {
	if f.Op == "error" {
		c.opts.Log.Warn("renew the token", "err", f.Err())
		return
	}
	l.lasts(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greetLocked(f)
}

// renew brings a fresh token before the old one expires, until the connection is lost.
func (c *Client) renew(l *link) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	timer.Stop()
	for attempt := 0; ; {
		select {
		case d := <-l.welcomes:
			attempt = 0
			if timer.Stop(); d > 0 {
				timer.Reset(renewal(d))
			}
		case <-timer.C:
			if err := c.askToken(l.ctx); err != nil {
				c.opts.Log.Warn("renew the token", "err", err)
			} else {
				c.mu.Lock()
				l.requestLocked(c.helloLocked(), func(f *wire.Frame) { c.renewed(l, f) })
				c.mu.Unlock()
			}
			timer.Reset(c.backoff(attempt)) // to try again, unless a welcome comes first
			attempt++
		case <-l.lost:
			return
		}
	}
}
