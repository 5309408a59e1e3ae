package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/node/client"
)

// scale says how much happens in a trial.
type scale struct {
	speakers int           // at each node
	rooms    int           // each has as many speakers of both nodes
	pause    time.Duration // between what one of them says, on average
	traffic  time.Duration // there is at least so much of it before the fault, after it, and in the midst of some
	drain    time.Duration
	patience time.Duration // with what must come
}

// A trial is a cluster of two nodes under traffic: processes, on a real Redis. Its methods are for the test's goroutine.
type trial struct {
	*testing.T
	scale
	redis    *bustest.RedisServer
	stations [2]*station
	speakers []*speaker
	hush     context.CancelFunc
	talking  sync.WaitGroup
	began    time.Time

	mu      sync.Mutex
	changed sync.Cond              // of what follows, and of the speakers
	open    int                    // guarded by mu; sends without an answer
	acked   int                    // guarded by mu
	rooms   map[string]*roomRecord // guarded by mu
	refused []error                // guarded by mu; why sends failed for good
	losses  []loss                 // guarded by mu
	slowest time.Duration          // guarded by mu; answer to a send
}

// begin starts a cluster and fills its rooms. Nothing is said yet.
func begin(t *testing.T, s scale, redisConfig ...string) *trial {
	tr := &trial{T: t, scale: s, rooms: make(map[string]*roomRecord)}
	tr.changed.L = &tr.mu
	tr.redis = bustest.StartRedis(t, redisConfig...)
	for i := range tr.stations {
		tr.stations[i] = &station{trial: tr, name: fmt.Sprint("node", i)}
		tr.stations[i].start()
	}
	for i := range len(tr.stations) * s.speakers {
		home := i % len(tr.stations)
		room := fmt.Sprint("room", i/len(tr.stations)%s.rooms)
		if tr.rooms[room] == nil {
			tr.rooms[room] = &roomRecord{acked: make(map[words]client.ID)}
		}
		tr.speakers = append(tr.speakers, &speaker{
			trial: tr, number: i, name: room, urge: make(chan struct{}, 1), last: make(chan struct{}),
			route: &route{stations: []*station{tr.stations[home], tr.stations[1-home]}},
		})
	}
	t.Cleanup(tr.disperse)
	tr.together("enter", 64, func(ctx context.Context, s *speaker) error { return s.enter(ctx) })
	return tr
}

// together has all speakers do something, so many at a time.
func (tr *trial) together(what string, atOnce int, do func(context.Context, *speaker) error) {
	tr.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tr.patience)
	defer cancel()
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for _, s := range tr.speakers {
		free <- struct{}{}
		wg.Go(func() {
			if err := do(ctx, s); err != nil {
				failed.Store(&err)
			}
			<-free
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		tr.Fatalf("%s: %v", what, *err)
	}
}

// talk has everyone talk until settle.
func (tr *trial) talk() {
	var ctx context.Context
	ctx, tr.hush = context.WithCancel(context.Background())
	tr.began = time.Now()
	for _, s := range tr.speakers {
		tr.talking.Go(func() { s.talk(ctx) })
	}
}

func (tr *trial) asked() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.open++
}

func (tr *trial) answered(s *speaker, w words, id client.ID, err error, took time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.open--
	if err != nil {
		tr.refused = append(tr.refused, err)
	} else {
		tr.acked++
		tr.rooms[s.name].acked[w] = id
		tr.slowest = max(tr.slowest, took)
	}
	tr.changed.Broadcast()
}

// pass lets traffic pass, however slow the machine is.
func (tr *trial) pass() {
	tr.Helper()
	time.Sleep(tr.traffic)
	tr.awaitAcks(len(tr.speakers))
}

// clamour has everyone say much at once, and returns in the midst of it: whatever breaks now, breaks something.
func (tr *trial) clamour() {
	tr.Helper()
	for _, s := range tr.speakers {
		select {
		case s.urge <- struct{}{}:
		default:
		}
	}
	tr.awaitAcks(1)
}

// awaitAcks waits for so many more acknowledgements.
func (tr *trial) awaitAcks(n int) {
	tr.Helper()
	tr.mu.Lock()
	want := tr.acked + n
	tr.mu.Unlock()
	tr.await("more is acknowledged", func() bool { return tr.acked >= want })
}

// await waits for what is so under the lock. The test ends if it does not come.
func (tr *trial) await(what string, so func() bool) {
	tr.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tr.patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		tr.mu.Lock() // await waits, or has not looked at ctx yet
		defer tr.mu.Unlock()
		tr.changed.Broadcast()
	})()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for !so() {
		if ctx.Err() != nil {
			tr.Fatalf("%s: not within %s", what, tr.patience)
		}
		tr.changed.Wait()
	}
}

// awaitAt waits until those of the speakers that are meant are connected to a node.
func (tr *trial) awaitAt(at *station, meant func(*speaker) bool) {
	tr.Helper()
	tr.await("speakers are at "+at.id(), func() bool {
		return !slices.ContainsFunc(tr.speakers, func(s *speaker) bool { return meant(s) && s.node != at.id() })
	})
}

func everyone(*speaker) bool { return true }

// lives is those who are at home at a node.
func (st *station) lives(s *speaker) bool { return s.route.stations[0] == st }

// sendHome has those who are at home at a node break their connections, and come back to it.
func (tr *trial) sendHome(st *station) {
	tr.Helper()
	for _, s := range tr.speakers {
		if st.lives(s) {
			s.route.cut()
		}
	}
	tr.awaitAt(st, st.lives)
}

