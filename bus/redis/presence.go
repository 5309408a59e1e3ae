package redis

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

const (
	rosterBatch = 128 // rosters written in one pipeline
	rosterUsers = 100 // of one roster in it
)

// rosterLoop writes to Redis who is in which room through this node. Each roster has one change on its way at a time. A change
// that failed, or may have failed, is sent again under a higher number; that also stops the first attempt if it arrives
// late.
func (r *Bus) rosterLoop() {
	defer close(r.left)
	for {
		taken := r.changes.take(rosterBatch, r.leaving)
		if taken == nil {
			return
		}
		if r.writeRosters(taken) {
			continue
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-r.leaving:
		}
	}
}

// A rosterPlan is what is to be written of one roster.
type rosterPlan struct {
	roster *roster
	users  []string // whose state it makes true
	cmd    *redis.Cmd
}

// writeRosters returns false if it should be tried again later.
func (r *Bus) writeRosters(taken []*roster) (ok bool) {
	inc, leased := r.lease.current()
	plans := make([]*rosterPlan, 0, len(taken))
	var index []any
	for _, ro := range taken {
		plan, fresh := ro.plan(inc, leased)
		if plan == nil {
			r.forgetRoster(ro)
			continue
		}
		plans = append(plans, plan)
		if fresh {
			index = append(index, ro.keys.room)
		}
	}
	err := r.writeIndex(inc, index)
	if err == nil && len(plans) > 0 {
		cmds := make([]redis.Cmder, len(plans))
		for i, p := range plans {
			cmds[i] = p.cmd
		}
		err = exec(context.Background(), r.own, cmds)
	}
	ok = err == nil
	var left []*roster
	for _, p := range plans {
		e := err
		if e == nil {
			e = p.cmd.Err()
		}
		n, version := membersAnswer(p.cmd)
		p.roster.written(p.users, e == nil && n >= 0, version)
		switch {
		case e != nil:
			ok = false
			r.complain("write who is in a room", e)
		case n < 0: // too late: another change, or another incarnation, makes up for it
			ok = false
		case n == 0:
			left = append(left, p.roster)
		}
	}
	r.leaveIndex(inc, left)
	return ok
}

// membersAnswer reads what members.lua answers.
func membersAnswer(cmd *redis.Cmd) (left int64, version uint64) {
	both, err := cmd.Int64Slice()
	if err != nil || len(both) != 2 {
		return -1, 0
	}
	return both[0], uint64(both[1])
}

// forgetRoster drops a roster that nobody needs.
func (r *Bus) forgetRoster(ro *roster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if !ro.open && len(ro.dirty) == 0 && r.rosters[ro.keys.room] == ro {
		delete(r.rosters, ro.keys.room)
	}
}

// writeIndex notes rooms that an incarnation is about to be in. It comes before the incarnation is in them, so that whoever
// reaps it finds them.
func (r *Bus) writeIndex(inc string, rooms []any) error {
	if len(rooms) == 0 {
		return nil
	}
	q := r.query(context.Background(), r.own)
	q.do(append([]any{"sadd", roomsOfKey(inc)}, rooms...)...)
	q.do("pexpire", roomsOfKey(inc), r.cfg.presenceLife.Milliseconds())
	return q.send()
}

// leaveIndex takes out of the index the rooms that nobody is in through this node. It does no harm if it fails.
func (r *Bus) leaveIndex(inc string, left []*roster) {
	var rooms []any
	for _, ro := range left {
		ro.mu.Lock()
		if len(ro.want) == 0 && len(ro.dirty) == 0 && ro.indexed == inc {
			ro.indexed = ""
			rooms = append(rooms, ro.keys.room)
		}
		ro.mu.Unlock()
	}
	if len(rooms) > 0 {
		q := r.query(context.Background(), r.own)
		q.do(append([]any{"srem", roomsOfKey(inc)}, rooms...)...)
		_ = q.send()
	}
}

// leaveAll takes this node's members out of all rooms, and gives up the lease.
func (r *Bus) leaveAll() {
	close(r.leaving)
	<-r.left
	inc, _ := r.lease.current()
	if inc == "" {
		return
	}
	r.mu.RLock()
	rooms := make([]string, 0, len(r.rosters))
	for room, ro := range r.rosters {
		ro.mu.Lock()
		if ro.indexed != "" || len(ro.dirty) > 0 {
			rooms = append(rooms, room)
		}
		ro.mu.Unlock()
	}
	r.mu.RUnlock()
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Timeout)
	defer cancel()
	if r.reapRooms(ctx, inc, rooms) != nil {
		return // the lease ends, and others do it
	}
	q := r.query(ctx, r.own)
	q.do("del", leaseKey(inc))
	q.do("del", roomsOfKey(inc))
	_ = q.send()
}

// Roster implements bus.Bus.
func (r *Bus) Roster(ctx context.Context, room string) (bus.Roster, error) {
	k := r.keys(room)
	q := r.query(ctx, r.reads)
	version, count := q.do("hget", k.nodes, "v"), q.do("hlen", k.users)
	users := q.do("hrandfield", k.users, bus.RosterMax, "withvalues")
	if err := q.send(); err != nil {
		return bus.Roster{}, err
	}
	out := bus.Roster{}
	out.Version, _ = version.Uint64()
	n, _ := count.Int()
	out.Count = n
	for user, name := range usersOf(users) {
		out.Members = append(out.Members, bus.Member{ID: user, Name: name})
	}
	return out, nil
}
