package node

import (
	"runtime"
	"sync"
	"time"
)

// flushers are the goroutines that hand on what rooms have taken in. Each flushes one room at a time, and a room is with one
// of them at a time.
type flushers struct {
	mu    sync.Mutex
	work  sync.Cond
	rooms []*room // guarded by mu; first come, first served
	done  bool    // guarded by mu
	wg    sync.WaitGroup
}

func (f *flushers) start() {
	f.work.L = &f.mu
	for range runtime.GOMAXPROCS(0) {
		f.wg.Go(f.run)
	}
}

func (f *flushers) queue(r *room) {
	f.mu.Lock()
	f.rooms = append(f.rooms, r)
	f.mu.Unlock()
	f.work.Signal()
}

func (f *flushers) stop() {
	f.mu.Lock()
	f.done = true
	f.mu.Unlock()
	f.work.Broadcast()
	f.wg.Wait()
}

func (f *flushers) run() {
	var b batch
	var mine []*room // taken in one go, so that a busy node locks once for many rooms
	for {
		f.mu.Lock()
		for len(f.rooms) == 0 && !f.done {
			f.work.Wait()
		}
		if len(f.rooms) == 0 {
			f.mu.Unlock()
			return
		}
		n := (len(f.rooms) + 1) / 2 // leave some to the others
		mine = append(mine[:0], f.rooms[:n]...)
		f.rooms = append(f.rooms[:0], f.rooms[n:]...)
		f.mu.Unlock()
		for _, r := range mine {
			r.flush(&b)
			yield()
		}
		clear(mine)
	}
}

// yield lets other goroutines run, from a loop that does not block. The runtime does so by itself only while its monitor is
// awake, and the writes of socket.Conn do not wake it.
func yield() { runtime.Gosched() }

// membersPerYield is how many members are written to between two yields: some milliseconds.
const membersPerYield = 256

// Windows between the flushes of a busy room: what comes meanwhile shares one write per client. A flush that takes long
// makes the next window longer, so that a node with too much to do does it in larger pieces.
const (
	minWindow = 2 * time.Millisecond
	maxWindow = 20 * time.Millisecond
)

func windowAfter(took time.Duration) time.Duration { return min(max(minWindow, 2*took), maxWindow) }
