package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus/bustest"
	"parley/bus/id"
	"parley/cmd/parley-faults/judge"
)

// scale says how much happens in a trial.
type scale struct {
	clients  int           // 60
	rooms    int           // 6; each has as many clients of each node
	pause    time.Duration // between what one of them says, on average
	traffic  time.Duration // there is at least so much of it before the fault, after it, and in the midst of some
	long     time.Duration // how long a long fault lasts: past every time-out and lease
	patience time.Duration // with what must come
}

// Scales of a row.
var (
	full  = scale{clients: 60, rooms: 6, pause: time.Second, traffic: 3 * time.Second, long: 20 * time.Second, patience: 30 * time.Second}
	short = scale{clients: 24, rooms: 3, pause: time.Second, traffic: time.Second, long: 9 * time.Second, patience: 20 * time.Second}
)

// A trial is a cluster of three nodes under traffic: processes, on a real Redis. Its methods are for the row's goroutine.
type trial struct {
	testing.TB
	scale
	alone     bool                  // one fault, and not a mix of some
	redis     *bustest.RedisServer  // that is primary, or is to be
	address   *movingAddress        // of the primary
	watched   *bustest.Watched      // whose primary redis is; nil for a server alone
	cluster   *bustest.RedisCluster // in place of redis; nil for none
	stations  [3]*station
	networks  [3]*network // each node's
	members   []*member
	roomNames []string
	talking   sync.WaitGroup
	entering  sync.WaitGroup
	churning  sync.WaitGroup
	began     time.Time
	struck    time.Time
	lifted    time.Time
	bytes     atomic.Int64 // that a message has besides its number

	known    map[string]map[id.ID]judge.Words   // by room; what was seen in Redis
	lost     []time.Time                        // when Redis had lost something
	unready  [3]struct{ first, last time.Time } // guarded by mu; when a node was seen not to be ready
	watching sync.WaitGroup

	mu         sync.Mutex
	changed    sync.Cond                            // of what follows, and of the members
	open       int                                  // guarded by mu; what is said and has no answer
	said       int                                  // guarded by mu
	acked      map[string]map[judge.Words]judge.Ack // guarded by mu; by room
	silent     map[string]map[judge.Words]bool      // guarded by mu; by room; what has no answer
	count      int                                  // guarded by mu; of acked
	refused    int                                  // guarded by mu; answers that said unavailable
	failed     []error                              // guarded by mu; why something was refused for good
	cut        int                                  // guarded by mu; connections that clients lost
	cuts       map[string]int                       // guarded by mu; by reason
	over       bool                                 // guarded by mu; clients are closed since all is done
	idle       bool                                 // guarded by mu; nothing is answered any more: no acknowledgement is waited for
	links      int                                  // guarded by mu; connections to Redis that the fault broke
	effects    int                                  // guarded by mu; what else the fault did
	effectsAre string                               // guarded by mu
	slowest    time.Duration                        // guarded by mu; until an answer
}

// begin starts a cluster and fills its rooms. Nothing is said yet.
func begin(t testing.TB, s scale, parley string, f fault) *trial {
	t.Helper()
	if f.clients > 0 {
		s.clients = f.clients
	}
	tr := &trial{TB: t, alone: f.must != nothing, scale: s, acked: make(map[string]map[judge.Words]judge.Ack), cuts: make(map[string]int), silent: make(map[string]map[judge.Words]bool), known: make(map[string]map[id.ID]judge.Words)}
	tr.changed.L = &tr.mu
	config := append([]string{"repl-diskless-sync-delay 0", "enable-debug-command yes"}, f.redis...)
	switch f.on {
	case sentinels:
		tr.watched = bustest.StartSentinels(t, 2, config...)
		tr.redis = tr.watched.Servers[0]
	case cluster:
		tr.cluster = bustest.StartRedisCluster(t, 3, 1, config...)
		tr.redis = tr.cluster.Servers[0]
	default:
		tr.redis = bustest.StartRedisTCP(t, config...)
	}
	tr.address = newMovingAddress(t, tr.redis.Addr())
	dir := tempDir(t)
	for i := range tr.stations {
		tr.networks[i] = newNetwork(t, fmt.Sprint("network", i), tr.address.addr())
		user := ""
		if f.user {
			user = "parley:old@"
		}
		tr.stations[i] = &station{
			TB: t, name: fmt.Sprint("node", i), parley: parley, log: filepath.Join(dir, fmt.Sprint("node", i, ".log")),
			args: append([]string{"--redis", tr.url(user + tr.networks[i].addr()), "--drain", "2s"}, f.node...),
		}
		t.Cleanup(tr.stations[i].kill)
		tr.stations[i].start()
	}
	for i := range s.rooms {
		tr.roomNames = append(tr.roomNames, fmt.Sprint("room", i))
	}
	t.Cleanup(tr.disperse)
	for i := range s.clients {
		home := i % len(tr.stations)
		if f.home {
			home = 0
		}
		tr.add(home, i/len(tr.stations)%s.rooms)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*s.patience)
	defer cancel()
	tr.enterAll(ctx, tr.members)
	tr.watch()
	return tr
}

