package redis

import (
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

const (
	reconcileMost  = 2400 // rooms that are compared in a second
	reconcileSteps = 20   // in which the rooms of an interval are compared
)

// reconciled is what reconcileLoop knows of a room.
type reconciled struct {
	refreshed time.Time // when its keys' lives were last prolonged
	last      bus.ID    // a newer id than ours, seen then: it must have arrived by now
	suspect   bool
	again     bool // it is among the suspects

	numbers map[string]uint64 // and newer changes of incarnations; see roster.compare
}

// turns are the rooms in the order in which they are compared: each once in CompareInterval, or as often as reconcileMost allows
// where that is less. What seems to lag behind is looked at again soon.
type turns struct {
	mu    sync.Mutex // a leaf
	rooms []*room    // guarded by mu; some may be over

	share    float64 // owned by reconcileLoop, as is what follows; of a room that was due so far
	suspects []suspect
}

type suspect struct {
	room *room
	due  time.Time
}

func (t *turns) add(rm *room) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rooms = append(t.rooms, rm)
}

// again has a room compared again soon: what it lacks may be on its way.
func (t *turns) again(rm *room) {
	if !rm.reconciled.again {
		rm.reconciled.again = true
		t.suspects = append(t.suspects, suspect{rm, time.Now().Add(rm.bus.cfg.CompareInterval / 8)})
	}
}

