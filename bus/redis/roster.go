package redis

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

// A roster is who is in a room: what Redis has, and what this node wants. Enter and Leave change what this node wants at once;
// rosterLoop makes it true in Redis.
type roster struct {
	bus  *Bus
	keys *roomKeys

	mu      sync.Mutex          // a leaf
	users   map[string]string   // guarded by mu, as is all of this; as Redis has them: id -> name; nil where not subscribed
	version uint64              // of users
	want    map[string]string   // who is to be a member through this node: id -> name
	absent  int                 // how many of them are not in users
	dirty   map[string]struct{} // users of whom it is not known that Redis has them as wanted
	leaving map[string]uint64   // users who left here, till users has that: id -> the version that does without them
	awaited uint64              // the latest of these versions; 0 for none
	indexed string              // the incarnation whose index names this room
	queued  bool                // rosterLoop is to look at it
	writes  uint64              // how often something was sent for it
	open    bool                // subscribed to
}

// rosterLocked gives the room's roster. r.mu is held.
func (r *Bus) rosterLocked(k *roomKeys) *roster {
	ro := r.rosters[k.room]
	if ro == nil {
		ro = &roster{
			bus: r, keys: k,
			want: make(map[string]string), dirty: make(map[string]struct{}), leaving: make(map[string]uint64),
		}
		r.rosters[k.room] = ro
	}
	ro.mu.Lock()
	ro.open = true
	ro.users, ro.version, ro.absent = map[string]string{}, 0, len(ro.want)
	clear(ro.leaving)
	ro.mu.Unlock()
	return ro
}

// Enter implements bus.Subscription.
func (rm *room) Enter(m bus.Member) { rm.roster.enter(m) }

// Leave implements bus.Subscription.
func (rm *room) Leave(user string) { rm.roster.leave(user) }

// Roster implements bus.Subscription.
func (rm *room) Roster() bus.Roster { return rm.roster.snapshot() }

func (ro *roster) enter(m bus.Member) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	name, wanted := ro.want[m.ID]
	if !ro.open || wanted && name == m.Name {
		return
	}
	ro.want[m.ID] = m.Name
	delete(ro.leaving, m.ID)
	if _, there := ro.users[m.ID]; !wanted && !there {
		ro.absent++
	}
	ro.changedLocked(m.ID)
}

func (ro *roster) leave(user string) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.leaveLocked(user)
}

func (ro *roster) leaveLocked(user string) {
	if _, wanted := ro.want[user]; !wanted {
		return
	}
	delete(ro.want, user)
	ro.leaving[user] = math.MaxUint64 // until Redis tells which it is
	if _, there := ro.users[user]; !there {
		ro.absent--
	}
	ro.changedLocked(user)
}

// leaveAll is called when the subscription ends.
func (ro *roster) leaveAll() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.open = false
	for user := range ro.want {
		ro.leaveLocked(user)
	}
	ro.users, ro.absent = nil, 0
	clear(ro.leaving)
	ro.queueLocked() // even if nobody was in it, so that it is forgotten
}

func (ro *roster) changedLocked(user string) {
	ro.dirty[user] = struct{}{}
	ro.queueLocked()
}

func (ro *roster) queueLocked() {
	if !ro.queued {
		ro.queued = true
		ro.bus.changes.add(ro)
	}
}

// plan takes what is to be written, nil for nothing. fresh reports that the incarnation's index does not name the room yet.
func (ro *roster) plan(inc string, leased int64) (p *rosterPlan, fresh bool) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.queued = false
	if len(ro.dirty) == 0 {
		return nil, false
	}
	r := ro.bus
	fresh = ro.indexed != inc
	ro.indexed = inc
	ro.writes++
	p = &rosterPlan{roster: ro}
	args := []any{
		"evalsha", membersSHA, 3, ro.keys.users, ro.keys.nodes, ro.keys.usersOf(inc),
		ro.keys.channel, inc, r.changeNumber.Add(1), r.cfg.presenceLife.Milliseconds(), leased,
	}
	for user := range ro.dirty {
		if len(p.users) == rosterUsers {
			ro.queueLocked()
			break
		}
		sign := "-"
		name, wanted := ro.want[user]
		if wanted {
			sign = "+"
		}
		args = append(args, sign, user, name)
		p.users = append(p.users, user)
		delete(ro.dirty, user)
	}
	p.cmd = redis.NewCmd(context.Background(), args...)
	return p, fresh
}

// written is called when Redis answered, or failed to: ok says that it has the users as they were wanted, in that version.
func (ro *roster) written(users []string, ok bool, version uint64) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, user := range users {
		_, leaving := ro.leaving[user]
		if _, again := ro.dirty[user]; leaving && ok && !again { // else what was written is not that it left
			ro.leaving[user], ro.awaited = version, max(ro.awaited, version)
		}
	}
	ro.arrivedLocked()
	if !ok {
		ro.indexed = ""
		for _, user := range users {
			ro.dirty[user] = struct{}{}
		}
	}
	if !ok || !ro.open {
		ro.queueLocked() // once more at least, so that it is forgotten
	}
}

// renew enters everyone anew, under another incarnation.
func (ro *roster) renew() {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	clear(ro.dirty)
	clear(ro.leaving)
	for user := range ro.want {
		ro.dirty[user] = struct{}{}
	}
	ro.queueLocked()
}

