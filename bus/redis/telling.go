package redis

import (
	"maps"
	"slices"
	"time"

	"parley/bus"
)

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
