package load

import (
	"testing"
	"time"
)

// A feeder gives a loop's connections what a server would send, without sockets.
type feeder struct {
	loop  *loop
	seq   uint64
	batch []byte
	head  []byte // of a message, up to its text
}

func newFeeder(members int) *feeder {
	plan, err := Plan{URLs: []string{"ws://x"}, RoomSize: members, Senders: 1}.WithDefaults()
	if err != nil {
		panic(err)
	}
	l := &loop{plan: &plan, codec: plan.Codec, conns: make([]conn, members), fixedEnd: plan.Size - 1}
	l.layOut()
	for i := range l.conns {
		l.conns[i].fd, l.conns[i].state = 1<<30, joined
	}
	l.beginLoad(Step{Number: 1, From: 1, To: 1 << 60, Workers: 1})
	l.now = int64(time.Second)
	return &feeder{loop: l, head: appendSaid(nil, "bench-abcd-0")}
}

// feed delivers the next messages of one sender to all members, each in one read.
func (f *feeder) feed(messages int) {
	l := f.loop
	base := uint64(l.load.step.base())
	f.batch = f.batch[:0]
	for range messages {
		l.text = append(l.text[:0], f.head...)
		l.text = appendText(l.text, 0, base+f.seq, 900_000_000, l.plan.Size)
		l.text = append(l.text, `"}`...)
		f.batch = append(f.batch, 0x81, 126, byte(len(l.text)>>8), byte(len(l.text)))
		f.batch = append(f.batch, l.text...)
		f.seq++
	}
	for i := range l.conns {
		c := &l.conns[i]
		c.keep(l.take(c, f.batch))
	}
}

func TestReceivingDoesNotAllocate(t *testing.T) {
	f := newFeeder(1000)
	f.loop.rooms[0].order = make([]entry, 0, 10_000)
	f.loop.rooms[0].places[0] = make([]uint32, 0, 10_000)
	f.feed(8)
	if n := testing.AllocsPerRun(100, func() { f.feed(8) }); n > 0 {
		t.Errorf("%g allocations for 8,000 deliveries", n)
	}
	if l := &f.loop.load; l.delivered != int64(f.seq)*1000 || l.check.Count() != 0 || l.latency.TotalCount() != l.delivered {
		t.Errorf("%d delivered, %s", l.delivered, l.check)
	}
}

// BenchmarkReceive is what a delivery costs the generator besides the kernel's share.
func BenchmarkReceive(b *testing.B) {
	const members, messages = 1000, 8
	f := newFeeder(members)
	b.ReportAllocs()
	for b.Loop() {
		f.feed(messages)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members*messages), "ns/delivery")
}