// lossesSince gives the connections lost since there were n.
func (tr *trial) lossesSince(n int) []loss {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.losses[n:])
}

// settle ends the talk, lets everyone hear the last words, and judges what was heard. Redis may have forgotten what it had
// acknowledged only if forgot.
func (tr *trial) settle(forgot bool) {
	tr.Helper()
	tr.hush()
	tr.talking.Wait()
	took := time.Since(tr.began)
	tr.await("all sends are answered", func() bool { return tr.open == 0 })
	for _, s := range tr.speakers[:len(tr.stations)*tr.scale.rooms] {
		if tr.stations[0].lives(s) { // one in each room
			s.say(words{s.number, lastWords})
		}
	}
	tr.await("the last words are acknowledged", func() bool { return tr.open == 0 })
	tr.awaitLastWords()
	tr.awaitMembers()
	tr.disperse()

	var v verdict
	for _, s := range tr.speakers {
		r := tr.rooms[s.name]
		r.heard = append(r.heard, s.heard)
	}
	for name, r := range tr.rooms {
		v.judge(name, r, forgot)
	}
	tr.Logf("%d speakers in %d rooms, %s of traffic: %v; %d connections lost; the slowest acknowledgement took %s",
		len(tr.speakers), tr.scale.rooms, took.Round(time.Second), &v, len(tr.losses), tr.slowest.Round(time.Millisecond))
	for _, note := range v.notes {
		tr.Error(note)
	}
	switch {
	case v.wrong() > 0:
		tr.Error("that is not what was promised")
	case forgot && v.told == 0:
		tr.Error("nobody missed anything: the trial shows nothing")
	case !forgot && v.gaps > 0:
		tr.Error("gaps were told, though nothing was lost")
	}
	for _, s := range tr.speakers {
		if forgot && !slices.ContainsFunc(s.heard, func(h happening) bool { return h.gap }) {
			tr.Errorf("speaker %d was not told that something was lost", s.number)
		}
	}
	if len(tr.refused) > 0 {
		tr.Errorf("%d sends failed for good: %v", len(tr.refused), tr.refused[0])
	}
	for _, st := range tr.stations {
		st.drain()
	}
}

func (tr *trial) awaitLastWords() {
	tr.Helper()
	deadline := time.After(tr.patience)
	for i, s := range tr.speakers {
		select {
		case <-s.last:
		case <-deadline:
			tr.Errorf("speaker %d, and maybe some of the %d after it, heard no last words within %s", s.number, len(tr.speakers)-i-1, tr.patience)
			return
		}
	}
}

// awaitMembers waits until each room has as many members as it should, as both nodes see it.
func (tr *trial) awaitMembers() {
	tr.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tr.patience)
	defer cancel()
	want := len(tr.speakers) / tr.scale.rooms
	for _, s := range tr.speakers[:len(tr.stations)*tr.scale.rooms] {
		for {
			_, count, err := s.room.Members(ctx)
			if count == want {
				break
			}
			select {
			case <-ctx.Done():
				tr.Errorf("%s has %d members, %v, and not %d", s.name, count, err, want)
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// disperse ends all clients.
func (tr *trial) disperse() {
	if tr.hush != nil {
		tr.hush()
	}
	tr.talking.Wait()
	tr.together("close", len(tr.speakers), func(_ context.Context, s *speaker) error {
		if s.Client != nil {
			s.Close()
		}
		return nil
	})
}

// counted sums up a counter of both nodes.
func (tr *trial) counted(metric string) (sum float64) {
	tr.Helper()
	for _, st := range tr.stations {
		_, text, err := get(st.process.url + "/metrics")
		if err != nil {
			tr.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, metric+" "); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					tr.Fatal(err)
				}
				sum += n
			}
		}
	}
	return sum
}

// A station is a node that is started again and again. Speakers find it wherever it listens.
type station struct {
	trial   *trial
	name    string
	starts  int
	process *process // nil while it is down
	addr    atomic.Pointer[string]
}

// id is what the node is called in this life.
func (st *station) id() string { return fmt.Sprint(st.name, ".", st.starts) }

func (st *station) start() {
	t := st.trial
	t.Helper()
	st.starts++
	p, err := startProcess(parley("--redis", t.redis.URL(), "--node-id", st.id(), "--drain", t.drain.String()))
	if err != nil {
		t.Fatal(err)
	}
	st.process = p
	addr := p.addr()
	st.addr.Store(&addr)
	id := st.id()
	t.Cleanup(func() {
		p.kill()
		said := string(p.stderr.Bytes())
		if strings.Contains(said, "DATA RACE") || strings.Contains(said, "panic:") {
			t.Errorf("%s is broken", id)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", id, said)
		}
	})
}

// kill ends the node at once.
func (st *station) kill() {
	st.addr.Store(nil) // the port may be another trial's at any time
	st.process.kill()
}

// drain ends the node as an operator does.
func (st *station) drain() {
	st.trial.Helper()
	if err := st.process.terminate(); err != nil {
		st.trial.Errorf("%s: %v", st.id(), err)
	}
	st.addr.Store(nil)
}

// freeze stops the node in its tracks; continued, it goes on where it was.
func (st *station) freeze() { st.signal(syscall.SIGSTOP) }
func (st *station) thaw()   { st.signal(syscall.SIGCONT) }

func (st *station) signal(sig syscall.Signal) {
	st.trial.Helper()
	if err := st.process.cmd.Process.Signal(sig); err != nil {
		st.trial.Fatalf("%s to %s: %v", sig, st.id(), err)
	}
}
