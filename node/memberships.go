package node

import (
	"slices"
	"strings"
)

// memberships are the rooms that a session is in, by name: most are in one, for which a map would take 250 bytes.
type memberships []*member

func (ms memberships) find(room string) (place int, found bool) {
	return slices.BinarySearchFunc(ms, room, func(m *member, room string) int { return strings.Compare(m.r.name, room) })
}

// in gives nil if the session is not in the room.
func (ms memberships) in(room string) *member {
	if i, found := ms.find(room); found {
		return ms[i]
	}
	return nil
}

func (ms *memberships) add(m *member) {
	i, _ := ms.find(m.r.name)
	*ms = slices.Insert(*ms, i, m)
}

func (ms *memberships) remove(m *member) {
	if i, found := ms.find(m.r.name); found {
		*ms = slices.Delete(*ms, i, i+1)
	}
}
