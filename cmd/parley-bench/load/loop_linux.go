package load

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A loop drives a worker's share of the connections from a single goroutine, which waits for all of their sockets at once. A
// goroutine for each would cost more than what there is to do for a delivery.
type loop struct {
	// Static after construction.
	plan     *Plan
	codec    string
	first    int // the number of conns[0]
	targets  []address
	clock    clock
	epoll    int
	wake     int         // an eventfd
	calls    chan func() // to be called by run
	ended    chan struct{}
	shaking  sync.WaitGroup // hands, for TLS
	fixedEnd int            // where in a text its last byte is

	// Owned by run.
	conns   []conn
	rooms   []*room // from that of conns[0] on
	senders []sender
	buf     []byte // what is read, of any connection
	frame   []byte // what is written
	text    []byte
	now     int64
	round   int // of connecting
	phase   *phase
	load    load
	open    int
	joined  int
	dropped int
	problem error // the first
	closed  bool
}

const (
	readBuffer = 2 * maxMessage // more than any frame, so that a part of one always leaves room to read on
	batch      = 256            // events of one wait
)

// newLoop makes a loop for the connections first to first+count-1. End it with close.
func newLoop(plan *Plan, first, count int) (*loop, error) {
	l := &loop{
		plan: plan, codec: plan.Codec, first: first, clock: newClock(),
		calls: make(chan func(), 16), ended: make(chan struct{}), fixedEnd: plan.Size - 1,
		conns: make([]conn, count), buf: make([]byte, readBuffer),
	}
	for _, u := range plan.URLs {
		a, err := resolve(u, plan.Insecure)
		if err != nil {
			return nil, err
		}
		l.targets = append(l.targets, a)
	}
	l.layOut()
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeEvent}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &event); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	go l.run()
	return l, nil
}

// layOut makes the rooms, and their members and senders among the connections.
func (l *loop) layOut() {
	p := l.plan
	for i := range l.conns {
		number := l.first + i
		if r := p.roomOf(number) - p.roomOf(l.first); r == len(l.rooms) {
			room := p.roomOf(number)
			l.rooms = append(l.rooms, newRoom(room, p.roomName(room), uint32(room*p.RoomSize), p.Senders, p.echo()))
		}
		c := &l.conns[i]
		c.fd = -1
		c.room = l.rooms[len(l.rooms)-1]
		c.member = uint32(p.memberOf(number))
		c.begin()
	}
	for m := range p.Senders { // one of each room after the other, so that the rooms take turns
		for i := range l.conns {
			if l.conns[i].member == uint32(m) {
				l.conns[i].sender = int32(len(l.senders)) + 1
				l.senders = append(l.senders, sender{conn: &l.conns[i]})
			}
		}
	}
}

// wakeEvent is what stands for the eventfd where other events have a connection's index.
const wakeEvent = -1

// run is the loop.
func (l *loop) run() {
	defer close(l.ended)
	events := make([]unix.EpollEvent, batch)
	for !l.closed {
		n := l.wait(events)
		l.now = l.clock.now()
		for i := range events[:n] {
			if e := &events[i]; e.Fd == wakeEvent {
				l.answerCalls()
			} else {
				l.ready(&l.conns[e.Fd], e.Events)
			}
			l.sendDue()
		}
		l.sendDue()
		l.advance()
	}
	for i := range l.conns {
		l.hangUp(&l.conns[i])
	}
	unix.Close(l.epoll)
	unix.Close(l.wake)
}

// wait waits until something is ready or due.
func (l *loop) wait(events []unix.EpollEvent) int {
	var timeout *unix.Timespec
	if due := min(l.load.nextEvent(), l.phase.nextEvent()); due != never {
		ts := unix.NsecToTimespec(max(0, due-l.clock.now()))
		timeout = &ts
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(timeout)), 0, 0)
	if errno == unix.ENOSYS { // before Linux 5.11: by the millisecond
		ms := -1
		if timeout != nil {
			ms = int((timeout.Nano() + 999_999) / 1_000_000)
		}
		got, err := unix.EpollWait(l.epoll, events, ms)
		if err != nil {
			return 0
		}
		return got
	}
	if errno != 0 {
		return 0 // EINTR
	}
	return int(n)
}