// url is what a node is told, which finds a server alone at an address.
func (tr *trial) url(at string) string {
	switch {
	case tr.watched != nil:
		return tr.watched.URL()
	case tr.cluster != nil:
		return tr.cluster.URL()
	}
	return "redis://" + at + "/0"
}

// add makes a member of a room, which is to enter.
func (tr *trial) add(home, room int) *member {
	m := &member{
		trial: tr, number: len(tr.members), room: tr.roomNames[room], urge: make(chan struct{}, 1), quit: make(chan struct{}),
		route: &route{}, list: make(map[string]bool),
	}
	for i := range tr.stations {
		m.route.stations = append(m.route.stations, tr.stations[(home+i)%len(tr.stations)])
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.members = append(tr.members, m)
	return m
}

func (tr *trial) enterAll(ctx context.Context, members []*member) {
	tr.Helper()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for _, m := range members {
		wg.Go(func() {
			if err := m.enter(ctx); err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		tr.Fatalf("enter: %v", *err)
	}
}

// talk has everyone talk until settle.
func (tr *trial) talk() {
	tr.began = time.Now()
	for _, m := range tr.members {
		tr.talking.Go(m.talk)
	}
}

// present are those who stay.
func (tr *trial) present() []*member {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(tr.members), func(m *member) bool { return m.gone || !m.entered })
}

// turnover has somebody leave each room for good, and somebody new come into it, whenever Redis lets them.
func (tr *trial) turnover() {
	leavers := make(map[string]bool)
	for _, m := range slices.Backward(tr.present()) {
		if !leavers[m.room] {
			leavers[m.room] = true
			tr.depart(m)
		}
	}
	for i := range tr.roomNames {
		m := tr.add(i%len(tr.stations), i)
		tr.entering.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), tr.long+2*tr.patience)
			defer cancel()
			if err := m.enter(ctx); err != nil {
				tr.Errorf("who comes meanwhile does not get in: %v", err)
			}
		})
	}
}

func (tr *trial) depart(m *member) {
	m.hush.Do(func() { close(m.quit) })
	tr.mu.Lock()
	m.gone = true
	tr.mu.Unlock()
	tr.entering.Go(m.close)
}

func (tr *trial) asked(m *member, w judge.Words) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.open++
	m.open++
	if tr.silent[m.room] == nil {
		tr.silent[m.room] = make(map[judge.Words]bool)
	}
	tr.silent[m.room][w] = true
	tr.said++
}

func (tr *trial) answered(m *member, w judge.Words, i id.ID, err error, took time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.open--
	m.open--
	switch {
	case err == nil:
		delete(tr.silent[m.room], w)
		if tr.acked[m.room] == nil {
			tr.acked[m.room] = make(map[judge.Words]judge.Ack)
		}
		tr.acked[m.room][w] = judge.Ack{ID: i, At: time.Now()}
		tr.count++
		tr.slowest = max(tr.slowest, took)
	case tr.over:
	case !m.gone:
		tr.failed = append(tr.failed, fmt.Errorf("%s: %w", m.name(), err))
	}
	tr.changed.Broadcast()
}

func (tr *trial) refusal(code string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if code == "unavailable" {
		tr.refused++
	}
}

func (tr *trial) bulk() int { return int(tr.bytes.Load()) }

// effect notes what a fault did that shows nowhere else, by the number that a text begins with.
func (tr *trial) effect(text, what string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	fmt.Sscan(text, &tr.effects)
	tr.effectsAre = what
}

// broke counts connections to Redis that were broken.
func (tr *trial) broke(n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.links += n
}

// pass lets traffic pass, however slow the machine is.
func (tr *trial) pass() {
	tr.Helper()
	time.Sleep(tr.traffic)
	tr.awaitAcks(tr.clients / 2)
}

// clamour has everyone say much at once, and returns in the midst of it: whatever breaks now, breaks something.
func (tr *trial) clamour() {
	tr.Helper()
	tr.urge()
	tr.awaitAcks(1)
}

func (tr *trial) urge() { urge(tr.present()) }

