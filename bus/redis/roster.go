package redis

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

// A roster is who is in a room. Enter and Leave change what this node wants, and rosterLoop writes that to Redis. Who is there
// is what Redis has, as far as this node has heard: the union over the incarnations of all nodes, this one's included. So what
// is told and what is listed change together, and in the same order on every node.
type roster struct {
	bus  *Bus
	keys *roomKeys

	mu sync.Mutex // a leaf; guards all of this

	want    map[string]wanted   // who is to be a member through this node
	dirty   map[string]struct{} // users of whom it is not known that Redis has them as wanted
	whole   bool                // it is not known what Redis has: all are to be written
	inc     string              // the incarnation that was last written under
	number  uint64              // of the last change that Redis took under it
	former  []string            // earlier incarnations, to be taken out of the room
	touched bool                // Redis may have something of it under inc
	indexed bool                // the incarnation's index names the room
	queued  bool                // rosterLoop is to look at it
	writes  uint64              // how often something was sent for it
	turn    int                 // the sort of users that is written next; see someLocked
	open    *room               // the subscription; nil without one

	sets    map[string]*userSet   // by incarnation
	users   map[string]attendance // their union
	version uint64
	listed  []bus.Member // of users, if they are many and have not changed since it was made

	unkept map[string]time.Time // users whose name no incarnation has, as whoever brought it has left -> since when
}

// wanted is a user who is to be a member through this node.
type wanted struct {
	name
	known bool // Redis had him once, or may have: keeping him takes no memory, or little
}

// A userSet is who is in the room through one incarnation, after the change of that number.
type userSet struct {
	number uint64
	users  map[string]name
	lost   time.Time // since when Redis lacks what is known of it; its node makes up for that
}

// attendance is a user in the room, through so many incarnations.
type attendance struct {
	name
	via int
}

// rosterLocked gives the roster of a room that is subscribed to. r.mu is held.
func (r *Bus) rosterLocked(rm *room) *roster {
	ro := r.rosterOfLocked(rm.name, rm.keys)
	ro.mu.Lock()
	ro.open = rm
	ro.sets, ro.users, ro.version, ro.listed = make(map[string]*userSet), make(map[string]attendance), 0, nil
	ro.unkept = nil
	ro.mu.Unlock()
	return ro
}

func (r *Bus) rosterOfLocked(name string, k *roomKeys) *roster {
	ro := r.rosters[name]
	if ro == nil {
		ro = &roster{bus: r, keys: k, want: make(map[string]wanted), dirty: make(map[string]struct{})}
		r.rosters[name] = ro
	}
	return ro
}

// Enter implements bus.Subscription.
func (rm *room) Enter(m bus.Member) { rm.roster.enter(rm, m) }

// Leave implements bus.Subscription.
func (rm *room) Leave(user string) { rm.roster.leave(rm, user) }

// Roster implements bus.Subscription.
func (rm *room) Roster() bus.Roster { return rm.roster.snapshot() }

// enter is called by a subscription, which need not be the one that there is by now.
func (ro *roster) enter(from *room, m bus.Member) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.open != from {
		return
	}
	w, again := ro.want[m.ID]
	n, latest := name{m.Name, m.Named}, w.name
	if a, there := ro.users[m.ID]; there && a.laterThan(latest) {
		latest = a.name
	}
	switch {
	case n.at == 0 && n.text != latest.text:
		n.at = max(ro.bus.now().UnixMilli(), latest.at+1)
	case !n.laterThan(latest) && latest.at > 0:
		n = latest
	case n.at == 0:
		n.at = ro.bus.now().UnixMilli()
	}
	if again && n == w.name {
		return
	}
	w.name = n
	ro.want[m.ID] = w
	ro.changedLocked(m.ID)
}

func (ro *roster) leave(from *room, user string) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if _, in := ro.want[user]; in && ro.open == from {
		delete(ro.want, user)
		ro.changedLocked(user)
	}
}

// leaveAll is called when the subscription ends.
func (ro *roster) leaveAll() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.open = nil
	for user := range ro.want {
		delete(ro.want, user)
		ro.dirty[user] = struct{}{}
	}
	ro.sets, ro.users, ro.listed, ro.unkept = nil, nil, nil, nil
	ro.queueLocked() // even if nobody was in it, so that it is forgotten
}

func (ro *roster) changedLocked(user string) {
	ro.dirty[user] = struct{}{}
	ro.queueLocked()
}

func (ro *roster) queueLocked() {
	if !ro.queued {
		ro.queued = true
		ro.bus.changes.add(ro, false)
	}
}

// rewrite has all written anew.
func (ro *roster) rewrite() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.whole = true
	ro.queueLocked()
}

// settledLocked reports whether Redis has what is wanted, as far as is known.
func (ro *roster) settledLocked() bool { return !ro.queued && !ro.whole && len(ro.dirty) == 0 }

// A rosterPlan is what is to be written of one roster.
type rosterPlan struct {
	roster *roster
	users  []string // whose state it makes true
	whole  bool     // they are all that the incarnation has
	fresh  bool     // the incarnation's index does not name the room yet
	former []string // are to be taken out of the room after it
	cmd    *redis.Cmd
}

