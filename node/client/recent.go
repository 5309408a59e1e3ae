package client

import (
	"hash/maphash"

	"parley/node/wire"
)

// recentSize is how many messages of a room are remembered to tell repeats.
const recentSize = 1024

// recent remembers the last messages of a room: by sender, key and content, since only that tells a repeat that got an id of its own,
// or else by id. The same key with another content is no repeat: an application that speaks for a user has keys of its own. It starts
// small and never grows past recentSize.
type recent struct {
	seed maphash.Seed
	ring []uint64
	next int // where the ring's oldest is, once it is full
	has  map[uint64]struct{}
}

func newRecent() recent { return recent{seed: maphash.MakeSeed(), has: make(map[uint64]struct{})} }

// add reports false for a repeat.
func (r *recent) add(e *wire.Entry) bool {
	key := [4]string{e.From.ID, e.Key, e.Text, string(e.Data)}
	if e.Key == "" {
		key = [4]string{e.ID.String()}
	}
	sum := maphash.Comparable(r.seed, key)
	if _, ok := r.has[sum]; ok {
		return false
	}
	r.has[sum] = struct{}{}
	if len(r.ring) < recentSize {
		r.ring = append(r.ring, sum)
		return true
	}
	delete(r.has, r.ring[r.next])
	r.ring[r.next] = sum
	r.next = (r.next + 1) % recentSize
	return true
}