// urge has members say much at once.
func urge(members []*member) {
	for _, m := range members {
		select {
		case m.urge <- struct{}{}:
		default:
		}
	}
}

// awaitAcks waits for so many more acknowledgements.
func (tr *trial) awaitAcks(n int) {
	tr.Helper()
	tr.mu.Lock()
	want := tr.count + n
	tr.mu.Unlock()
	if !tr.await(tr.patience, func() bool { return tr.idle || tr.count >= want }) {
		tr.Errorf("%d more messages were not answered within %s", n, tr.patience)
		tr.mu.Lock()
		tr.idle = true
		tr.mu.Unlock()
	}
}

// await waits for what is so under the lock, and reports whether it came.
func (tr *trial) await(patience time.Duration, so func() bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
			return false
		}
		tr.changed.Wait()
	}
	return true
}

// watch asks every node again and again whether it is ready.
func (tr *trial) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	for i, st := range tr.stations {
		tr.watching.Go(func() {
			for ctx.Err() == nil {
				ready := st.ready()
				tr.mu.Lock()
				if !ready && !tr.struck.IsZero() {
					tr.unready[i].last = time.Now()
					if tr.unready[i].first.IsZero() {
						tr.unready[i].first = time.Now()
					}
				}
				tr.mu.Unlock()
				select {
				case <-time.After(200 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	tr.Cleanup(func() {
		cancel()
		tr.watching.Wait()
	})
}

// readiness is how long after the fault the first node said that it was not ready, and how long after its end the last one
// did. Zero says that none did.
func (tr *trial) readiness() (unready, ready time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, u := range tr.unready {
		if u.first.IsZero() {
			continue
		}
		if d := u.first.Sub(tr.struck); unready == 0 || d < unready {
			unready = d
		}
		ready = max(ready, u.last.Sub(tr.lifted))
	}
	return unready, ready
}

// logKey is where a room's log is in Redis.
func logKey(room string) string { return "parley:{" + room + "}:log" }

// see notes what Redis has, in one step with what do has it do then.
func (tr *trial) see(c *redis.Client, do func(redis.Pipeliner)) {
	tr.Helper()
	for room, log := range tr.read(c, do) {
		if tr.known[room] == nil {
			tr.known[room] = make(map[id.ID]judge.Words)
		}
		maps.Copy(tr.known[room], log)
	}
}

// kept is what Redis has in the end.
func (tr *trial) kept(c *redis.Client) map[string]map[id.ID]bool {
	tr.Helper()
	kept := make(map[string]map[id.ID]bool)
	for room, log := range tr.read(c, nil) {
		kept[room] = make(map[id.ID]bool)
		for i := range log {
			kept[room][i] = true
		}
	}
	return kept
}

// read gives the messages that Redis has, by room, in one step with what do has it do then.
func (tr *trial) read(c *redis.Client, do func(redis.Pipeliner)) map[string]map[id.ID]judge.Words {
	tr.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tr.patience)
	defer cancel()
	logs := make(map[string]*redis.XMessageSliceCmd)
	if tr.cluster != nil {
		tr.readCluster(ctx, logs)
	} else if _, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, room := range tr.roomNames {
			logs[room] = p.XRange(ctx, logKey(room), "-", "+")
		}
		if do != nil {
			do(p)
		}
		return nil
	}); err != nil {
		tr.Fatalf("read what Redis has: %v", err)
	}
	messages := make(map[string]map[id.ID]judge.Words)
	for room, log := range logs {
		messages[room] = make(map[id.ID]judge.Words)
		for _, e := range log.Val() {
			if entry, message := e.Values["m"].(string); message {
				messages[room][parseID(e.ID)] = wordsIn(entry)
			}
		}
	}
	return messages
}

// settle ends the talk, lets everyone hear the last words, and judges what was heard and who is there.
func (tr *trial) settle() result {
	tr.Helper()
	tr.churning.Wait()
	for _, m := range tr.members {
		m.hush.Do(func() { close(m.quit) })
	}
	tr.talking.Wait()
	tr.entering.Wait()
	if !tr.await(tr.patience, func() bool { return tr.open == 0 }) {
		tr.Errorf("%d messages have no answer after %s: of %s", tr.open, tr.patience, tr.waiting())
	}
	present := tr.present()
	if !tr.await(tr.patience, func() bool { return !slices.ContainsFunc(present, func(m *member) bool { return !m.up }) }) {
		tr.Errorf("clients are not connected after %s", tr.patience)
	}
	spoke := make(map[string]bool)
	for _, m := range present {
		if !spoke[m.room] {
			spoke[m.room] = true
			m.speak(judge.Words{Sender: m.number, N: lastWords})
		}
	}
	// What is late is for the judge to find.
	tr.await(tr.patience, func() bool { return tr.open == 0 })
	tr.await(tr.patience, func() bool { return !slices.ContainsFunc(present, func(m *member) bool { return !m.last }) })
	if tr.open > 0 {
		tr.Errorf("%d of the last words have no answer", tr.open)
	}
	tr.awaitLists()
	lists := tr.lists()
	for _, st := range tr.stations {
		for deadline := time.Now().Add(tr.patience); !st.ready(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				tr.Errorf("%s is not ready after %s", st.id(), tr.patience)
				break
			}
		}
	}
	kept := tr.kept(tr.redis.Client())
	tr.mu.Lock()
	tr.over = true
	tr.mu.Unlock()
	tr.disperse()
	return tr.judge(kept, lists)
}

// waiting names who waits for answers.
func (tr *trial) waiting() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var names []string
	for _, m := range tr.members {
		if m.open > 0 {
			names = append(names, fmt.Sprintf("%s in %s (connected: %v, left: %v)", m.name(), m.room, m.up, m.gone))
		}
	}
	if len(names) > 3 {
		names = append(names[:3], fmt.Sprintf("and %d more", len(names)-3))
	}
	return strings.Join(names, ", ")
}

