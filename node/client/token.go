package client

import (
	"context"
	"errors"
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && token == "" && c.token != "" {
		err = errors.New("there is none") // who had one becomes no guest
	}
	if err != nil {
		return fmt.Errorf("ask for a token: %w", err)
	}
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

// renewTick is how often the clock is looked at: while a machine sleeps timers stand still, and the token's time does not.
const renewTick = 15 * time.Second

// wall is the time without Go's monotonic clock, which sleeps with the machine.
func (c *Client) wall() time.Time { return c.opts.clock().Round(0) }

// renew brings a fresh token before the old one expires, until the connection is lost.
func (c *Client) renew(l *link) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due time.Time // zero for never
	for attempt := 0; ; {
		if timer.Stop(); !due.IsZero() {
			timer.Reset(min(renewTick, due.Sub(c.wall())))
		}
		select {
		case d := <-l.welcomes:
			attempt, due = 0, time.Time{}
			if d > 0 {
				due = c.wall().Add(renewal(d))
			}
		case <-timer.C:
			if c.wall().Before(due) {
				continue
			}
			if err := c.askToken(l.ctx); err != nil {
				c.opts.Log.Warn("renew the token", "err", err)
			} else {
				c.mu.Lock()
				l.requestLocked(c.helloLocked(), func(f *wire.Frame) { c.renewed(l, f) })
				c.mu.Unlock()
			}
			due = c.wall().Add(c.backoff(attempt)) // to try again, unless a welcome comes first
			attempt++
		case <-l.lost:
			return
		}
	}
}
