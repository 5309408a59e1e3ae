package load

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A crowd is a room and its members.
type crowd struct {
	room    *room
	members []receiver
	sent    []uint32
}

func newCrowd(size, senders int, echo bool) *crowd {
	c := &crowd{room: newRoom(7, "seven", 7000, senders, echo), members: make([]receiver, size), sent: make([]uint32, senders)}
	c.begin(1 << stepBits)
	return c
}

func (c *crowd) begin(base uint32) {
	c.room.begin(base)
	for i := range c.members {
		c.members[i].room, c.members[i].member = c.room, uint32(i)
		c.members[i].begin()
	}
}

func (c *crowd) stamp(sender int, i uint32) []byte {
	return appendText(nil, uint64(c.room.first)+uint64(sender), uint64(c.room.base+i), 1000+int64(i), 120)
}

// say has a sender say its next message, which is returned.
func (c *crowd) say(sender int) []byte {
	c.sent[sender]++
	return c.stamp(sender, c.sent[sender]-1)
}

func (c *crowd) gets(member int, sender int) bool { return c.room.echo || member != sender }

func (c *crowd) lost() (n int64) {
	for i := range c.members {
		n += c.members[i].lost(c.sent)
	}
	return n
}

// takers counts the members that take part in the order.
func (c *crowd) takers() (n int) {
	for i := range c.members {
		if c.members[i].place != noPlace {
			n++
		}
	}
	return n
}

func TestCheckAgreesWithEveryFault(t *testing.T) {
	for _, echo := range []bool{true, false} {
		for _, fault := range []string{"none", "drop", "repeat", "swap", "all"} {
			t.Run(map[bool]string{true: "echo", false: "no echo"}[echo]+", "+fault, func(t *testing.T) {
				checkFaults(t, echo, fault)
			})
		}
	}
}

// checkFaults sends 2,000 messages to 50 members, in an order of their own each, and disturbs one delivery in a thousand.
func checkFaults(t *testing.T, echo bool, fault string) {
	const size, senders, messages = 50, 5, 2000
	random := rand.New(rand.NewPCG(1, 2))
	c := newCrowd(size, senders, echo)
	inboxes := make([][][]byte, size)
	held := make([][]byte, size)
	var dropped, repeated, swapped int64
	for range messages {
		sender := random.IntN(senders)
		stamp := c.say(sender)
		for m := range size {
			if !c.gets(m, sender) {
				continue
			}
			kind := "none"
			if random.IntN(1000) == 0 {
				kind = fault
			}
			if kind == "all" {
				kind = []string{"drop", "repeat", "swap"}[random.IntN(3)]
			}
			switch {
			case kind == "drop":
				dropped++
			case kind == "repeat":
				repeated++
				inboxes[m] = append(inboxes[m], stamp, stamp)
			case kind == "swap" && held[m] == nil:
				swapped++
				held[m] = stamp
				continue // comes after the next one
			default:
				inboxes[m] = append(inboxes[m], stamp)
			}
			if held[m] != nil && kind != "drop" {
				inboxes[m] = append(inboxes[m], held[m])
				held[m] = nil
			}
		}
	}
	counts := deliverInterleaved(c, inboxes, random)
	for m, stamp := range held {
		if stamp != nil { // nothing came after it, so its order is as it should be
			swapped--
			_, v := c.members[m].take(stamp)
			counts[v]++
		}
	}

	if got := c.lost(); got != dropped {
		t.Errorf("%d lost, not %d", got, dropped)
	}
	if got := counts[again]; got != repeated {
		t.Errorf("%d repeated, not %d", got, repeated)
	}
	// Who does not take part in the order is checked by sender, so only swaps within one sender's messages show.
	if got := c.room.outOfOrder(c.takers()); echo && got != swapped || !echo && (got > swapped || swapped > 0 && got == 0) {
		t.Errorf("%d out of order, not %d", got, swapped)
	}
	if counts[foreign]+counts[damaged]+counts[stale] != 0 {
		t.Errorf("verdicts %v", counts)
	}
	if fault != "none" && dropped+repeated+swapped == 0 {
		t.Error("nothing was disturbed")
	}
}

