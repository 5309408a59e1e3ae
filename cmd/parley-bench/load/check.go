package load

// A room checks what its members receive: each message once, and all of them in one order.
//
// The order that counts is the one in which the first member to receive a message received it. The others are compared with
// it, one key per delivery; only who differs costs more. A member that does not get its own messages back sees too little to
// set the order, so what it gets is checked by the sequence of each sender alone.
type room struct {
	number  int
	name    string
	first   uint32 // the connection number of its first member
	senders uint32 // the first members send
	echo    bool   // senders get their own messages too

	order  []entry
	places [][]uint32 // places[s][i] is where message i of sender s stands in order
	base   uint32     // the sequence number of each sender's message 0
	late   map[uint32]int
	fifo   int64 // messages that came after a later one of the same sender
	hint   int   // where the last stamp was in its frame
}

// An entry is a message in a room's order. One that nobody has received yet, but that must stand before a later one of its
// sender that was received, has no key, and its place is guessed.
type entry struct {
	key     stampKey
	due     int64
	guessed bool
}

// A receiver is a member of a room, as one who receives.
type receiver struct {
	room   *room
	member uint32
	place  uint32 // in room.order, of what should come next; noPlace without a part in it
	got    uint32 // messages received, each counted once
	odd    *odd   // nil as long as all goes well
}

// odd is what only some receivers need.
type odd struct {
	next    []uint32            // per sender, which message should come next; for those that have no place
	missing map[uint64]struct{} // passed over and not received yet: places, or sender and message
}

const noPlace = ^uint32(0)

// A verdict says what a delivery is.
type verdict byte

const (
	fresh    verdict = iota // as it should be
	late                    // received for the first time, but out of order
	repeated                // received before
	foreign                 // not of this room
	stale                   // of an earlier step, which has been settled
	damaged                 // not what was sent
)

func newRoom(number int, name string, first uint32, senders int, echo bool) *room {
	return &room{
		number: number, name: name, first: first, senders: uint32(senders), echo: echo,
		places: make([][]uint32, senders), late: make(map[uint32]int),
	}
}

// begin forgets everything received so far; base is the sequence number that the senders go on with. Each receiver must
// begin too.
func (r *room) begin(base uint32) {
	r.order = r.order[:0]
	for i := range r.places {
		r.places[i] = r.places[i][:0]
	}
	r.base = base
	clear(r.late)
	r.fifo = 0
}

func (r *receiver) begin() {
	r.place, r.got, r.odd = 0, 0, nil
	if r.member < r.room.senders && !r.room.echo {
		r.place, r.odd = noPlace, &odd{next: make([]uint32, r.room.senders)}
	}
}

// take checks a delivery by its stamp, and returns when the message was due. Beyond the first look it may allocate.
func (r *receiver) take(stamp []byte) (due int64, v verdict) {
	key := keyOf(stamp)
	if order := r.room.order; uint(r.place) < uint(len(order)) {
		if e := &order[r.place]; e.key == key {
			r.place++
			r.got++
			return e.due, fresh
		}
	}
	return r.takeOther(key, stamp)
}

func (r *receiver) takeOther(key stampKey, stamp []byte) (int64, verdict) {
	number, seq, ok1 := key.numbers()
	due, ok2 := dueOf(stamp)
	if !ok1 || !ok2 {
		return 0, damaged
	}
	sender := number - r.room.first
	if sender >= r.room.senders {
		return due, foreign
	}
	i := int32(seq - r.room.base)
	var v verdict
	switch {
	case i < 0:
		return due, stale
	case i > 1<<26:
		return due, damaged
	case r.place == noPlace:
		v = r.takeBySender(sender, uint32(i))
	default:
		v = r.takeByPlace(r.room.placeOf(sender, uint32(i), key, due), sender, uint32(i))
	}
	if v == fresh || v == late {
		r.got++
	}
	return due, v
}