// presenceWithin is how long a list may be wrong after the last change: a killed node's members leave within 10 s.
const presenceWithin = 15 * time.Second

// awaitLists waits until each list is right, or could have been.
func (tr *trial) awaitLists() {
	for deadline := time.Now().Add(presenceWithin); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if tr.listsAreRight() && tr.nodesAreRight() {
			return
		}
	}
}

func (tr *trial) nodesAreRight() bool {
	want := tr.there()
	for room, lists := range tr.lists() {
		for _, l := range lists {
			if !sameUsers(l.Users, want[room]) {
				return false
			}
		}
	}
	return true
}

func (tr *trial) listsAreRight() bool {
	want := tr.there()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, m := range tr.members {
		if !m.gone && m.entered && !sameUsers(m.list, want[m.room]) {
			return false
		}
	}
	return true
}

// there is who is in each room.
func (tr *trial) there() map[string]map[string]bool {
	there := make(map[string]map[string]bool)
	for _, m := range tr.present() {
		if there[m.room] == nil {
			there[m.room] = make(map[string]bool)
		}
		there[m.room][m.user()] = true
	}
	return there
}

// lists are what the nodes answer to who is in each room.
func (tr *trial) lists() map[string][]judge.List {
	lists := make(map[string][]judge.List)
	for _, st := range tr.stations {
		for _, room := range tr.roomNames {
			users, err := st.members(room)
			if err != nil {
				users = nil
			}
			lists[room] = append(lists[room], judge.List{Of: st.id(), Users: users})
		}
	}
	return lists
}

func sameUsers(a, b map[string]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for u := range a {
		if !b[u] {
			return false
		}
	}
	return true
}

// disperse ends all clients.
func (tr *trial) disperse() {
	var wg sync.WaitGroup
	tr.churning.Wait()
	for _, m := range tr.members {
		m.hush.Do(func() { close(m.quit) })
		m.route.open()
	}
	tr.talking.Wait()
	tr.entering.Wait()
	for _, m := range tr.present() {
		tr.mu.Lock()
		m.entered = false
		tr.mu.Unlock()
		wg.Go(m.close)
	}
	wg.Wait()
}

// judge compares what was written down.
func (tr *trial) judge(kept map[string]map[id.ID]bool, lists map[string][]judge.List) result {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	res := result{said: tr.said, cut: tr.cut, links: tr.links, effects: tr.effects, effectsAre: tr.effectsAre, refused: tr.refused, cuts: tr.cuts, slowest: tr.slowest, took: time.Since(tr.began)}
	for _, room := range tr.roomNames {
		r := &judge.Room{Name: room, Acked: tr.acked[room], Open: tr.silent[room], Known: tr.known[room], Kept: kept[room], Lost: tr.lost, Lists: lists[room]}
		for _, m := range tr.members {
			if m.room == room && m.voice != nil {
				r.Members = append(r.Members, judge.Member{
					Name: m.name(), User: m.user(), Gone: m.gone, List: judge.List{Users: m.list}, Told: m.told,
				})
			}
		}
		res.Judge(r)
	}
	if len(tr.failed) > 0 {
		tr.Errorf("%d sends were refused for good, such as: %v", len(tr.failed), tr.failed[0])
	}
	return res
}