const again = repeated // where a count has the name

// deliverInterleaved hands each member its inbox in order, members taking turns at random.
func deliverInterleaved(c *crowd, inboxes [][][]byte, random *rand.Rand) (counts [damaged + 1]int64) {
	turns := []int{}
	for m, inbox := range inboxes {
		turns = append(turns, slices.Repeat([]int{m}, len(inbox))...)
	}
	random.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	for _, m := range turns {
		_, v := c.members[m].take(inboxes[m][0])
		inboxes[m] = inboxes[m][1:]
		counts[v]++
	}
	return counts
}

func TestDisorderOfOneSenderIsSeenByAMemberAlone(t *testing.T) {
	c := newCrowd(1, 1, true)
	first, second := c.say(0), c.say(0)
	for _, stamp := range [][]byte{second, first} {
		c.members[0].take(stamp)
	}
	if got := c.room.outOfOrder(1); got != 1 {
		t.Errorf("%d out of order", got)
	}
	if c.lost() != 0 {
		t.Errorf("%d lost", c.lost())
	}
}

func TestWhoeverCameFirstTheManyAreRight(t *testing.T) {
	c := newCrowd(10, 2, true)
	a, b := c.say(0), c.say(1)
	for m := range c.members {
		order := [][]byte{a, b}
		if m == 0 { // the first to receive anything, and alone with its order
			order = [][]byte{b, a}
		}
		for _, stamp := range order {
			c.members[m].take(stamp)
		}
	}
	if got := c.room.outOfOrder(10); got != 1 {
		t.Errorf("%d out of order, not 1", got)
	}
}

func TestStrangeMessagesAreTold(t *testing.T) {
	c := newCrowd(3, 1, true)
	c.begin(2 << stepBits)
	for name, test := range map[string]struct {
		stamp []byte
		want  verdict
	}{
		"another room":      {appendText(nil, 6999, 2<<stepBits, 5, 120), foreign},
		"no sender":         {appendText(nil, 7001, 2<<stepBits, 5, 120), foreign},
		"an earlier step":   {appendText(nil, 7000, 1<<stepBits, 5, 120), stale},
		"letters":           {[]byte("parley~~0000000z000000000000000000000000"), damaged},
		"far in the future": {appendText(nil, 7000, 100<<stepBits, 5, 120), damaged},
	} {
		if _, v := c.members[2].take(test.stamp); v != test.want {
			t.Errorf("%s: verdict %d, not %d", name, v, test.want)
		}
	}
}

func TestRefusedSendsAreNotAwaited(t *testing.T) {
	c := newCrowd(4, 1, true)
	c.say(0)
	c.say(0) // refused: nobody gets it
	third := c.say(0)
	for m := range c.members {
		c.members[m].take(c.stamp(0, 0))
		if _, v := c.members[m].take(third); v != fresh {
			t.Errorf("verdict %d", v)
		}
	}
	if c.room.seen(0, 1) || !c.room.seen(0, 2) || c.room.seen(0, 3) {
		t.Error("what was seen is not what was delivered")
	}
	if c.lost() != 4 {
		t.Errorf("%d lost", c.lost())
	}
	c.sent[0]--
	if c.lost() != 0 {
		t.Errorf("%d lost", c.lost())
	}
}

func TestDigestsTellOrdersApart(t *testing.T) {
	digest := func(swap bool) uint64 {
		c := newCrowd(2, 2, true)
		order := [][]byte{c.say(0), c.say(1)}
		if swap {
			slices.Reverse(order)
		}
		for _, stamp := range order {
			c.members[0].take(stamp)
		}
		return c.room.digest()
	}
	straight, again, swapped := digest(false), digest(false), digest(true)
	if straight != again || straight == swapped {
		t.Error("digests do not tell orders apart")
	}
}
