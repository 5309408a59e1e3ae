package socket

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

// A poller is where idle connections are parked: a set of sockets that the kernel watches, instead of a goroutine each. Its one
// goroutine waits for any of them to have something to read, and reads it.
//
// A connection is either parked, or has one goroutine that reads it. Each wake-up disarms the socket (EPOLLONESHOT), so no
// two goroutines get it; and it names the connection by its slot and the slot's generation, so that a wake-up which was under way
// when the connection ended is dropped, though slot and descriptor may be another's by then.
type poller struct {
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
	c          *Conn
}

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("park idle connections: %w", err)
	}
	unix.SetNonblock(epoll, true) // or the runtime takes a thread to wait for it
	p := &poller{epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll"), slots: make([]slot, 1)}
	if p.wait, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("park idle connections: %w", err)
	}
	p.wg.Go(p.run)
	return p, nil
}

// close ends the poller. All connections have ended.
func (p *poller) close() {
	p.file.Close()
	p.wg.Wait()
}

const wakeEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

// park hands a connection to the poller, until there is something to read. If it returns false the caller keeps the connection.
func (p *poller) park(c *Conn) bool {
	op := unix.EPOLL_CTL_MOD
	p.mu.Lock() // the next reader sees what this one has written
	if c.slot == 0 {
		op = unix.EPOLL_CTL_ADD
		p.assignLocked(c)
	}
	event := unix.EpollEvent{Events: wakeEvents, Fd: c.slot, Pad: c.generation}
	p.mu.Unlock()
	return watch(p.epoll, op, c.fd, &event) // past this call another may have the connection
}

// assignLocked finds a slot for a connection. Slot 0 is none.
func (p *poller) assignLocked(c *Conn) {
	if n := len(p.free); n > 0 {
		c.slot, p.free = p.free[n-1], p.free[:n-1]
	} else {
		c.slot = int32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	p.slots[c.slot].c = c
	c.generation = p.slots[c.slot].generation
}

// remove takes a connection's slot back, before its descriptor is closed. Its reader calls it.
func (p *poller) remove(c *Conn) {
	if c.slot == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[c.slot].c = nil
	p.slots[c.slot].generation++
	p.free = append(p.free, c.slot)
	c.slot = 0
}

// run waits for sockets that have something to read, and reads them. When they are many it has helpers: if several always
// waited, each event would wake one more, to wait for the next.
func (p *poller) run() {
	const batch = 16 // few enough that others get their share, enough that publishes share round trips
	var events [batch]unix.EpollEvent
	helpers := make(chan struct{}, runtime.GOMAXPROCS(0)-1)
	buf := make([]byte, pollBuffer)
	conns := make([]*Conn, 0, batch)
	_ = p.wait.Read(func(fd uintptr) bool { // until it is closed; what comes meanwhile has this called again
		for n := batch; n == batch; {
			n = waiting(fd, events[:])
			conns = p.parked(conns[:0], events[:n])
			if n == batch {
				select {
				case helpers <- struct{}{}:
					many := slices.Clone(conns)
					p.wg.Go(func() {
						defer func() { <-helpers }()
						buf := readBuffers.Get().(*[]byte)
						defer readBuffers.Put(buf)
						readAll(many, *buf)
					})
					continue
				default: // all are busy
				}
			}
			readAll(conns, buf)
			runtime.Gosched() // the scheduler is not told of what is done here (see writeNow)
		}
		return false
	})
}

// parked appends the connections that events are about.
func (p *poller) parked(dst []*Conn, events []unix.EpollEvent) []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ev := range events {
		if sl := p.slots[ev.Fd]; sl.c != nil && sl.generation == ev.Pad {
			dst = append(dst, sl.c)
		}
	}
	return dst
}

func readAll(conns []*Conn, buf []byte) {
	for _, c := range conns {
		c.readPolled(buf)
	}
	clear(conns)
}

// Calls that never block, of which the Go scheduler is not told (see writeNow).

// watch is epoll_ctl(2). It reports whether it was done.
func watch(epoll, op, fd int, event *unix.EpollEvent) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(event)), 0, 0)
	return errno == 0
}

// waiting is epoll_wait(2) without the wait. It returns how many events there are.
func waiting(epoll uintptr, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, epoll,
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