// plan takes what is to be written, nil for nothing.
func (ro *roster) plan(inc string, leased int64) *rosterPlan {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.queued = false
	if ro.inc != inc {
		if ro.touched {
			ro.former = append(ro.former, ro.inc)
		}
		ro.former = slices.DeleteFunc(ro.former, func(former string) bool { return former == inc }) // where the room has come back
		ro.inc, ro.number, ro.whole, ro.touched, ro.indexed = inc, 0, true, false, false
	}
	if len(ro.want) == 0 && !ro.touched && len(ro.former) == 0 {
		ro.whole = false // Redis has nothing of it, and is to have nothing
		clear(ro.dirty)
	}
	if !ro.whole && len(ro.dirty) == 0 {
		return nil
	}
	p := &rosterPlan{roster: ro, whole: ro.whole, former: slices.Clone(ro.former)}
	script, kind, enters := ro.bus.scripts.staying, "d", false
	args := make([]any, 10, 16)
	add := func(sign, user string, w wanted) {
		value := ""
		if sign == "+" {
			value, enters = w.value(), true
			if !w.known {
				script = ro.bus.scripts.members
			}
		}
		args = append(args, sign, user, value)
		p.users = append(p.users, user)
		delete(ro.dirty, user)
	}
	if ro.whole {
		kind = "w"
		clear(ro.dirty)
		most, first := ro.bus.cfg.wholeUsers, !ro.touched && len(ro.former) == 0
		if first {
			most = rosterUsers
		}
		for user, w := range ro.want {
			if len(p.users) < most && (first || w.known) {
				add("+", user, w)
			} else {
				ro.dirty[user] = struct{}{}
			}
		}
	} else {
		for _, user := range ro.someLocked() {
			if w, in := ro.want[user]; in {
				add("+", user, w)
			} else {
				add("-", user, wanted{})
			}
		}
	}
	if len(ro.dirty) > 0 {
		ro.queueLocked()
	}
	if len(p.former) > 0 && ro.owesLocked() {
		p.former = nil // not yet: that is what keeps them in the room
	}
	r := ro.bus
	copy(args, []any{
		"evalsha", script, 2, ro.keys.incarnations, ro.keys.usersOf(inc),
		ro.keys.channel, inc, kind, r.changeNumber.Add(1), ro.number,
	})
	args = slices.Insert(args, 10, any(r.cfg.presenceLife.Milliseconds()), any(leased))
	ro.writes++
	p.fresh = enters && !ro.indexed
	ro.indexed = ro.indexed || enters
	ro.whole, ro.touched = false, true
	p.cmd = redis.NewCmd(context.Background(), args...)
	return p
}

// someLocked gives some who are to be written, of one sort: who leaves, who was in before, or who was not. What the first two take is no
// memory, so a full Redis takes it. The sorts take turns: none waits until a crowd of another is written.
func (ro *roster) someLocked() []string {
	var sorts [3][]string
	for user := range ro.dirty {
		w, in := ro.want[user]
		sort := 0
		if in && w.known {
			sort = 1
		} else if in {
			sort = 2
		}
		if len(sorts[sort]) < rosterUsers {
			sorts[sort] = append(sorts[sort], user)
		}
	}
	for {
		some := sorts[ro.turn]
		if ro.turn = (ro.turn + 1) % len(sorts); len(some) > 0 {
			return some
		}
	}
}

// owesLocked reports whether somebody is still to be written whom Redis may have had.
func (ro *roster) owesLocked() bool {
	for user := range ro.dirty {
		if ro.want[user].known {
			return true
		}
	}
	return false
}

// written is called when Redis answered, or failed to. It reports whether Redis took what was planned.
func (ro *roster) written(p *rosterPlan, err error) (ok bool) {
	number := int64(answerUnknown)
	if err == nil {
		if number, err = p.cmd.Int64(); err != nil && !isReply(err) {
			number = answerUnknown
		}
	}
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ok = err == nil && number > 0
	if ok {
		ro.number = uint64(number)
		for _, user := range p.users {
			ro.mayHaveLocked(user)
		}
	} else {
		// What was refused has changed nothing. Otherwise it is not known what Redis has: whom it may have is not left out of the whole.
		unknown := err != nil && !isReply(err)
		for _, user := range p.users {
			ro.dirty[user] = struct{}{}
			if unknown {
				ro.mayHaveLocked(user)
			}
		}
		ro.indexed = ro.indexed && !p.fresh && err != nil // where Redis has changed, the index may have, too
		if number == answerReaped {
			ro.bus.lease.distrust(ro.inc)
		}
		ro.whole = ro.whole || p.whole || err == nil || unknown
	}
	if !ok || ro.open == nil {
		ro.queueLocked() // once more at least, so that it is forgotten
	}
	return ok
}