func (ro *roster) snapshot() bus.Roster {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	out := bus.Roster{Count: len(ro.users) + ro.absent, Version: ro.version}
	for user := range ro.leaving {
		if _, there := ro.users[user]; there {
			out.Count--
		}
	}
	out.Members = make([]bus.Member, 0, min(out.Count, bus.RosterMax))
	for user, name := range ro.want {
		if len(out.Members) == bus.RosterMax {
			return out
		}
		out.Members = append(out.Members, bus.Member{ID: user, Name: name})
	}
	for user, name := range ro.users {
		if len(out.Members) == bus.RosterMax {
			return out
		}
		_, told := ro.want[user]
		if _, leaving := ro.leaving[user]; !told && !leaving {
			out.Members = append(out.Members, bus.Member{ID: user, Name: name})
		}
	}
	return out
}

// A rosterChange is what members.lua publishes.
type rosterChange struct {
	version uint64
	kind    byte // '+' entered, '-' left, '=' changed the name
	count   int
	member  bus.Member
}

var errChange = errors.New("not a change of a roster")

// parseRosterChange reads "version kind count idlength idname".
func parseRosterChange(s string) (c rosterChange, err error) {
	f := strings.SplitN(s, " ", 5)
	if len(f) != 5 || len(f[1]) != 1 {
		return c, errChange
	}
	c.kind = f[1][0]
	var err1, err2, err3 error
	var n int
	c.version, err1 = strconv.ParseUint(f[0], 10, 64)
	c.count, err2 = strconv.Atoi(f[2])
	n, err3 = strconv.Atoi(f[3])
	if err1 != nil || err2 != nil || err3 != nil || n < 0 || n > len(f[4]) {
		return c, errChange
	}
	c.member = bus.Member{ID: f[4][:n], Name: f[4][n:]}
	return c, nil
}

const (
	heldChangesMax = 1024 // changes held while the roster is being read
	changesMax     = 100  // that are told one by one
)

// rosterChangedLocked takes a published change.
func (rm *room) rosterChangedLocked(c rosterChange) {
	if rm.state == joining || rm.rosterStale {
		if len(rm.heldChanges) < heldChangesMax { // what is too much is noticed by its version
			rm.heldChanges = append(rm.heldChanges, c)
		}
		return
	}
	if !rm.applyChangeLocked(c) {
		rm.rosterStale = true
		rm.heldChanges = append(rm.heldChanges, c)
		rm.readSoonLocked()
	}
}

// applyChangeLocked takes the next change of the roster and tells it to the sink. It returns false if changes were missed.
func (rm *room) applyChangeLocked(c rosterChange) bool {
	ro := rm.roster
	ro.mu.Lock()
	_, there := ro.users[c.member.ID]
	first := ro.version == 0 && c.kind == '+' && c.count == 1 && len(ro.users) == 0
	switch {
	case c.version <= ro.version:
		ro.mu.Unlock()
		return true
	case c.version != ro.version+1 && !first:
		ro.mu.Unlock()
		return false
	}
	ro.version = c.version
	kind := bus.Joined
	if c.kind == '-' {
		ro.removeLocked(c.member.ID)
		kind = bus.Left
	} else {
		ro.putLocked(c.member)
	}
	if ro.awaited != 0 && ro.awaited <= c.version {
		ro.arrivedLocked()
	}
	ro.mu.Unlock()
	if there == (kind == bus.Left) { // otherwise it was told before, or is a new name
		rm.sink.Presence(bus.Change{Kind: kind, Member: c.member, Count: c.count, Version: c.version})
	}
	return true
}

func (ro *roster) putLocked(m bus.Member) {
	_, there := ro.users[m.ID]
	if _, wanted := ro.want[m.ID]; wanted && !there {
		ro.absent--
	}
	ro.users[m.ID] = m.Name
}

func (ro *roster) removeLocked(user string) {
	_, there := ro.users[user]
	if _, wanted := ro.want[user]; wanted && there {
		ro.absent++
	}
	delete(ro.users, user)
}

// arrivedLocked forgets leaves that the version at hand has. Who left here, and is in the room over another node, shows again.
func (ro *roster) arrivedLocked() {
	if ro.awaited <= ro.version {
		ro.awaited = 0
	}
	for user, version := range ro.leaving {
		if version <= ro.version {
			delete(ro.leaving, user)
		}
	}
}

// replace takes the users that Redis has and returns how they differ from those known.
func (ro *roster) replace(users map[string]string, version uint64) (changes []bus.Change) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	count := len(ro.users)
	for user, name := range ro.users {
		if _, there := users[user]; !there {
			count--
			changes = append(changes, bus.Change{Kind: bus.Left, Member: bus.Member{ID: user, Name: name}, Count: count, Version: version})
		}
	}
	for user, name := range users {
		if _, there := ro.users[user]; !there {
			count++
			changes = append(changes, bus.Change{Kind: bus.Joined, Member: bus.Member{ID: user, Name: name}, Count: count, Version: version})
		}
	}
	ro.users, ro.version, ro.absent = users, version, 0
	ro.arrivedLocked()
	for user := range ro.want {
		if _, there := users[user]; !there {
			ro.absent++
		}
	}
	return changes
}

// usersOf reads the answer to HGETALL of a room's users.
func usersOf(cmd *redis.Cmd) map[string]string {
	flat, _ := cmd.Val().([]any)
	users := make(map[string]string, len(flat)/2)
	for i := 0; i+1 < len(flat); i += 2 {
		user, _ := flat[i].(string)
		value, _ := flat[i+1].(string)
		_, users[user], _ = strings.Cut(value, " ")
	}
	return users
}

func (ro *roster) versionNow() uint64 {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	return ro.version
}

func parseVersion(s string) uint64 {
	v, _ := strconv.ParseUint(s, 10, 64)
	return v
}
