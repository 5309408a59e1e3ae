package node

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A lot is where idle connections are parked: a set of sockets that the kernel watches, instead of a goroutine each. A few
// attendants wait for any of them to have something to read, and give the session a turn.
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
	for range runtime.GOMAXPROCS(0) {
		l.wg.Go(l.attend)
	}
	return l, nil
}

// close ends the attendants. All sessions have ended.
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
	return unix.EpollCtl(l.epoll, op, s.conn.fd, &event) == nil // past this call another may have the session
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

// attend waits for sockets that have something to read, and gives their sessions a turn. While one attendant waits the others
// that are free queue behind it.
func (l *lot) attend() {
	const batch = 16 // few enough that others get their share, enough that publishes share round trips
	var events [batch]unix.EpollEvent
	buf := make([]byte, turnBuffer)
	sessions := make([]*session, 0, batch)
	for {
		n := 0
		err := l.wait.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return // closed
		}
		sessions = sessions[:0]
		l.mu.Lock()
		for _, ev := range events[:n] {
			if sl := l.slots[ev.Fd]; sl.s != nil && sl.generation == ev.Pad {
				sessions = append(sessions, sl.s)
			}
		}
		l.mu.Unlock()
		for _, s := range sessions {
			s.turn(buf)
		}
		clear(sessions)
	}
}