// leftUnder is told whether an earlier incarnation was taken out of the room. If not, that is tried again with the next that is written.
func (ro *roster) leftUnder(former string, ok bool) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ok {
		ro.former = slices.DeleteFunc(ro.former, func(inc string) bool { return inc == former })
		return
	}
	ro.whole = true
	ro.queueLocked()
}

// mayHaveLocked notes that Redis has a user, if it did what it was told.
func (ro *roster) mayHaveLocked(user string) {
	if w, in := ro.want[user]; in && !w.known {
		w.known = true
		ro.want[user] = w
	}
}

// What members.lua answers where it changes nothing. answerUnknown is none of it.
const (
	answerReaped  = -3
	answerUnknown = -4
)

// listedFrom is the size from which on a list of a room is kept: so many come to it at once that they share it.
const listedFrom = 64

func (ro *roster) snapshot() bus.Roster {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	out := bus.Roster{Members: ro.listed, Count: len(ro.users), Version: ro.version}
	if out.Members != nil {
		return out
	}
	out.Members = make([]bus.Member, 0, min(out.Count, bus.RosterMax))
	for user, a := range ro.users {
		if len(out.Members) == bus.RosterMax {
			break
		}
		out.Members = append(out.Members, bus.Member{ID: user, Name: a.text})
	}
	if out.Count >= listedFrom {
		ro.listed = out.Members
	}
	return out
}

const (
	heldChangesMax = 1024 // changes held while the roster is being read
	changesMax     = 100  // that are told one by one
)

// rosterChangedLocked takes a published change.
func (rm *room) rosterChangedLocked(c rosterChange) {
	if rm.rosterStale {
		rm.holdChangeLocked(c)
		return
	}
	if !rm.applyChangeLocked(c) {
		rm.rosterStale = true
		rm.readRosterSoonLocked()
	}
}

// holdChangeLocked keeps a change until the roster was read. What is too much is read.
func (rm *room) holdChangeLocked(c rosterChange) {
	if len(rm.heldChanges) == heldChangesMax || !rm.bus.held.take(c.size, rm.bus.cfg.heldBytes) {
		rm.changesDropped = true
		return
	}
	rm.heldChanges = append(rm.heldChanges, c)
}

// takeHeldChangesLocked gives what was held, which is held no more.
func (rm *room) takeHeldChangesLocked() []rosterChange {
	held := rm.heldChanges
	for _, c := range held {
		rm.bus.held.give(c.size)
	}
	rm.heldChanges = nil
	return held
}

// applyChangeLocked takes a change of the roster, and tells the sink what it changes for the room as a whole. It returns false
// if the incarnation must be read anew.
func (rm *room) applyChangeLocked(c rosterChange) bool {
	changes, ok := rm.roster.apply(c)
	for _, ch := range changes {
		rm.sink.Presence(ch)
	}
	return ok
}

func (ro *roster) apply(c rosterChange) (changes []bus.Change, ok bool) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	s := ro.sets[c.inc]
	had := uint64(0)
	if s != nil {
		had = s.number
	}
	t := ro.tellingLocked()
	switch {
	case c.kind == 'x':
		if s != nil && had > c.number {
			return nil, false // Redis had lost a part of it before
		}
		t.drop(c.inc)
	case c.number <= had:
		// known already
	case c.kind == 'w':
		t.replace(c.inc, c.number, c.users)
	case c.kind == 'd' && c.before == had && s != nil:
		s.number = c.number
		for _, u := range c.users {
			t.change(c.inc, s, u)
		}
	default:
		return nil, false
	}
	t.end(c.version)
	return t.changes, true
}

// numbers are what is known of each incarnation.
func (ro *roster) numbers() map[string]uint64 {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	out := make(map[string]uint64, len(ro.sets))
	for inc, s := range ro.sets {
		out[inc] = s.number
	}
	return out
}

// take takes what was read. Where Redis has lost what is known here, the node whose it is writes it anew: nobody leaves for
// that, unless it takes too long.
func (ro *roster) take(rd rosterRead) []bus.Change {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	t := ro.tellingLocked()
	for inc, s := range ro.sets {
		number, there := rd.numbers[inc]
		_, reaped := rd.reaped[inc]
		if !there && (reaped || ro.lostForLongLocked(s)) {
			t.drop(inc)
		} else if there && number == s.number {
			s.lost = time.Time{}
		}
	}
	for inc, users := range rd.sets {
		number := rd.numbers[inc]
		s := ro.sets[inc]
		if s == nil || number > s.number || number < s.number && ro.lostForLongLocked(s) {
			t.replace(inc, number, users)
		}
	}
	t.end(rd.version)
	return t.changes
}

// lostForLongLocked reports whether Redis has lacked for long what is known of an incarnation, and notes that it does.
func (ro *roster) lostForLongLocked(s *userSet) bool {
	if s.lost.IsZero() {
		s.lost = time.Now()
	}
	return time.Since(s.lost) > ro.bus.lostAfter()
}

// lostAfter is how long a node may take to write anew what Redis has lost: until it compares the room, twice.
func (r *Bus) lostAfter() time.Duration { return 3 * r.cfg.CompareInterval }
