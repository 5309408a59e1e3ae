package memory

import (
	"sort"
	"time"

	"parley/bus"
)

// A log is a ring of a room's newest messages.
type log struct {
	ring  []logEntry // its length is a power of two
	start int        // index in ring of the oldest
	count int
	bytes int    // that entries count for
	base  bus.ID // the id before the oldest, or of the last where there is none
}

type logEntry struct {
	id   bus.ID
	body []byte
}

// size is how many bytes an entry counts for.
func (e *logEntry) size() int { return entryBytes + len(e.body) }

const (
	minRing    = 8
	entryBytes = 50 // of an entry beside its body
)

// push appends an entry.
func (l *log) push(e logEntry) {
	if l.count == len(l.ring) {
		l.grow()
	}
	l.ring[l.index(l.count)] = e
	l.count++
	l.bytes += e.size()
}

func (l *log) grow() {
	ring := make([]logEntry, max(minRing, 2*len(l.ring)))
	n := copy(ring, l.ring[l.start:])
	copy(ring[n:], l.ring[:l.start])
	l.ring, l.start = ring, 0
}

func (l *log) index(i int) int { return (l.start + i) & (len(l.ring) - 1) }

// at gives the i-th oldest entry.
func (l *log) at(i int) *logEntry { return &l.ring[l.index(i)] }

// prev gives the id before the i-th oldest entry.
func (l *log) prev(i int) bus.ID {
	if i == 0 {
		return l.base
	}
	return l.at(i - 1).id
}

// first gives the index of the oldest entry for whose id ok holds, count for none; ok holds for all from one id on.
func (l *log) first(ok func(bus.ID) bool) int {
	return sort.Search(l.count, func(i int) bool { return ok(l.at(i).id) })
}

// drop drops the n oldest entries.
func (l *log) drop(n int) {
	for range n {
		l.base = l.at(0).id
		l.bytes -= l.at(0).size()
		*l.at(0) = logEntry{}
		l.start = l.index(1)
		l.count--
	}
	if l.count == 0 {
		l.ring, l.start = nil, 0
	}
}

// dropBefore drops the entries that are older than t.
func (l *log) dropBefore(t time.Time) {
	oldest := uint64(max(0, t.UnixMilli()))
	if l.count == 0 || l.at(0).id.Ms >= oldest {
		return
	}
	l.drop(l.first(func(i bus.ID) bool { return i.Ms >= oldest }))
}

// keys are the idempotency keys that a room remembers: in two generations, of which the older one is dropped as a whole,
// so that each is remembered for keyAge at least and no key needs an expiry of its own.
type keys struct {
	since time.Time // when young began
	young map[bus.Key]said
	old   map[bus.Key]said
}

// said is what a key was used for.
type said struct {
	id  bus.ID
	sum uint64
}

const keyAge = 10 * time.Minute

func (k *keys) find(key bus.Key) (said, bool) {
	if s, ok := k.young[key]; ok {
		return s, true
	}
	s, ok := k.old[key]
	return s, ok
}

// add needs a rotate before it.
func (k *keys) add(key bus.Key, s said) {
	if k.young == nil {
		k.young = make(map[bus.Key]said)
	}
	k.young[key] = s
}

// rotate lets generations grow old, and drops those that are.
func (k *keys) rotate(now time.Time) {
	switch age := now.Sub(k.since); {
	case age >= 2*keyAge:
		k.young, k.old, k.since = nil, nil, now
	case age >= keyAge:
		k.young, k.old, k.since = nil, k.young, now
	}
}

func (k *keys) empty() bool { return len(k.young)+len(k.old) == 0 }