// take gives the rooms that are due in one of the steps, at most so many.
func (t *turns) take(most int) (due []*room) {
	for now := time.Now(); len(t.suspects) > 0 && len(due) < most && !now.Before(t.suspects[0].due); t.suspects = t.suspects[1:] {
		rm := t.suspects[0].room
		if rm.reconciled.again = false; !rm.ended.Load() {
			due = append(due, rm)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.share = min(t.share+float64(len(t.rooms))/reconcileSteps, float64(most))
	n := min(int(t.share), most-len(due), len(t.rooms))
	t.share -= float64(n)
	turn := t.rooms[:n:n]
	t.rooms = t.rooms[n:]
	for _, rm := range turn {
		if !rm.ended.Load() {
			due, t.rooms = append(due, rm), append(t.rooms, rm)
		}
	}
	return due
}

// reconcileLoop compares rooms with Redis: the loss of the last message before a silence, or of the tail of a log, shows
// nowhere else. It also keeps the keys of occupied rooms from expiring, and tries again what failed.
func (r *Bus) reconcileLoop() {
	step := r.cfg.CompareInterval / reconcileSteps
	tick := time.NewTicker(step)
	defer tick.Stop()
	most := max(1, int(reconcileMost*step/time.Second))
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		if n%(reconcileSteps/3) == 0 {
			r.mendTrails()
			for _, l := range r.links {
				l.subscriber.askAgain()
			}
		}
		for due := range slices.Chunk(r.turns.take(most), repairRooms) {
			if err := r.reconcileRooms(due); err != nil {
				if r.ctx.Err() == nil {
					r.complain("compare rooms", err)
				}
				break
			}
		}
	}
}

// A comparison is what is compared of one room.
type comparison struct {
	room    *room
	run     string            // the server's, before the read
	at      bus.ID            // ours, before the read
	numbers map[string]uint64 // of the incarnations as we know them, before the read
	writes  uint64            // of the roster, before the read
	inc     string            // whose members were counted; "" if there is something to be written first, or nothing ever was

	last, incarnations, own *redis.Cmd
}

// refused gives the refusal of one of its commands, nil without one.
func (c *comparison) refused() error {
	cmds := []redis.Cmder{c.last, c.incarnations}
	if c.own != nil {
		cmds = append(cmds, c.own)
	}
	return refused(cmds...)
}

// reconcileRooms returns an error if Redis does not answer. What it refuses of one room keeps no other from being compared.
func (r *Bus) reconcileRooms(rooms []*room) error {
	inc, _ := r.lease.current()
	run, now := r.server.runNow(), time.Now()
	refreshEvery := r.cfg.presenceLife / 6
	q := r.query(r.ctx, r.own)
	comparisons := make([]*comparison, 0, len(rooms))
	for _, rm := range rooms {
		c := &comparison{room: rm, run: run}
		rm.mu.Lock()
		state, confirmed := rm.state, rm.isConfirmed
		c.at = rm.at
		if state != live && confirmed { // it failed, or is under way
			rm.readSoonLocked()
		}
		if rm.rosterStale && confirmed {
			rm.readRosterSoonLocked()
		}
		rm.mu.Unlock()
		if state != live {
			continue
		}
		ro := rm.roster
		c.numbers = ro.numbers()
		ro.mu.Lock()
		c.writes = ro.writes
		if ro.settledLocked() && ro.touched && ro.inc == inc {
			c.inc = inc
		}
		ro.mu.Unlock()
		c.last, c.incarnations = q.get(rm.keys.last), q.do("hgetall", rm.keys.incarnations)
		if c.inc != "" {
			c.own = q.do("hlen", rm.keys.usersOf(inc))
		}
		if now.Sub(rm.reconciled.refreshed) > refreshEvery {
			rm.reconciled.refreshed = now
			q.do("pexpire", rm.keys.last, r.lastLife().Milliseconds())
			for _, key := range []string{rm.keys.incarnations, rm.keys.usersOf(inc)} {
				q.do("pexpire", key, r.cfg.presenceLife.Milliseconds())
			}
		}
		comparisons = append(comparisons, c)
	}
	if len(q.cmds) == 0 {
		return nil
	}
	if err := q.ask(); err != nil {
		return err
	}
	for _, c := range comparisons {
		if err := c.refused(); err != nil {
			r.complain("compare "+c.room.name, err)
			continue
		}
		c.settle()
	}
	return nil
}

// settle starts a repair if the room lags behind what Redis had at the comparison before, or is ahead of Redis.
func (c *comparison) settle() {
	rm := c.room
	r := rm.bus
	last := idOf(c.last)
	_, numbers, reaped := parseIncarnations(c.incarnations.Val())
	for inc := range numbers {
		if inc != c.inc {
			r.reaper.suspect(inc, rm.name)
		}
	}
	if c.inc != "" {
		n, _ := c.own.Int()
		c.settleOwn(n, numbers[c.inc])
	}

	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state != live {
		return
	}
	before := rm.reconciled
	rm.reconciled.suspect = false
	rm.foundLocked(last, c.run)
	owed := rm.owed()
	switch {
	case last.Less(c.at), before.suspect && rm.at.Less(before.last):
		rm.repairNowLocked()
		return
	case rm.at.Less(owed):
		rm.reconciled.suspect, rm.reconciled.last = true, owed
	}
	behind, stale := rm.roster.compare(c.numbers, numbers, reaped, before.numbers)
	rm.reconciled.numbers = behind
	if behind != nil {
		rm.reconciled.suspect = true
	}
	if rm.reconciled.suspect && !before.suspect {
		r.turns.again(rm)
	}
	if names := rm.roster.remind(rosterUsers); names != nil {
		rm.link.publisher.add(newPlainOp(rm.keys.channel, "n"+string(names), nil))
	}
	if rm.rosterStale || stale { // or the read failed, or is under way
		rm.rosterStale = true
		rm.readRosterSoonLocked()
	}
}

// compare compares what was known of a room's incarnations, before Redis was asked, with what Redis has. It returns those where
// a change of that number, or the reaping (0), should arrive, and whether the roster must be read: what was awaited at the
// comparison before has not arrived, or Redis has lacked for long what is known here.
func (ro *roster) compare(known, numbers map[string]uint64, reaped map[string]struct{}, awaited map[string]uint64) (behind map[string]uint64, stale bool) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	await := func(inc string, number uint64) {
		if behind == nil {
			behind = make(map[string]uint64)
		}
		behind[inc] = number
	}
	for inc, number := range awaited {
		s := ro.sets[inc]
		stale = stale || number == 0 && s != nil || number > 0 && (s == nil || s.number < number)
	}
	for inc, number := range numbers {
		if known[inc] < number {
			await(inc, number)
		}
	}
	for inc, had := range known {
		s := ro.sets[inc]
		if s == nil || s.number != had {
			continue
		}
		number, there := numbers[inc]
		if _, gone := reaped[inc]; !there && gone {
			await(inc, 0)
		} else if !there || number < had {
			stale = ro.lostForLongLocked(s) || stale
		} else if number == had {
			s.lost = time.Time{}
		}
	}
	return behind, stale
}

// settleOwn has this node's members of the room written anew if Redis has others.
func (c *comparison) settleOwn(users int, number uint64) {
	ro := c.room.roster
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.writes == c.writes && ro.settledLocked() && (users != len(ro.want) || number != ro.number) {
		ro.whole, ro.indexed = true, false
		ro.queueLocked()
	}
}
