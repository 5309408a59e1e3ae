package redis

import (
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

// reconcileMost bounds how many rooms are compared in a second.
const reconcileMost = 2000

// reconciled is what reconcileLoop knows of a room.
type reconciled struct {
	at        time.Time // of the last comparison
	touched   time.Time // when it was last found in use
	refreshed time.Time // when its keys' lives were last prolonged
	last      bus.ID    // a newer id than ours, seen then: it must have arrived by now
	version   uint64    // and a newer version of the roster
	suspect   bool
}

// reconcileLoop compares rooms with Redis: the loss of the last message before a silence, or of the tail of a log, shows
// nowhere else. It also keeps the keys of occupied rooms from expiring, and tries again what failed.
func (r *Bus) reconcileLoop() {
	tick := time.NewTicker(r.cfg.CompareInterval / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		r.mendTrails()
		for _, l := range r.links {
			l.subscriber.askAgain()
		}
		due := r.dueRooms()
		for len(due) > 0 {
			n := min(len(due), repairRooms)
			if err := r.reconcileRooms(due[:n]); err != nil {
				if r.ctx.Err() == nil {
					r.complain("compare rooms", err)
				}
				break
			}
			due = due[n:]
		}
	}
}

func (r *Bus) dueRooms() (due []*room) {
	now := time.Now()
	most := max(1, int(reconcileMost*r.cfg.CompareInterval/3/time.Second))
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, rm := range r.rooms {
		c := &rm.reconciled
		if rm.touched.Swap(false) {
			c.touched = now
		}
		interval := r.cfg.CompareInterval
		if now.Sub(c.touched) > 4*interval {
			interval *= 2
		}
		if c.suspect || len(due) < most && now.Sub(c.at) >= interval {
			due = append(due, rm)
		}
	}
	return due
}

// A comparison is what is compared of one room.
type comparison struct {
	room    *room
	at      bus.ID // ours, before the read
	version uint64 // ours, before the read
	want    int    // members through this node
	writes  uint64 // of the roster, before the read
	inc     string // whose members were counted; "" if there is something to be written first

	last, nodes, own *redis.Cmd
}

func (r *Bus) reconcileRooms(rooms []*room) error {
	inc, _ := r.lease.current()
	now := time.Now()
	refreshEvery := r.cfg.presenceLife / 6
	q := r.query(r.ctx, r.own)
	comparisons := make([]*comparison, 0, len(rooms))
	for _, rm := range rooms {
		rm.reconciled.at = now
		c := &comparison{room: rm}
		rm.mu.Lock()
		state, confirmed := rm.state, rm.isConfirmed
		c.at = rm.at
		if state != live && confirmed { // it failed, or is under way
			rm.readSoonLocked()
		}
		rm.mu.Unlock()
		if state != live {
			continue
		}
		ro := rm.roster
		ro.mu.Lock()
		c.version, c.want, c.writes = ro.version, len(ro.want), ro.writes
		if !ro.queued && len(ro.dirty) == 0 && ro.indexed == inc {
			c.inc = inc
		}
		ro.mu.Unlock()
		c.last, c.nodes = q.get(rm.keys.last), q.do("hgetall", rm.keys.nodes)
		if c.inc != "" {
			c.own = q.do("scard", rm.keys.usersOf(inc))
		}
		if now.Sub(rm.reconciled.refreshed) > refreshEvery {
			rm.reconciled.refreshed = now
			q.do("pexpire", rm.keys.last, r.lastLife().Milliseconds())
			for _, key := range []string{rm.keys.users, rm.keys.nodes, rm.keys.usersOf(inc)} {
				q.do("pexpire", key, r.cfg.presenceLife.Milliseconds())
			}
		}
		comparisons = append(comparisons, c)
	}
	if len(q.cmds) == 0 {
		return nil
	}
	if err := q.send(); err != nil {
		return err
	}
	for _, c := range comparisons {
		c.settle()
	}
	return nil
}

// settle starts a repair if the room lags behind what Redis had at the comparison before, or is ahead of Redis.
func (c *comparison) settle() {
	rm := c.room
	r := rm.bus
	last := idOf(c.last)
	nodes, _ := c.nodes.Val().([]any)
	var version uint64
	ownIsThere := false
	for i := 0; i+1 < len(nodes); i += 2 {
		field, _ := nodes[i].(string)
		switch field {
		case "v":
			value, _ := nodes[i+1].(string)
			version = parseVersion(value)
		case c.inc:
			ownIsThere = true
		default:
			r.reaper.suspect(field, rm.name)
		}
	}
	if c.inc != "" {
		n, _ := c.own.Int()
		c.settleOwn(n, ownIsThere)
	}

	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state != live {
		return
	}
	before := rm.reconciled
	rm.reconciled.suspect = false
	acked := rm.ackedID()
	switch {
	case last.Less(c.at), before.suspect && rm.at.Less(before.last):
		rm.repairNowLocked()
		return
	case rm.at.Less(last), rm.at.Less(acked):
		rm.reconciled.suspect = true
		rm.reconciled.last = last
		if last.Less(acked) {
			rm.reconciled.last = acked
		}
	}
	ours := rm.roster.versionNow()
	switch {
	case rm.rosterStale: // and the read failed, or is under way
		rm.readSoonLocked()
	case version < c.version, before.suspect && ours < before.version:
		rm.rosterStale = true
		rm.readSoonLocked()
	case ours < version:
		rm.reconciled.suspect = true
		rm.reconciled.version = version
	}
}

// settleOwn writes this node's members of the room anew if Redis has others.
func (c *comparison) settleOwn(n int, known bool) {
	ro := c.room.roster
	if n == c.want && (known || n == 0) {
		return
	}
	q := ro.bus.query(ro.bus.ctx, ro.bus.own)
	own := q.do("smembers", ro.keys.usersOf(c.inc))
	if q.send() != nil {
		return
	}
	users, _ := own.StringSlice()
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.writes != c.writes || len(ro.dirty) > 0 {
		return // it changed meanwhile
	}
	for _, user := range users {
		ro.dirty[user] = struct{}{}
	}
	for user := range ro.want {
		ro.dirty[user] = struct{}{}
	}
	ro.queueLocked()
}
