package socket

import (
	"runtime"
	"sync"
)

// workers run functions, each in a goroutine, of which a few stay for what comes next. Their stacks have grown: for a new goroutine that
// costs more than the system calls of the handshake that it serves.
type workers struct {
	running sync.WaitGroup // functions
	alive   sync.WaitGroup // goroutines
	next    chan func()    // taken by those that wait
	places  chan struct{}  // holds one for each that waits
}

// waitingWorkers is how many goroutines wait at most. Functions that don't wait for something need no more than there are processors.
const waitingWorkers = 8

func newWorkers() *workers {
	return &workers{next: make(chan func()), places: make(chan struct{}, waitingWorkers)}
}

// Go runs f, which may wait, and lets it begin: or there would be nobody free when the next one comes.
func (w *workers) Go(f func()) {
	w.running.Add(1)
	select {
	case w.next <- f:
	default:
		w.alive.Go(func() { w.work(f) })
	}
	runtime.Gosched()
}

// work runs functions, f first, until enough others wait for the next one.
func (w *workers) work(f func()) {
	for ok := true; ok; {
		f()
		w.running.Done()
		select {
		case w.places <- struct{}{}:
			f, ok = <-w.next
			<-w.places
		default:
			return
		}
	}
}

// close returns once all functions have returned, and no goroutine is left. Go is not called any more.
func (w *workers) close() {
	w.running.Wait()
	close(w.next)
	w.alive.Wait()
}
