package memory

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"parley/bus"
)

// A room is its log, its members, and the subscriptions that are told what happens in it.
type room struct {
	retention bus.Retention

	mu        sync.Mutex // guards all that follows
	forgotten bool       // it is not in Store.rooms any more
	last      bus.ID     // of the newest message; outlives the log
	log       log
	keys      keys
	members   map[string]member // by user
	version   uint64            // of members
	subs      []*subscription   // replaced, never written to: events share it

	queue      []event   // what nobody was told of yet
	spare      []event   // the array of the queue before, to be used again
	delivering bool      // one goroutine, not holding mu, calls the sinks
	round      uint64    // counts what it took from the queue and has told
	told       sync.Cond // round has risen, or delivering has ended
}

// member is a user in the room, through so many handles.
type member struct {
	name  string
	named int64 // when it was chosen, in ms since 1970
	via   int
}

func newRoom(keep bus.Retention, now time.Time) *room {
	r := &room{retention: keep, keys: keys{since: now}}
	r.told.L = &r.mu
	return r
}

// appendLocked gives a draft its id, and tells all sinks; for a key used before it gives the first one's id.
func (r *room) appendLocked(d bus.Draft, now time.Time) (bus.ID, error) {
	if d.Key != (bus.Key{}) {
		r.keys.rotate(now)
		if said, ok := r.keys.find(d.Key); ok {
			if said.sum != d.Sum {
				return bus.ID{}, bus.ErrConflict
			}
			return said.id, nil
		}
	}
	prev := r.last
	r.last = nextID(prev, now)
	r.log.push(logEntry{r.last, d.Body})
	if r.log.count > r.retention.Size {
		r.log.drop(r.log.count - r.retention.Size)
	}
	for r.log.bytes > r.retention.Bytes && r.log.count > 1 {
		r.log.drop(1)
	}
	r.log.dropBefore(now.Add(-r.retention.Age))
	if d.Key != (bus.Key{}) {
		r.keys.add(d.Key, said{r.last, d.Sum})
	}
	r.tellLocked(event{kind: messageEvent, message: bus.Message{ID: r.last, Prev: prev, Body: d.Body}})
	return r.last, nil
}

// nextID gives an id after last, whatever the clock says.
func nextID(last bus.ID, now time.Time) bus.ID {
	if ms := uint64(max(0, now.UnixMilli())); ms > last.Ms {
		return bus.ID{Ms: ms, Seq: rand.Uint64N(1 << 16)}
	}
	return bus.ID{Ms: last.Ms, Seq: last.Seq + 1}
}

func (r *room) afterLocked(since bus.ID, limit, bytes int) bus.Page {
	from := r.log.first(since.Less)
	to := min(from+max(0, limit), r.log.count)
	for i, left := from, bytes; bytes > 0 && i < to; i++ {
		if left -= r.log.at(i).size(); left < 0 {
			to = max(i, from+1)
		}
	}
	p := r.pageLocked(from, to)
	p.More = to < r.log.count
	if from < r.log.count {
		p.Complete = r.log.prev(from) == since
	} else {
		p.Complete = r.last == since
	}
	return p
}

func (r *room) beforeLocked(before bus.ID, limit, bytes int) bus.Page {
	to := r.log.count
	if !before.IsZero() {
		to = r.log.first(func(i bus.ID) bool { return !i.Less(before) })
	}
	from := max(0, to-max(0, limit))
	for i, left := to-1, bytes; bytes > 0 && i >= from; i-- {
		if left -= r.log.at(i).size(); left < 0 {
			from = min(i+1, to-1)
		}
	}
	p := r.pageLocked(from, to)
	p.More = from > 0
	return p
}

func (r *room) pageLocked(from, to int) bus.Page {
	p := bus.Page{Last: r.last}
	if from < to {
		p.Messages = make([]bus.Message, 0, to-from)
	}
	for i := from; i < to; i++ {
		e := r.log.at(i)
		p.Messages = append(p.Messages, bus.Message{ID: e.id, Prev: r.log.prev(i), Body: e.body})
	}
	return p
}

// expireLocked drops what is too old.
func (r *room) expireLocked(now time.Time) {
	r.log.dropBefore(now.Add(-r.retention.Age))
	r.keys.rotate(now)
}

// unusedLocked reports whether nothing would be lost with the room. Its log has expired, and so much time again has passed: till
// then the last id is kept.
func (r *room) unusedLocked(now time.Time) bool {
	over := r.last.IsZero() || r.last.Ms < uint64(max(0, now.Add(-2*r.retention.Age).UnixMilli()))
	return over && len(r.subs) == 0 && r.keys.empty()
}

func (r *room) addLocked(s *subscription) {
	r.subs = append(slices.Clip(r.subs), s)
}

// removeLocked takes a subscription away, and its members with it.
func (r *room) removeLocked(s *subscription) {
	i := slices.Index(r.subs, s)
	r.subs = slices.Concat(r.subs[:i], r.subs[i+1:])
	for user := range s.entered {
		r.leaveLocked(s, user)
	}
}

func (r *room) enterLocked(s *subscription, m bus.Member) {
	is, known := r.members[m.ID]
	if m.Named == 0 {
		m.Named = time.Now().UnixMilli()
		if m.Named <= is.named && is.name != m.Name {
			m.Named = is.named + 1
		}
	}
	before := is.name
	if m.Named > is.named || m.Named == is.named && m.Name > is.name {
		is.name, is.named = m.Name, m.Named
	}
	if _, again := s.entered[m.ID]; !again {
		if s.entered == nil {
			s.entered = make(map[string]struct{})
		}
		s.entered[m.ID] = struct{}{}
		is.via++
	}
	if r.members == nil {
		r.members = make(map[string]member)
	}
	r.members[m.ID] = is
	switch {
	case !known:
		r.changedLocked(bus.Joined, bus.Member{ID: m.ID, Name: is.name})
	case is.name != before:
		r.changedLocked(bus.Renamed, bus.Member{ID: m.ID, Name: is.name})
	}
}

func (r *room) leaveLocked(s *subscription, user string) {
	if _, ok := s.entered[user]; !ok {
		return
	}
	delete(s.entered, user)
	is := r.members[user]
	if is.via--; is.via > 0 {
		r.members[user] = is
		return
	}
	delete(r.members, user)
	r.changedLocked(bus.Left, bus.Member{ID: user, Name: is.name})
}

func (r *room) changedLocked(kind bus.ChangeKind, m bus.Member) {
	r.version++
	r.tellLocked(event{kind: presenceEvent, change: bus.Change{Kind: kind, Member: m, Count: len(r.members), Version: r.version}})
}

func (r *room) rosterLocked() bus.Roster {
	out := bus.Roster{Count: len(r.members), Version: r.version}
	if len(r.members) == 0 {
		return out
	}
	out.Members = make([]bus.Member, 0, min(len(r.members), bus.RosterMax))
	for user, is := range r.members {
		if len(out.Members) == bus.RosterMax {
			break
		}
		out.Members = append(out.Members, bus.Member{ID: user, Name: is.name})
	}
	return out
}
