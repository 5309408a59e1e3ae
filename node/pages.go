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

// ahead is what a join has read of the log.
type ahead struct {
	since bus.ID // which it follows
	bus.Page
}

// after reads what follows an id, as much as is written in one go.
func (r *room) after(since bus.ID) (bus.Page, error) {
	r.mu.Lock()
	p, mine := r.pages[since], false
	if p == nil {
		p, mine = &page{read: make(chan struct{})}, true
		if r.pages == nil {
			r.pages = make(map[bus.ID]*page)
		}
		r.pages[since] = p
	}
	r.mu.Unlock()
	if !mine {
		<-p.read // within busTimeout
		return p.Page, p.err
	}
	ctx, cancel := context.WithTimeout(r.srv.ctx, busTimeout)
	defer cancel()
	p.Page, p.err = r.srv.cfg.Bus.After(ctx, r.name, since, wire.MaxPage, pieceBytes)
	r.mu.Lock()
	delete(r.pages, since)
	r.mu.Unlock()
	close(p.read)
	return p.Page, p.err
}
