package redis

import (
	"net/url"
	"strconv"
)

// roomKeys are the names that a room's data has in Redis. A room's keys share a hash tag, so that a script may use them
// together on a Redis Cluster.
type roomKeys struct {
	room    string
	channel string // with the database's number, since channels are common to all databases of a server

	log       string    // a stream; an entry has one field: 'm' (message): "prev body", or 'g' (break): "prev lost"
	last      string    // the newest entry's id; outlives the log
	lastBreak string    // of the newest break: "id lost"
	records   [2]string // idempotency records of even and of odd periods: key -> id and sum
	usersBase string    // with an incarnation's id: its users: id -> when the name was chosen, in ms, space, name

	// incarnation -> number of its last change; 'x' and incarnation -> when it was reaped, in ms; 'v' -> the presence version
	incarnations string
}

// keysOf encodes the room's name so that no two rooms, and no room and another key, share a name: what is not a letter, a
// digit or one of "-_.~" is escaped.
func keysOf(db int, room string) *roomKeys {
	tag := "{" + url.QueryEscape(room) + "}"
	if room == "" {
		tag = "{%}" // an empty tag is none
	}
	return keysTagged(db, room, tag)
}

func keysTagged(db int, room, tag string) *roomKeys {
	base := "parley:" + tag
	return &roomKeys{
		room:      room,
		channel:   "parley:" + strconv.Itoa(db) + ":" + tag,
		log:       base + ":log",
		last:      base + ":last",
		lastBreak: base + ":brk",
		records:   [2]string{base + ":ka", base + ":kb"},
		usersBase: base + ":of:",

		incarnations: base + ":who",
	}
}

func (k *roomKeys) usersOf(incarnation string) string { return k.usersBase + incarnation }

// The keys of nodes. An incarnation is one uninterrupted life of a node, as its lease has it. On a Cluster each primary has keys of
// its own: a hash tag of one of its slots is in them, at the beginning of an incarnation's id.
func incarnationsKey(tag string) string { return "parley:incarnations" + tag } // a set of all that may still have something in a room

func leaseKey(incarnation string) string   { return "parley:lease:" + incarnation }
func claimKey(incarnation string) string   { return "parley:reap:" + incarnation }  // that a node reaps it
func roomsOfKey(incarnation string) string { return "parley:rooms:" + incarnation } // a set: the rooms that it is in
