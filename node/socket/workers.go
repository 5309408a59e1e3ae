package socket

import (
	"runtime"
	"sync"
)

// workers run functions, each in a goroutine, of which a few stay for what comes next. Their stacks have grown: for a new goroutine that
// costs more than the system calls of the handshake that it serves.
type workers struct {
	alive  sync.WaitGroup
	next   chan func()   // taken by those that wait
	places chan struct{} // holds one for each that waits
}

// waitingWorkers is how many goroutines wait at most. Functions that don't wait for anything need few: but as many as there are let Go, which
// yields when all are busy, begin so many at a time.
const waitingWorkers = 16

func newWorkers() *workers {
	return &workers{next: make(chan func()), places: make(chan struct{}, waitingWorkers)}
}

// Go runs f, which may wait.
func (w *workers) Go(f func()) {
	if w.give(f) {
		return
	}
	runtime.Gosched() // who was given something before may be done with it by then
	if !w.give(f) {
		w.alive.Go(func() { w.work(f) })
	}
}

// give has a goroutine that waits run f. It returns false if none does.
func (w *workers) give(f func()) bool {
	select {
	case w.next <- f:
		return true
	default:
		return false
	}
}

// work runs functions, f first, until enough others wait for the next one.
func (w *workers) work(f func()) {
	for ok := true; ok; {
		f()
		select {
		case w.places <- struct{}{}:
			f, ok = <-w.next
			<-w.places
		default:
			return
		}
	}
}

// close returns once all functions have, and no goroutine is left. Go is not called any more.
func (w *workers) close() {
	close(w.next)
	w.alive.Wait()
}