// placeOf returns where a message stands in the order, and appends it if it has no place yet.
func (r *room) placeOf(sender, i uint32, key stampKey, due int64) uint32 {
	for uint32(len(r.places[sender])) <= i {
		r.places[sender] = append(r.places[sender], uint32(len(r.order)))
		r.order = append(r.order, entry{guessed: uint32(len(r.places[sender])) <= i})
	}
	place := r.places[sender][i]
	if e := &r.order[place]; e.key == (stampKey{}) {
		e.key, e.due = key, due
	}
	return place
}

// takeByPlace takes message i of a sender, by its place in the order.
func (r *receiver) takeByPlace(place, sender, i uint32) verdict {
	if place >= r.place {
		for p := r.place; p < place; p++ {
			r.miss(uint64(p))
		}
		r.place = place + 1
		return fresh
	}
	if !r.found(uint64(place)) {
		return repeated
	}
	switch {
	case r.sawLaterOf(sender, i):
		r.room.fifo++
	case r.sawBehind(place):
		r.room.late[place]++
	default:
		return fresh
	}
	return late
}

// How far is looked for what overtook a message. What did so from further away is found as the messages between arrive; and
// where a whole node is behind another, with every message out of its guessed place, checking must not take for ever.
const (
	lookOver   = 16 // messages of the same sender
	lookBehind = 64 // places
)

// sawLaterOf reports whether the receiver already got a later message than i of a sender.
func (r *receiver) sawLaterOf(sender, i uint32) bool {
	places := r.room.places[sender]
	for _, p := range places[i+1 : min(len(places), int(i)+1+lookOver)] {
		if p < r.place && !r.missing(uint64(p)) {
			return true
		}
	}
	return false
}

// sawBehind reports whether the receiver already got a message whose place behind this one is certain.
func (r *receiver) sawBehind(place uint32) bool {
	for p := place + 1; p < min(r.place, place+1+lookBehind); p++ {
		if !r.room.order[p].guessed && !r.missing(uint64(p)) {
			return true
		}
	}
	return false
}

func (r *receiver) takeBySender(sender, i uint32) verdict {
	next := &r.odd.next[sender]
	if i >= *next {
		for j := *next; j < i; j++ {
			r.miss(uint64(sender)<<32 | uint64(j))
		}
		*next = i + 1
		return fresh
	}
	if !r.found(uint64(sender)<<32 | uint64(i)) {
		return repeated
	}
	r.room.fifo++
	return late
}

func (r *receiver) miss(message uint64) {
	if r.odd == nil {
		r.odd = new(odd)
	}
	if r.odd.missing == nil {
		r.odd.missing = make(map[uint64]struct{})
	}
	r.odd.missing[message] = struct{}{}
}

func (r *receiver) missing(message uint64) bool {
	if r.odd == nil {
		return false
	}
	_, ok := r.odd.missing[message]
	return ok
}

// found reports whether a message was missing, which it is not any more.
func (r *receiver) found(message uint64) bool {
	if !r.missing(message) {
		return false
	}
	delete(r.odd.missing, message)
	return true
}

// seen reports whether anyone who sets the order has received a message.
func (r *room) seen(sender, i uint32) bool {
	places := r.places[sender]
	return i < uint32(len(places)) && r.order[places[i]].key != (stampKey{})
}

// lost counts what a receiver did not get of the messages that its room's senders sent.
func (r *receiver) lost(sent []uint32) int64 {
	want := int64(0)
	for sender, n := range sent {
		if r.room.echo || uint32(sender) != r.member {
			want += int64(n)
		}
	}
	return max(0, want-int64(r.got))
}

// outOfOrder counts the deliveries against the order. Where members saw two messages in different orders it takes the side of
// the many, whoever came first.
func (r *room) outOfOrder(members int) int64 {
	n := r.fifo
	for _, count := range r.late {
		n += int64(min(count, max(1, members-count)))
	}
	return n
}

// digest is a hash of the order, to compare what members in several processes saw.
func (r *room) digest() uint64 {
	h := uint64(14695981039346656037) // FNV-1a, by the word
	for i := range r.order {
		if k := r.order[i].key; k != (stampKey{}) {
			h = (h ^ k.sender) * 1099511628211
			h = (h ^ k.seq) * 1099511628211
		}
	}
	return h
}