// ready serves a connection that has something to read or can be written to.
func (l *loop) ready(c *conn, events uint32) {
	if c.fd < 0 {
		return // closed by what was served before it
	}
	if c.state == connecting {
		l.connected(c)
		return
	}
	if events&unix.EPOLLOUT != 0 {
		l.flush(c)
	}
	if events&^unix.EPOLLOUT != 0 && c.fd >= 0 {
		l.read(c)
	}
}

// do has f called by the loop and waits for it. It reports whether that came about: not after the loop's end.
func (l *loop) do(f func()) bool {
	done := make(chan struct{})
	if !l.post(func() { f(); close(done) }) {
		return false
	}
	select {
	case <-done:
		return true
	case <-l.ended:
		return false
	}
}

// post has f called by the loop soon.
func (l *loop) post(f func()) bool {
	select {
	case l.calls <- f:
	case <-l.ended:
		return false
	}
	one := [8]byte{1}
	unix.Write(l.wake, one[:]) // it can only fail when it is awake already
	return true
}

func (l *loop) answerCalls() {
	var count [8]byte
	unix.Read(l.wake, count[:])
	for {
		select {
		case f := <-l.calls:
			f()
		default:
			return
		}
	}
}

// close ends the loop and all its connections.
func (l *loop) close() {
	l.do(func() { l.closed = true })
	<-l.ended
	l.shaking.Wait()
}

// A phase brings the connections from one state to another, a bounded number at a time.
type phase struct {
	name  string
	start func(c *conn) (bool, error) // false if there is nothing to do for this one
	pace  schedule                    // of starting; zero for none

	next, all    int // the first connection that has not been started, and how many there are
	under        int // way
	done         int
	began, ended int64
	err          error // the first; it ends the phase
	over         chan struct{}
}

// window bounds the connections that are under way at a time, below the backlog of any listener.
const window = 256

// begin starts a phase; its over is closed when it is over.
func (l *loop) begin(name string, rate float64, start func(c *conn) (bool, error)) *phase {
	l.phase = &phase{
		name: name, start: start, pace: schedule{start: l.clock.now(), rate: rate}, all: len(l.conns),
		began: l.clock.now(), over: make(chan struct{}),
	}
	return l.phase
}

func (p *phase) nextEvent() int64 {
	if p == nil || p.pace.rate == 0 || p.next == p.all || p.under >= window {
		return never
	}
	return p.pace.next()
}

// advance starts what may be started, and notices the end of a phase.
func (l *loop) advance() {
	p := l.phase
	if p == nil {
		return
	}
	for p.under < window && p.next < p.all && p.err == nil {
		if p.pace.rate != 0 && p.pace.next() > l.now {
			return
		}
		c := &l.conns[p.next]
		p.next++
		started, err := p.start(c)
		if err != nil {
			p.err = err
			break
		}
		if started {
			p.under++
			p.pace.n++
			c.inPhase = true
		}
	}
	if p.under == 0 && p.next == p.all || p.err != nil {
		p.ended = l.clock.now()
		l.phase = nil
		close(p.over)
	}
}

// settlePhase tells the phase that one of its connections got there, or why not.
func (l *loop) settlePhase(c *conn, err error) {
	if !c.inPhase {
		return
	}
	c.inPhase = false
	p := l.phase
	if p == nil {
		return
	}
	p.under--
	if err == nil {
		p.done++
	} else if p.err == nil {
		p.err = err
	}
}

// never is a time that does not come.
const never = int64(1<<63 - 1)

// A schedule spreads events evenly: event n is due n/rate seconds after start.
type schedule struct {
	start int64
	rate  float64
	n     int64 // the next one's number
}

func (s *schedule) next() int64 {
	return s.start + int64(float64(s.n)*float64(time.Second)/s.rate)
}

// fail keeps the first problem of the run, to tell the user.
func (l *loop) fail(err error) {
	if l.problem == nil && err != nil {
		l.problem = err
	}
}

var errHungUp = errors.New("the server hung up")
