package redis

import (
	"context"
	"fmt"
	"time"
)

// layout numbers the form of what nodes share: keys, what is in them, and what they publish. One that nodes of the version
// before cannot share has another number.
const layout = "1"

// The key is older than the first node that wrote it: without it, what is in Redis has the layout 1.
const (
	layoutKey      = "parley:layout"
	layoutLife     = time.Hour // after the last sign of a node
	layoutInterval = 10 * time.Minute
)

// claimLayout says in Redis which layout its nodes share, or refuses to share another.
func (r *Bus) claimLayout(ctx context.Context) error {
	q := r.query(ctx, r.own)
	nodes, found := q.do("exists", incarnationsKey(r.tag())), q.get(layoutKey+r.tag())
	if err := q.send(); err != nil {
		return err
	}
	shared, _ := found.Val().(string)
	if there, _ := nodes.Bool(); shared == "" && there {
		shared = "1"
	}
	q = r.query(ctx, r.own)
	if shared == "" {
		set := q.do("set", layoutKey+r.tag(), layout, "nx", "px", layoutLife.Milliseconds())
		if err := q.send(); err != nil || set.Err() == nil {
			return err
		}
		return r.claimLayout(ctx) // another node was faster
	}
	if shared != layout {
		return misconfigured{fmt.Errorf("nodes of another version are or were at work there: they share layout %s, and this one "+
			"has layout %s; stop them, and delete the key %s or wait for %s", shared, layout, layoutKey+r.tag(), layoutLife)}
	}
	q.do("pexpire", layoutKey+r.tag(), layoutLife.Milliseconds()) // which a full Redis takes too
	return q.send()
}

// keepLayout has the layout stand under a tag, and prolongs its life.
func (q *query) keepLayout(tag string) {
	q.do("set", layoutKey+tag, layout, "nx", "px", layoutLife.Milliseconds())
	q.do("pexpire", layoutKey+tag, layoutLife.Milliseconds())
}

// layoutLoop keeps the layout's key from expiring.
func (r *Bus) layoutLoop() {
	tick := time.NewTicker(layoutInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		q := r.query(r.ctx, r.own)
		q.keepLayout(r.tag())
		if err := q.send(); err != nil && r.ctx.Err() == nil {
			r.complain("keep the layout's key", err)
		}
	}
}
