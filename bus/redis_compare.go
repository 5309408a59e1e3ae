package bus

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// compareMost is how many rooms are compared in a second.
const compareMost = 2000

// compared is what compareLoop knows of a room.
type compared struct {
	at        time.Time // of the last comparison
	touched   time.Time // when it was last found in use
	refreshed time.Time // when its keys' lives were last prolonged
	last      ID        // a newer id than ours, seen then: it must have arrived by now
	version   uint64    // and a newer version of the roster
	suspect   bool
}

// compareLoop compares rooms with Redis, since the loss of the last message before a silence, or of the tail of a log,
// shows nowhere else. It keeps what occupied rooms have in Redis from expiring, and tries again what failed.
func (r *Redis) compareLoop() {
	tick := time.NewTicker(r.cfg.CompareInterval / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		due := r.dueRooms()
		for len(due) > 0 {
			n := min(len(due), repairRooms)
			if err := r.compareRooms(due[:n]); err != nil {
				if r.ctx.Err() == nil {
					r.complain("compare rooms", err)
				}
				break
			}
			due = due[n:]
		}
	}
}

func (r *Redis) dueRooms() (due []*redisRoom) {
	now := time.Now()
	most := max(1, int(compareMost*r.cfg.CompareInterval/3/time.Second))
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, rm := range r.rooms {
		c := &rm.compared
		if rm.touched.Swap(false) {
			c.touched = now
		}
		interval := r.cfg.CompareInterval
		if now.Sub(c.touched) > 4*interval {
			interval *= 4
		}
		if c.suspect || now.Sub(c.at) >= interval {
			due = append(due, rm)
		}
		if len(due) == most {
			break
		}
	}
	return due
}

// A comparison is one room's.
type comparison struct {
	room    *redisRoom
	at      ID     // ours, before the read
	version uint64 // ours, before the read
	want    int    // members through this node
	inc     string // whose members were counted; "" if there is something to be written first

	last, nodes, own *redis.Cmd
}

func (r *Redis) compareRooms(rooms []*redisRoom) error {
	inc, valid := r.lease.current()
	now := time.Now()
	q := r.query(r.ctx)
	comparisons := make([]*comparison, 0, len(rooms))
	for _, rm := range rooms {
		rm.compared.at = now
		c := &comparison{room: rm}
		rm.turn.Lock()
		state, confirmed := rm.state, rm.isConfirmed
		c.at = rm.at
		rm.turn.Unlock()
		if state != live && confirmed { // it failed, or is under way
			r.repairs.add(rm)
		}
		if state != live {
			continue
		}
		ro := rm.roster
		ro.mu.Lock()
		c.version, c.want = ro.version, len(ro.want)
		if valid && !ro.queued && len(ro.dirty) == 0 && ro.in == inc {
			c.inc = inc
		}
		ro.mu.Unlock()
		c.last, c.nodes = q.get(rm.keys.last), q.do("hgetall", rm.keys.nodes)
		if c.inc != "" {
			c.own = q.do("scard", rm.keys.usersOf(inc))
		}
		if now.Sub(rm.compared.refreshed) > refreshEvery {
			rm.compared.refreshed = now
			q.do("pexpire", rm.keys.last, r.lastLife().Milliseconds())
			for _, key := range []string{rm.keys.users, rm.keys.nodes, rm.keys.usersOf(inc)} {
				q.do("pexpire", key, presenceLife.Milliseconds())
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

// refreshEvery is how often the keys of an occupied room are kept from expiring; they live for an hour at least.
const refreshEvery = 10 * time.Minute

// settle has the room repaired if it lags behind what was there a while ago, or is ahead of it.
func (c *comparison) settle() {
	rm := c.room
	r := rm.bus
	last := idOf(c.last)
	nodes, _ := c.nodes.Val().([]any)
	var version uint64
	own := false
	for i := 0; i+1 < len(nodes); i += 2 {
		field, _ := nodes[i].(string)
		switch field {
		case "v":
			value, _ := nodes[i+1].(string)
			version = parseVersion(value)
		case c.inc:
			own = true
		default:
			r.reaper.suspect(field, rm.name)
		}
	}
	if c.inc != "" && c.want > 0 && !own {
		rm.roster.renew()
	} else if n, _ := c.ownCount(); c.inc != "" && n != c.want {
		r.compareMembers(c)
	}

	rm.turn.Lock()
	defer rm.turn.Unlock()
	if rm.state != live {
		return
	}
	before := rm.compared
	rm.compared.suspect = false
	acked := rm.ackedID()
	switch {
	case last.Less(c.at), before.suspect && rm.at.Less(before.last):
		rm.repairNow()
		return
	case rm.at.Less(last), rm.at.Less(acked):
		rm.compared.suspect = true
		rm.compared.last = last
		if last.Less(acked) {
			rm.compared.last = acked
		}
	}
	ours := rm.roster.versionNow()
	switch {
	case rm.unsure:
	case version < c.version, before.suspect && ours < before.version:
		rm.unsure = true
		r.repairs.add(rm)
	case ours < version:
		rm.compared.suspect = true
		rm.compared.version = version
	}
}

func (c *comparison) ownCount() (int, error) {
	if c.own == nil {
		return 0, nil
	}
	return c.own.Int()
}

// compareMembers finds who is in a room through this node without wanting to be, or is not and should be.
func (r *Redis) compareMembers(c *comparison) {
	q := r.query(r.ctx)
	own := q.do("smembers", c.room.keys.usersOf(c.inc))
	if q.send() != nil {
		return
	}
	users, _ := own.StringSlice()
	ro := c.room.roster
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.queued || len(ro.dirty) > 0 {
		return
	}
	for _, user := range users {
		ro.dirty[user] = struct{}{}
	}
	for user := range ro.want {
		ro.dirty[user] = struct{}{}
	}
	if len(ro.dirty) > 0 {
		ro.queueLocked()
	}
}
