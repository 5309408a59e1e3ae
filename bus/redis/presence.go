package redis

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

const (
	rosterBatch = 128  // rosters written in one pipeline
	rosterUsers = 100  // of one roster in it
	readUsers   = 1000 // of each incarnation in a room that this node is not subscribed to

	// rosterPause is the least time between the beginnings of two writes, unless as many wait as one may have. What changes in a quiet
	// moment is written at once; while many come, those who enter the same room share a write, and are told together.
	rosterPause = 10 * time.Millisecond
)

// rosterLoop writes to Redis who is in which room through this node. Each roster has one change on its way at a time. A change
// that failed is sent again; after one that may have failed, all of the roster is, under a higher number: that also stops the
// first attempt if it arrives late.
func (r *Bus) rosterLoop() {
	defer close(r.left)
	var began time.Time
	for {
		time.Sleep(rosterWait(r.changes.len(), time.Since(began)))
		taken := r.changes.take(rosterBatch, r.leaving)
		if taken == nil {
			return
		}
		began = time.Now()
		if r.writeRosters(taken) {
			continue
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-r.leaving:
		}
	}
}

// rosterWait is how long the next write waits, where so many rosters do, since the last one began.
func rosterWait(waiting int, since time.Duration) time.Duration {
	if waiting >= rosterBatch {
		return 0
	}
	return max(0, rosterPause-since)
}

// writeRosters returns false if it should be tried again later.
func (r *Bus) writeRosters(taken []*roster) (ok bool) {
	r.writing.Lock()
	defer r.writing.Unlock()
	inc, leased := r.lease.current()
	if inc == "" { // the server has not let us in yet
		for _, ro := range taken {
			r.changes.add(ro, false)
		}
		return false
	}
	plans := make([]*rosterPlan, 0, len(taken))
	var index []any
	for _, ro := range taken {
		p := ro.plan(inc, leased)
		if p == nil {
			r.forgetRoster(ro)
			continue
		}
		plans = append(plans, p)
		if p.fresh {
			index = append(index, ro.keys.room)
		}
	}
	if now, _ := r.lease.current(); now != inc { // who took it has found some of them waiting still
		for _, p := range plans {
			p.roster.rewrite()
		}
	}
	ok = true
	if err := r.writeIndex(inc, index); err != nil {
		ok = false
		r.complain("write who is in a room", err)
		plans = slices.DeleteFunc(plans, func(p *rosterPlan) bool { return p.fresh && !p.roster.written(p, err) })
	}
	if len(plans) == 0 {
		return ok
	}
	cmds := make([]redis.Cmder, len(plans))
	for i, p := range plans {
		cmds[i] = p.cmd
	}
	err := r.exec(r.ctx, r.own, cmds)
	written := make([]*roster, 0, len(plans))
	former := make(map[string][]*roster)
	for _, p := range plans {
		if !p.roster.written(p, err) {
			ok = false
			if e := cmp.Or(err, p.cmd.Err()); e != nil {
				r.complain("write who is in a room", e)
			}
			continue
		}
		written = append(written, p.roster)
		for _, inc := range p.former {
			former[inc] = append(former[inc], p.roster)
		}
	}
	for inc, rosters := range former {
		rooms := make([]string, len(rosters))
		for i, ro := range rosters {
			rooms[i] = ro.keys.room
		}
		err := r.reapRooms(r.ctx, inc, rooms)
		if err != nil {
			ok = false
			r.complain("leave rooms under an earlier lease", err)
		}
		for _, ro := range rosters {
			ro.leftUnder(inc, err == nil)
		}
	}
	r.leaveIndex(inc, written)
	return ok
}

// forgetRoster drops a roster that nobody needs.
func (r *Bus) forgetRoster(ro *roster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.open == nil && ro.settledLocked() && r.rosters[ro.keys.room] == ro {
		delete(r.rosters, ro.keys.room)
	}
}

// leaveAll takes this node's members out of all rooms, and gives up the lease. The loop that writes rosters is about to end.
func (r *Bus) leaveAll() {
	select {
	case <-r.left:
	case <-time.After(silence):
		return // the lease ends, and others do it
	}
	inc, _ := r.lease.current()
	if inc == "" {
		return
	}
	in := make(map[string][]string)
	r.mu.RLock()
	for room, ro := range r.rosters {
		ro.mu.Lock()
		if ro.touched {
			in[ro.inc] = append(in[ro.inc], room)
		}
		for _, former := range ro.former {
			in[former] = append(in[former], room)
		}
		ro.mu.Unlock()
	}
	r.mu.RUnlock()
	for inc, rooms := range in {
		for some := range slices.Chunk(rooms, rosterBatch) {
			if r.leaveRooms(inc, some) != nil {
				return
			}
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, silence)
	defer cancel()
	if more, err := r.readIndex(ctx, inc); err != nil || r.reapRooms(ctx, inc, more) != nil {
		return
	}
	q := r.query(ctx, r.own)
	q.do("del", leaseKey(inc))
	for _, tag := range r.tags() {
		q.do("srem", incarnationsKey(tag), inc)
	}
	_ = q.send()
}

func (r *Bus) leaveRooms(inc string, rooms []string) error {
	ctx, cancel := context.WithTimeout(r.ctx, silence)
	defer cancel()
	return r.reapRooms(ctx, inc, rooms)
}

// Roster implements bus.Bus. Where many are in the room through one node, those who are there through others as well may be
// counted twice.
func (r *Bus) Roster(ctx context.Context, room string) (bus.Roster, error) {
	q := r.query(ctx, r.reads)
	cmd := q.readRoster(r.keys(room), readUsers, nil)
	if err := q.send(); err != nil {
		return bus.Roster{}, err
	}
	rd, err := parseRosterRead(cmd)
	if err != nil {
		return bus.Roster{}, unavailable(err)
	}
	all, users, whole := 0, make(map[string]name), true
	for inc, set := range rd.sets {
		r.reaper.suspect(inc, room)
		all += rd.counts[inc]
		whole = whole && rd.counts[inc] == len(set)
		for _, u := range set {
			if n, there := users[u.id]; !there || u.name.laterThan(n) {
				users[u.id] = u.name
			}
		}
	}
	out := bus.Roster{Count: len(users), Version: rd.version}
	if !whole {
		out.Count = all
	}
	for user, n := range users {
		if len(out.Members) == bus.RosterMax {
			break
		}
		out.Members = append(out.Members, bus.Member{ID: user, Name: n.text})
	}
	return out, nil
}
