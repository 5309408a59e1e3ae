package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A Worker serves a part of the connections, in this process or in another one. The coordinator calls its methods.
type Worker struct {
	mu   sync.Mutex
	loop *loop // guarded by mu until Open has set it
	gone bool  // guarded by mu: the coordinator is
	load *load
}

// Work serves as a worker over a pair of pipes until the coordinator closes them.
func Work(_ context.Context, in io.Reader, out io.Writer) error {
	return serveWorker(struct {
		io.Reader
		io.Writer
		io.Closer
	}{in, out, io.NopCloser(nil)})
}

func serveWorker(conn io.ReadWriteCloser) error {
	w := new(Worker)
	serveCalls(conn, map[string]method{
		"Open":       methodOf(w.Open),
		"Connect":    methodOf(w.Connect),
		"Join":       methodOf(w.Join),
		"Disconnect": methodOf(w.Disconnect),
		"Load":       methodOf(w.Load),
		"Settle":     methodOf(w.Settle),
		"Judge":      methodOf(w.Judge),
		"Progress":   methodOf(w.Progress),
		"Drain":      methodOf(w.Drain),
	}, w.leave)
	return nil
}

// leave closes the connections and ends all calls.
func (w *Worker) leave() {
	w.mu.Lock()
	l := w.loop
	w.gone = true
	w.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// Open takes the worker's share of a run. It connects nothing yet.
func (w *Worker) Open(a Assignment, _ *None) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return errStopped
	}
	w.loop, err = newLoop(&a.Plan, a.First, a.Count)
	return err
}

// stuckAfter ends a phase in which nothing has happened for so long.
const stuckAfter = 15 * time.Second

// Connect opens every connection that is not open, at most rate a second, or as fast as possible for 0.
func (w *Worker) Connect(rate float64, r *PhaseReport) error {
	l := w.loop
	return w.runPhase("connecting", rate, l.dial, r)
}

// Join joins every connection to its room. With plain text they have joined already.
func (w *Worker) Join(_ None, r *PhaseReport) error {
	return w.runPhase("joining", 0, w.loop.join, r)
}

func (w *Worker) runPhase(name string, rate float64, start func(*conn) (bool, error), r *PhaseReport) error {
	l := w.loop
	var p *phase
	if !l.do(func() { p = l.begin(name, rate, start) }) {
		return errStopped
	}
	tick := time.NewTicker(stuckAfter)
	defer tick.Stop()
	for last := -1; ; {
		select {
		case <-p.over:
			*r = PhaseReport{Count: p.done, Seconds: float64(p.ended-p.began) / 1e9}
			return p.err
		case <-l.ended:
			return errStopped
		case <-tick.C:
		}
		done := 0
		l.do(func() { done = p.done })
		if done == last {
			return l.stuck(name, p)
		}
		last = done
	}
}

// stuck says what the first connection of a phase that is not done is waiting for.
func (l *loop) stuck(name string, p *phase) (err error) {
	l.do(func() {
		for i := range l.conns {
			if c := &l.conns[i]; c.inPhase {
				err = fmt.Errorf("%s: %d done, then nothing for %v; a connection to %s is %s",
					name, p.done, stuckAfter, l.targetOf(c).host, c.state)
				return
			}
		}
		err = fmt.Errorf("%s: %d done, then nothing for %v", name, p.done, stuckAfter)
	})
	return err
}

var errStopped = errors.New("stopped")

// Disconnect closes all connections. The next ones come from other source addresses.
func (w *Worker) Disconnect(None, *None) error {
	l := w.loop
	l.do(func() {
		for i := range l.conns {
			l.hangUp(&l.conns[i])
		}
		l.round++
	})
	return nil
}

// Load sends a step's messages, and returns when the last of them is sent.
func (w *Worker) Load(s Step, sent *Sent) error {
	l := w.loop
	if !l.do(func() { w.load = l.beginLoad(s) }) {
		return errStopped
	}
	select {
	case <-w.load.said:
	case <-l.ended:
		return errStopped
	}
	l.do(func() { *sent = l.sentReport() })
	return nil
}

// Settle waits until everything that all workers sent has been received and answered, or nothing has come for a while. It
// returns what is known then.
func (w *Worker) Settle(all Sent, sent *Sent) error {
	l := w.loop
	var last int64
	l.do(func() {
		l.await(all)
		last = w.load.delivered
	})
	tick := time.NewTicker(l.plan.Settle)
	defer tick.Stop()
	for {
		select {
		case <-w.load.settled:
		case <-l.ended:
			return errStopped
		case <-tick.C:
			var delivered int64
			l.do(func() { delivered = w.load.delivered })
			if delivered > last {
				last = delivered
				continue
			}
		}
		l.do(func() { *sent = l.sentReport() })
		return nil
	}
}

// Judge ends a step that has settled.
func (w *Worker) Judge(all Sent, o *Outcome) error {
	if !w.loop.do(func() { *o = w.loop.outcome(all) }) {
		return errStopped
	}
	return nil
}

// Progress says how far the worker has come.
func (w *Worker) Progress(_ None, s *Status) error {
	l := w.loop
	l.do(func() {
		*s = Status{
			Open: l.open, Joined: l.joined, Sent: l.load.sent, Delivered: l.load.delivered,
			Problems: l.load.check.Count() + int64(len(l.load.refused)) + int64(l.dropped),
		}
	})
	return nil
}
