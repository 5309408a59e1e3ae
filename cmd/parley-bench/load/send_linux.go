package load

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A load is one step of sending, as a worker sees it. It is owned by the loop.
type load struct {
	step     Step
	pace     schedule
	until    int64 // when the last message is due at the latest; 0 when none is to be sent
	said     chan struct{}
	latency  *hdrhistogram.Histogram // of deliveries, in microseconds
	answers  *hdrhistogram.Histogram // of the answers to sends
	sent     int64
	answered int64

	delivered int64 // of all
	want      int64 // how many deliveries settle the step; -1 as long as that is not known
	settled   chan struct{}
	check     Check
	refused   []uint64 // connection number and message of those sends

	atFrom, atTo mark
}

// A mark is what was there at one end of the time measured.
type mark struct {
	set       bool
	delivered int64
	sent      int64
	usage     CPU
}

// A sender is a connection that sends.
type sender struct {
	conn *conn
	due  []int64 // when each message of the step was due; negative once it was answered
}

// maxUnsent bounds what waits for a server that does not read.
const maxUnsent = 1 << 20

// beginLoad starts a step.
func (l *loop) beginLoad(s Step) *load {
	p := l.plan
	share := float64(len(l.senders)) / float64(p.Rooms*p.Senders)
	l.load = load{
		step: s, latency: newHistogram(), answers: newHistogram(), want: -1,
		said: make(chan struct{}), settled: make(chan struct{}),
	}
	if s.Rate*share > 0 {
		l.load.until = s.To
		offset := int64(float64(s.Worker) / float64(s.Workers) / (s.Rate * share) * 1e9)
		l.load.pace = schedule{start: s.Start + offset, rate: s.Rate * share}
	} else {
		close(l.load.said)
	}
	for _, r := range l.rooms {
		r.begin(s.base())
	}
	for i := range l.conns {
		l.conns[i].receiver.begin()
	}
	for i := range l.senders {
		l.senders[i].due = l.senders[i].due[:0]
	}
	l.dropped, l.problem = 0, nil
	return &l.load
}

// nextEvent is when the loop must look at the load again.
func (ld *load) nextEvent() int64 {
	t := never
	if ld.until != 0 {
		t = min(ld.pace.next(), ld.until)
	}
	if !ld.atFrom.set && ld.step.From != 0 {
		t = min(t, ld.step.From)
	}
	if !ld.atTo.set && ld.step.To != 0 {
		t = min(t, ld.step.To)
	}
	return t
}

// mark notes the counts at both ends of the time measured.
func (ld *load) mark(now int64) {
	if !ld.atFrom.set && now >= ld.step.From {
		ld.atFrom = mark{true, ld.delivered, ld.sent, ownCPU()}
	}
	if !ld.atTo.set && now >= ld.step.To {
		ld.atTo = mark{true, ld.delivered, ld.sent, ownCPU()}
	}
}

// sendDue sends what is due, at most so much that the loop gets back to reading soon.
func (l *loop) sendDue() {
	ld := &l.load
	if ld.step.To == 0 {
		return
	}
	ld.mark(l.now)
	if ld.until == 0 {
		l.checkSettled()
		return
	}
	for range 16 {
		due := ld.pace.next()
		if due >= ld.until {
			if l.now >= ld.until {
				ld.until = 0
				close(ld.said)
			}
			return
		}
		if due > l.now {
			return
		}
		l.say(&l.senders[ld.pace.n%int64(len(l.senders))], due)
		ld.pace.n++
	}
}

// say sends a message.
func (l *loop) say(s *sender, due int64) {
	c := s.conn
	ld := &l.load
	if c.state != joined || len(c.out) > maxUnsent {
		ld.check.Unsent++
		return
	}
	number, i := uint64(l.number(c)), uint32(len(s.due))
	seq := uint64(ld.step.base() + i)
	s.due = append(s.due, due)
	ld.sent++
	if l.codec == Text {
		l.text = appendText(l.text[:0], number, seq, due, l.plan.Size)
	} else {
		l.text = appendSend(l.text[:0], c.room.name, seq)
		l.text = appendText(l.text, number, seq, due, l.plan.Size)
		l.text = append(l.text, `"}`...)
	}
	l.frame = appendFrame(l.frame[:0], opText, l.text)
	l.write(c, l.frame)
}

