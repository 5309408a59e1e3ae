package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
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
	former  string              // an earlier incarnation, to be taken out of the room
	touched bool                // Redis may have something of it under inc
	indexed bool                // the incarnation's index names the room
	queued  bool                // rosterLoop is to look at it
	writes  uint64              // how often something was sent for it
	open    *room               // the subscription; nil without one

	sets    map[string]*userSet   // by incarnation
	users   map[string]attendance // their union
	version uint64
	listed  []bus.Member // of users, if they are many and have not changed since it was made

	unkept map[string]time.Time // users whose name no incarnation has, as whoever brought it has left -> since when
}

// A name is what a user is called since a moment of Redis's clock, in ms since 1970. Of two names the later counts.
type name struct {
	text string
	at   int64
}

func (n name) laterThan(o name) bool { return n.at > o.at || n.at == o.at && n.text > o.text }

// value is how Redis has it.
func (n name) value() string { return strconv.FormatInt(n.at, 10) + " " + n.text }

func parseName(value string) name {
	at, text, _ := strings.Cut(value, " ")
	ms, _ := strconv.ParseInt(at, 10, 64)
	return name{text, ms}
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
	former string   // is to be taken out of the room after it
	cmd    *redis.Cmd
}

// plan takes what is to be written, nil for nothing. Who leaves is written before who enters, and who was in before him who was
// not: that takes no memory, so a full Redis takes it.
func (ro *roster) plan(inc string, leased int64) *rosterPlan {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.queued = false
	if ro.inc != inc {
		if ro.touched {
			ro.former = ro.inc
		}
		ro.inc, ro.number, ro.whole, ro.touched, ro.indexed = inc, 0, true, false, false
	}
	if len(ro.want) == 0 && !ro.touched && ro.former == "" {
		ro.whole = false // Redis has nothing of it, and is to have nothing
		clear(ro.dirty)
	}
	if !ro.whole && len(ro.dirty) == 0 {
		return nil
	}
	p := &rosterPlan{roster: ro, whole: ro.whole, former: ro.former}
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
		most, first := wholeUsers, !ro.touched && ro.former == ""
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
		for user := range ro.dirty {
			if _, in := ro.want[user]; !in && len(p.users) < rosterUsers {
				add("-", user, wanted{})
			}
		}
		if len(p.users) == 0 {
			for user := range ro.dirty {
				if len(p.users) == rosterUsers {
					break
				}
				add("+", user, ro.want[user])
			}
		}
	}
	if len(ro.dirty) > 0 {
		ro.queueLocked()
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
		if p.former == ro.former {
			ro.former = ""
		}
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

// leaveLater has an earlier incarnation, which could not be taken out of the room, taken out with the next that is written. It reports
// false where a later one is to be.
func (ro *roster) leaveLater(former string) bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.former != "" && ro.former != former {
		return false
	}
	ro.former, ro.whole = former, true
	ro.queueLocked()
	return true
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

// A rosterChange is what members.lua publishes.
type rosterChange struct {
	version, steps uint64 // the versions up to version are the change's
	inc            string
	before, number uint64
	kind           byte // 'd', 'w', 'r', 'x'
	users          []userChange
	size           int // bytes that it takes, about
}

type userChange struct {
	entered bool
	id      string
	name    name
}

var errChange = errors.New("not a change of a roster")

// parseRosterChange reads "version steps incarnation before number kind", and for each user "sign length length id value".
func parseRosterChange(s string) (c rosterChange, err error) {
	f := strings.SplitN(s, " ", 6)
	if len(f) != 6 || f[5] == "" {
		return c, errChange
	}
	for i, n := range map[int]*uint64{0: &c.version, 1: &c.steps, 3: &c.before, 4: &c.number} {
		if *n, err = strconv.ParseUint(f[i], 10, 64); err != nil {
			return c, errChange
		}
	}
	c.inc, c.kind = f[2], f[5][0]
	c.users, err = parseUsers(f[5][1:])
	c.size = heldOverhead*(1+len(c.users)) + len(s)
	return c, err
}

// parseUsers reads for each user "sign length length id value".
func parseUsers(s string) (users []userChange, err error) {
	for s != "" {
		var u userChange
		u.entered = s[0] == '+'
		idLen, after, ok := cutNumber(s[1:])
		valueLen, after, ok2 := cutNumber(after)
		if !ok || !ok2 || idLen+valueLen > len(after) {
			return nil, errChange
		}
		u.id, u.name = after[:idLen], parseName(after[idLen:idLen+valueLen])
		users = append(users, u)
		s = after[idLen+valueLen:]
	}
	return users, nil
}

func cutNumber(s string) (n int, after string, ok bool) {
	digits, after, ok := strings.Cut(s, " ")
	n, err := strconv.Atoi(digits)
	return n, after, ok && err == nil && n >= 0 && n <= len(after)
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

// A telling collects what changes for the room as a whole. roster.mu is held.
type telling struct {
	roster  *roster
	count   int                   // of users, before
	touched []string              // whom it may have changed, in order
	before  map[string]attendance // how they were in the room; via is 0 if they were not
	changes []bus.Change
}

func (ro *roster) tellingLocked() *telling {
	return &telling{roster: ro, count: len(ro.users), before: make(map[string]attendance)}
}

// touch is called before a user's attendance changes; it may be called again.
func (t *telling) touch(user string) attendance {
	a := t.roster.users[user]
	if _, again := t.before[user]; !again {
		t.touched = append(t.touched, user)
		t.before[user] = a
	}
	return a
}

// end makes changes of the difference, and gives them their versions, the last one that of the room if it can.
func (t *telling) end(version uint64) {
	ro := t.roster
	for _, user := range t.touched {
		before, a := t.before[user], ro.users[user]
		var kind bus.ChangeKind
		switch {
		case before.via == 0 && a.via > 0:
			kind = bus.Joined
			t.count++
		case before.via > 0 && a.via == 0:
			kind = bus.Left
			t.count--
			a = before
		case before.text != a.text:
			kind = bus.Renamed
		default:
			continue
		}
		t.changes = append(t.changes, bus.Change{Kind: kind, Member: bus.Member{ID: user, Name: a.text}, Count: t.count})
	}
	if len(t.touched) > 0 {
		ro.listed = nil
	}
	n := uint64(len(t.changes))
	ro.version = max(version, ro.version+n)
	for i := range t.changes {
		t.changes[i].Version = ro.version - n + uint64(i) + 1
	}
}

func (t *telling) change(inc string, s *userSet, u userChange) {
	if !u.entered {
		t.left(s, u.id)
		return
	}
	ro := t.roster
	a := t.touch(u.id)
	if _, again := s.users[u.id]; !again {
		a.via++
	}
	s.users[u.id] = u.name
	if u.name.laterThan(a.name) {
		a.name = u.name
	}
	ro.users[u.id] = a
	ro.keptLocked(u.id, u.name)
	if inc != ro.inc {
		ro.takeOverLocked(u)
	}
}

func (t *telling) left(s *userSet, user string) {
	if _, there := s.users[user]; !there {
		return
	}
	a := t.touch(user)
	delete(s.users, user)
	if a.via--; a.via > 0 {
		t.roster.users[user] = a
		t.roster.keptLocked(user, name{})
	} else {
		delete(t.roster.users, user)
		delete(t.roster.unkept, user)
	}
}

// replace takes all of an incarnation's users anew. Every node tells that in the same order.
func (t *telling) replace(inc string, number uint64, users []userChange) {
	s := t.roster.sets[inc]
	if s == nil {
		s = &userSet{users: make(map[string]name, len(users))}
		t.roster.sets[inc] = s
	}
	s.number, s.lost = number, time.Time{}
	if len(s.users) > 0 {
		stay := make(map[string]struct{}, len(users))
		for _, u := range users {
			stay[u.id] = struct{}{}
		}
		for _, user := range slices.Sorted(maps.Keys(s.users)) {
			if _, ok := stay[user]; !ok {
				t.left(s, user)
			}
		}
	}
	for _, u := range users {
		t.change(inc, s, u)
	}
}

// drop forgets an incarnation.
func (t *telling) drop(inc string) {
	s := t.roster.sets[inc]
	if s == nil {
		return
	}
	for _, user := range slices.Sorted(maps.Keys(s.users)) {
		t.left(s, user)
	}
	delete(t.roster.sets, inc)
}

// A rosterRead is what roster.lua answers.
type rosterRead struct {
	version uint64
	numbers map[string]uint64 // of the room's incarnations
	reaped  map[string]struct{}
	sets    map[string][]userChange // of those that were read
	counts  map[string]int
}

// readRoster asks for a room's roster, but for the incarnations that are known.
func (q *query) readRoster(k *roomKeys, most int, known map[string]uint64) *redis.Cmd {
	args := append(make([]any, 0, 6+2*len(known)), "evalsha", rosterSHA, 1, k.incarnations, k.usersBase, most)
	for inc, number := range known {
		args = append(args, inc, number)
	}
	return q.do(args...)
}

func parseRosterRead(cmd *redis.Cmd) (rd rosterRead, err error) {
	answer, err := cmd.Slice()
	if err != nil {
		return rd, err
	}
	if len(answer) == 0 {
		return rd, errChange
	}
	rd.version, rd.numbers, rd.reaped = parseIncarnations(answer[0])
	rd.sets, rd.counts = make(map[string][]userChange), make(map[string]int)
	for _, e := range answer[1:] {
		f, _ := e.([]any)
		if len(f) != 3 {
			return rd, errChange
		}
		inc, _ := f[0].(string)
		count, _ := f[1].(int64)
		flat, _ := f[2].([]any)
		users := make([]userChange, 0, len(flat)/2)
		for i := 0; i+1 < len(flat); i += 2 {
			id, _ := flat[i].(string)
			value, _ := flat[i+1].(string)
			users = append(users, userChange{entered: true, id: id, name: parseName(value)})
		}
		rd.sets[inc], rd.counts[inc] = users, int(count)
	}
	return rd, nil
}

// parseIncarnations reads the hash of a room's incarnations.
func parseIncarnations(hash any) (version uint64, numbers map[string]uint64, reaped map[string]struct{}) {
	flat, _ := hash.([]any)
	numbers, reaped = make(map[string]uint64, len(flat)/2), make(map[string]struct{})
	for i := 0; i+1 < len(flat); i += 2 {
		field, _ := flat[i].(string)
		value, _ := flat[i+1].(string)
		n, _ := strconv.ParseUint(value, 10, 64)
		switch {
		case field == "v":
			version = n
		case strings.HasPrefix(field, "x"):
			reaped[field[1:]] = struct{}{}
		default:
			numbers[field] = n
		}
	}
	return version, numbers, reaped
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

// takeOverLocked has the later name of a user outlive the connection that brought it.
func (ro *roster) takeOverLocked(u userChange) {
	if w, in := ro.want[u.id]; in && u.name.laterThan(w.name) {
		w.name = u.name
		ro.want[u.id] = w
		ro.changedLocked(u.id)
	}
}

// keptLocked is called when a user who is there has another name in one of the incarnations, or is not in it any more. It notes
// whether one of them has the name that counts.
func (ro *roster) keptLocked(user string, has name) {
	is := ro.users[user].name
	kept := has == is
	for _, s := range ro.sets {
		if kept {
			break
		}
		kept = s.users[user] == is
	}
	if kept {
		delete(ro.unkept, user)
		return
	}
	if ro.unkept == nil {
		ro.unkept = make(map[string]time.Time)
	}
	if ro.unkept[user].IsZero() {
		ro.unkept[user] = time.Now()
	}
}

// remind gives the names, at most so many, that nobody has kept for long, as "sign length length id value" each: whoever has those
// users has missed that they have been called so.
func (ro *roster) remind(most int) (names []byte) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for user, since := range ro.unkept {
		if time.Since(since) < ro.bus.cfg.CompareInterval { // it is on its way
			continue
		}
		if most--; most < 0 {
			break
		}
		value := ro.users[user].value()
		names = fmt.Appendf(names, "+%d %d %s%s", len(user), len(value), user, value)
	}
	return names
}

// learn takes names that another node reminds us of.
func (ro *roster) learn(users []userChange) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, u := range users {
		ro.takeOverLocked(u)
	}
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
