package node

import (
	"context"

	"parley/bus"
	"parley/node/wire"
)

// A page is a part of a room's log that is being read, for all who need the same at the time: whoever was cut off by the same
// fault, and comes back from the same place.
type page struct {
	read chan struct{} // closed once it is read
	bus.Page
	err error
}

// An extent is what a page has of the log: what follows an id, or the newest so many messages.
type extent struct {
	after  bus.ID
	newest int
}

// ahead is what a join has read of the log.
type ahead struct {
	since bus.ID // which it follows
	bus.Page
}

// after reads what follows an id, as much as is written in one go.
func (r *room) after(ctx context.Context, since bus.ID) (bus.Page, error) {
	return r.share(ctx, extent{after: since}, func(ctx context.Context) (bus.Page, error) {
		return r.srv.cfg.Bus.After(ctx, r.name, since, wire.MaxPage, pieceBytes)
	})
}

// backlogBytes bounds what a join without a since is given of the log.
const backlogBytes = 1 << 20

// newest reads the newest messages, at least n if there are as many.
func (r *room) newest(ctx context.Context, n int) (bus.Page, error) {
	n = max(n, wire.DefaultBacklog)
	return r.share(ctx, extent{newest: n}, func(ctx context.Context) (bus.Page, error) {
		return r.srv.cfg.Bus.Before(ctx, r.name, bus.ID{}, n, backlogBytes)
	})
}

// share reads a page, or waits for who is reading it.
func (r *room) share(ctx context.Context, at extent, read func(context.Context) (bus.Page, error)) (bus.Page, error) {
	r.mu.Lock()
	p, mine := r.pages[at], false
	if p == nil {
		p, mine = &page{read: make(chan struct{})}, true
		if r.pages == nil {
			r.pages = make(map[extent]*page)
		}
		r.pages[at] = p
	}
	r.mu.Unlock()
	if !mine {
		select {
		case <-p.read:
			return p.Page, p.err
		case <-ctx.Done():
			return bus.Page{}, ctx.Err()
		}
	}
	reading, cancel := context.WithTimeout(r.srv.ctx, busTimeout) // for others too, whoever goes meanwhile
	defer cancel()
	p.Page, p.err = read(reading)
	r.srv.outage.note(p.err)
	r.mu.Lock()
	delete(r.pages, at)
	r.mu.Unlock()
	close(p.read)
	return p.Page, p.err
}

// learn has the newest messages of the log in memory, if they are not: whoever comes back after a short time is served from there.
// One of all who come back reads them.
func (r *room) learn(ctx context.Context) error {
	r.mu.Lock()
	known := r.recent.learned || r.recent.whole || len(r.recent.msgs) >= wire.DefaultBacklog
	r.mu.Unlock()
	if known {
		return nil
	}
	page, err := r.newest(ctx, 0)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent.learn(page, r.head)
	return nil
}
