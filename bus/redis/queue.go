package redis

import (
	"slices"
	"sync"
)

// A workQueue hands work to workers, many pieces at a time.
type workQueue[T any] struct {
	wake chan struct{} // capacity 1

	mu      sync.Mutex // a leaf
	waiting []T        // guarded by mu
}

func newWorkQueue[T any]() workQueue[T] { return workQueue[T]{wake: make(chan struct{}, 1)} }

// add queues work, before all other if it is urgent.
func (q *workQueue[T]) add(work T, urgent bool) {
	q.mu.Lock()
	if urgent {
		q.waiting = slices.Insert(q.waiting, 0, work)
	} else {
		q.waiting = append(q.waiting, work)
	}
	q.mu.Unlock()
	wake(q.wake)
}

// len is how many pieces wait.
func (q *workQueue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// take waits for work. It returns nil once over is closed.
func (q *workQueue[T]) take(most int, over <-chan struct{}) []T {
	for {
		select {
		case <-over:
			return nil
		default:
		}
		q.mu.Lock()
		n := min(len(q.waiting), most)
		taken := slices.Clone(q.waiting[:n])
		q.waiting = slices.Delete(q.waiting, 0, n)
		more := len(q.waiting) > 0
		q.mu.Unlock()
		if more {
			wake(q.wake)
		}
		if n > 0 {
			return taken
		}
		select {
		case <-q.wake:
		case <-over:
		}
	}
}

// wake makes sure that whoever waits on c looks again.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