// answered takes the answer to a send: refusal is empty for ok.
func (l *loop) answered(c *conn, seq uint64, refusal string) {
	ld := &l.load
	i := int64(seq) - int64(ld.step.base())
	if c.sender == 0 || i < 0 {
		return // of an earlier step
	}
	s := &l.senders[c.sender-1]
	if i >= int64(len(s.due)) || s.due[i] < 0 {
		ld.check.Foreign++
		l.fail(fmt.Errorf("the server answers a send that awaits no answer: %d", seq))
		return
	}
	due := s.due[i]
	s.due[i] = -1
	if refusal != "" {
		ld.refused = append(ld.refused, uint64(l.number(c))<<32|uint64(i))
		l.fail(fmt.Errorf("the server refused a send: %s", refusal))
		return
	}
	ld.answered++
	if due >= ld.step.From && due < ld.step.To {
		record(ld.answers, l.now-due)
	}
}

// sentReport is what this worker's senders sent, as far as it is known by now.
func (l *loop) sentReport() Sent {
	s := Sent{Counts: make(map[uint32]uint32, len(l.senders)), Refused: l.load.refused}
	for i := range l.senders {
		s.Counts[uint32(l.number(l.senders[i].conn))] = uint32(len(l.senders[i].due))
	}
	return s
}

// sentIn returns what each sender of a room sent, of the report on all workers.
func (l *loop) sentIn(r *room, all Sent) []uint32 {
	counts := make([]uint32, r.senders)
	for i := range counts {
		counts[i] = all.Counts[r.first+uint32(i)]
	}
	return counts
}

// await tells how many deliveries settle the step: every message at every receiver.
func (l *loop) await(all Sent) {
	want := int64(0)
	fresh := map[*room]int64{}
	for _, r := range l.rooms {
		for _, n := range l.sentIn(r, all) {
			fresh[r] += int64(n)
		}
	}
	for i := range l.conns {
		c := &l.conns[i]
		want += fresh[c.room]
		if !l.plan.echo() && c.member < c.room.senders {
			want -= int64(all.Counts[uint32(l.number(c))])
		}
	}
	l.load.want = want
	l.checkSettled()
}

// checkSettled notices when nothing more is to come.
func (l *loop) checkSettled() {
	ld := &l.load
	if ld.want < 0 || ld.delivered < ld.want || l.codec == V1 && ld.answered+int64(len(ld.refused)) < ld.sent {
		return
	}
	ld.want = -1
	close(ld.settled)
}

// outcome judges the step.
func (l *loop) outcome(all Sent) Outcome {
	ld := &l.load
	ld.mark(l.now)
	o := Outcome{
		Latency: ld.latency.Export(), Answers: ld.answers.Export(), Sent: ld.sent, Answered: ld.answered, Delivered: ld.delivered,
		SentMeasured:      ld.atTo.sent - ld.atFrom.sent,
		DeliveredMeasured: ld.atTo.delivered - ld.atFrom.delivered,
		Self:              ld.atTo.usage.minus(ld.atFrom.usage),
		Check:             ld.check, Digests: make(map[int]uint64),
	}
	o.Check.Refused = int64(len(ld.refused))
	o.Check.Dropped = int64(l.dropped)
	if l.codec == V1 {
		o.Check.Unanswered = ld.sent - ld.answered - o.Check.Refused
	}
	wanted := map[*room][]uint32{}
	for _, r := range l.rooms {
		wanted[r] = l.sentIn(r, all)
	}
	for _, send := range all.Refused { // refused, and really not delivered to anyone
		number, i := uint32(send>>32), uint32(send)
		if at := l.plan.roomOf(int(number)) - l.rooms[0].number; at >= 0 && at < len(l.rooms) {
			if r := l.rooms[at]; !r.seen(number-r.first, i) {
				wanted[r][number-r.first]--
			}
		}
	}
	members := map[*room]int{}
	for i := range l.conns {
		c := &l.conns[i]
		o.Check.Lost += c.lost(wanted[c.room])
		if c.place != noPlace {
			members[c.room]++
		}
	}
	for _, r := range l.rooms {
		o.Check.OutOfOrder += r.outOfOrder(members[r])
		if size := l.plan.RoomSize; int(r.first) < l.first || int(r.first)+size > l.first+len(l.conns) {
			o.Digests[r.number] = r.digest()
		}
	}
	if l.problem != nil {
		o.Check.Problem = l.problem.Error()
	}
	return o
}
