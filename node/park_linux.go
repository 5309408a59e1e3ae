package node

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A lot is where idle connections are parked: a set of sockets that the kernel watches, instead of a goroutine each. An
// attendant waits for any of them to have something to read, and gives the session a turn.
//
// A session is either parked, or has one goroutine that reads it. Each wake-up disarms the socket (EPOLLONESHOT), so it
// cannot be had twice; and names the session by its slot and the slot's generation, so that a wake-up which was under way
// when the session ended, and its slot and descriptor went to another, is nobody's.
type lot struct {
	epoll int             // static
	file  *os.File        // static; epoll itself, which the Go runtime waits for
	wait  syscall.RawConn // static; of file
	wg    sync.WaitGroup

	mu    sync.Mutex
	slots []slot  // guarded by mu
	free  []int32 // guarded by mu
}

type slot struct {
	generation int32
	s          *session
}

func newLot() (*lot, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("park idle connections: %w", err)
	}
	unix.SetNonblock(epoll, true) // or the runtime takes a thread to wait for it
	l := &lot{epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll"), slots: make([]slot, 1)}
	if l.wait, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("park idle connections: %w", err)
	}
	l.wg.Go(l.attend)
	return l, nil
}

// close ends the attendant. All sessions have ended.
func (l *lot) close() {
	l.file.Close()
	l.wg.Wait()
}

const wakeEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

// park gives a session up to the lot, until there is something to read. It reports false if that cannot be had: the caller
// keeps the session.
func (l *lot) park(s *session) bool {
	op := unix.EPOLL_CTL_MOD
	l.mu.Lock() // which hands what the caller has written to whoever has the session next
	if s.slot == 0 {
		op = unix.EPOLL_CTL_ADD
		l.assignLocked(s)
	}
	event := unix.EpollEvent{Events: wakeEvents, Fd: s.slot, Pad: s.generation}
	l.mu.Unlock()
	return watch(l.epoll, op, s.conn.fd, &event) // past this call another may have the session
}

// assignLocked gives a session a slot. Slot 0 is none.
func (l *lot) assignLocked(s *session) {
	if n := len(l.free); n > 0 {
		s.slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		s.slot = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[s.slot].s = s
	s.generation = l.slots[s.slot].generation
}

// remove takes a session's slot back, before its descriptor is closed. Its reader calls it.
func (l *lot) remove(s *session) {
	if s.slot == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots[s.slot].s = nil
	l.slots[s.slot].generation++
	l.free = append(l.free, s.slot)
	s.slot = 0
}

// attend waits for sockets that have something to read, and gives their sessions a turn. When they are many it has helpers:
// were there always several attendants, each event would wake one more, to wait for the next.
func (l *lot) attend() {
	const batch = 16 // few enough that others get their share, enough that publishes share round trips
	var events [batch]unix.EpollEvent
	helpers := make(chan struct{}, runtime.GOMAXPROCS(0)-1)
	buf := make([]byte, turnBuffer)
	sessions := make([]*session, 0, batch)
	_ = l.wait.Read(func(fd uintptr) bool { // until it is closed; what comes meanwhile has this called again
		for n := batch; n == batch; {
			n = waiting(fd, events[:])
			sessions = l.parked(sessions[:0], events[:n])
			if n == batch {
				select {
				case helpers <- struct{}{}:
					many := slices.Clone(sessions)
					l.wg.Go(func() {
						defer func() { <-helpers }()
						buf := turnBuffers.Get().(*[]byte)
						defer turnBuffers.Put(buf)
						giveTurns(many, *buf)
					})
					continue
				default: // all are busy
				}
			}
			giveTurns(sessions, buf)
			yield()
		}
		return false
	})
}

// parked appends the sessions that events are about.
func (l *lot) parked(dst []*session, events []unix.EpollEvent) []*session {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range events {
		if sl := l.slots[ev.Fd]; sl.s != nil && sl.generation == ev.Pad {
			dst = append(dst, sl.s)
		}
	}
	return dst
}

func giveTurns(sessions []*session, buf []byte) {
	for _, s := range sessions {
		s.turn(buf)
	}
	clear(sessions)
}

// Calls that never block, of which the Go scheduler is not told (see writeNow).

// watch is epoll_ctl(2). It reports whether it was done.
func watch(epoll, op, fd int, event *unix.EpollEvent) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(event)), 0, 0)
	return errno == 0
}

// waiting is epoll_wait(2) without the wait. It answers how many events there are.
func waiting(epoll uintptr, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, epoll,
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
