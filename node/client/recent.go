package client

import (
	"hash/maphash"
	"time"

	"parley/node/wire"
)

// recentSize is how many messages of a room are remembered to tell repeats.
const recentSize = 1024

// repeated is how long after the first a repeat may come, in ms. After that the same words with the same key are said anew.
const repeated = uint64((KeyLife + time.Minute) / time.Millisecond) // it is on its way for less than a minute

// recent remembers the last messages of a room: by sender, key and content, since only that tells a repeat that got an id of its own,
// or else by id. The same key with another content is no repeat: an application that speaks for a user has keys of its own. It starts
// small and never grows past recentSize.
type recent struct {
	seed maphash.Seed
	ring []said
	next int               // where the ring's oldest is, once it is full
	has  map[uint64]uint64 // when each was said last
}

// said is what stands for a message, and when it was said, in ms since 1970.
type said struct{ sum, at uint64 }

func newRecent() recent { return recent{seed: maphash.MakeSeed(), has: make(map[uint64]uint64)} }

// add reports false for a repeat.
func (r *recent) add(e *wire.Entry) bool {
	key := [4]string{e.From.ID, e.Key, e.Text, string(e.Data)}
	if e.Key == "" {
		key = [4]string{e.ID.String()}
	}
	m := said{maphash.Comparable(r.seed, key), e.ID.Ms}
	if at, ok := r.has[m.sum]; ok && m.at < at+repeated {
		return false
	}
	r.has[m.sum] = m.at
	if len(r.ring) < recentSize {
		r.ring = append(r.ring, m)
		return true
	}
	if old := r.ring[r.next]; r.has[old.sum] == old.at { // else it was said anew
		delete(r.has, old.sum)
	}
	r.ring[r.next] = m
	r.next = (r.next + 1) % recentSize
	return true
}
