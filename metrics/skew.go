package metrics

import (
	"sync"
	"time"
)

// A least is the least delay of the last minutes. A message takes a few milliseconds: what the least is below or above that, the
// clock that made the ids is ahead of this node's, or behind it.
type least struct {
	mu       sync.Mutex
	minute   int64         // guarded by mu; since 1970
	now, was time.Duration // guarded by mu; of that minute, and of the one before
	any, had bool          // guarded by mu; there was a message in it
}

func (l *least) observe(d time.Duration, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(at)
	if !l.any || d < l.now {
		l.now, l.any = d, true
	}
}

// turnLocked begins another minute.
func (l *least) turnLocked(at time.Time) {
	minute := at.Unix() / 60
	switch {
	case minute == l.minute:
		return
	case minute == l.minute+1:
		l.was, l.had = l.now, l.any
	default:
		l.had = false
	}
	l.minute, l.any = minute, false
}

// value is the least of this minute and the one before; 0 if nothing was said.
func (l *least) value(at time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(at)
	switch {
	case l.any && l.had:
		return min(l.now, l.was)
	case l.any:
		return l.now
	case l.had:
		return l.was
	}
	return 0
}
