package redis

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"parley/bus"
	"parley/bus/id"
	"parley/bus/redis/resp"
)

// A server may have lost what it had acknowledged: a replica was promoted that lacked the newest entries, or a log was put back.
// The chain shows that to nobody who was away, and hardly to who is there. So a link asks, on every new connection and before
// anything is appended there, whether the log of each room goes on from where this node knows it. Where it does not, mend.lua
// appends a marker in the same step.

// A trail is the end of a room's log as a node knows it. Nodes keep the trails of rooms that they left, and of those that they
// only published to.
type trail struct {
	keys   *roomKeys
	acked  bus.ID    // the greatest id that was acknowledged here
	known  []bus.ID  // the last entries that were delivered, newest first
	newest bus.ID    // the marker of the newest break that is known
	run    string    // the server's of which that is known
	until  time.Time // when it may be forgotten
	again  bool      // it is to be asked about, or could not be
	due    bool      // it is to be asked about on this connection
	sent   bool      // that was asked, and not answered yet
}

// newestID is the greatest id that is known.
func (tr *trail) newestID() bus.ID {
	if tr.known[0].Less(tr.acked) {
		return tr.acked
	}
	return tr.known[0]
}

// settle takes the answer to a question about the trail, which was asked of the server of that run.
func (tr *trail) settle(v verdict, run string) {
	if tr.run = run; !v.broken {
		return
	}
	before := slices.IndexFunc(tr.known, func(i bus.ID) bool { return !v.point.Less(i) })
	if before < 0 {
		before = len(tr.known)
	}
	// From now on the marker must not be lost.
	tr.known, tr.acked, tr.newest = append([]bus.ID{v.marker}, tr.known[before:]...), bus.ID{}, v.marker
}

// recentIDs are the last entries that were delivered in a room, oldest first: those of the last half minute, since a node may be
// alone with a primary that was replaced for so long, but no more than recentMost, and the last recentLeast however old they are.
type recentIDs []bus.ID

const (
	recentLeast = 16
	recentMost  = 4096
	recentAge   = 30_000 // ms
)

func (r *recentIDs) add(i bus.ID) {
	ids := *r
	switch n := len(ids); {
	case n == recentMost:
		ids = ids[:copy(ids, ids[recentMost/4:])]
	case n == cap(ids) && n >= recentLeast:
		old := 0
		for old <= n-recentLeast && ids[old].Ms+recentAge < i.Ms {
			old++
		}
		if old > n/4 || n == recentLeast { // otherwise it grows
			ids = ids[:copy(ids, ids[old:])]
		}
	}
	*r = append(ids, i)
}

// cut forgets what followed an entry, which is the last one then. What it followed may be all that is left at the next loss.
func (r *recentIDs) cut(last bus.ID) {
	ids := *r
	for len(ids) > 0 && !ids[len(ids)-1].Less(last) {
		ids = ids[:len(ids)-1]
	}
	*r = append(ids, last)
}

const (
	trailLife  = 10 * time.Minute // how long a trail is kept after the last use of its room
	trailKnown = 256              // entries in it
)

// trails are those of the rooms that this node is not subscribed to.
type trails struct {
	mu     sync.Mutex        // a leaf
	byRoom map[string]*trail // guarded by mu, as is what is in them
	swept  time.Time         // guarded by mu
}

// leave keeps a trail.
func (t *trails) leave(tr *trail) {
	tr.until = time.Now().Add(trailLife)
	t.mu.Lock()
	defer t.mu.Unlock()
	if had := t.byRoom[tr.keys.room]; had != nil {
		if tr.acked.Less(had.acked) {
			tr.acked = had.acked // of what was published while somebody came
		}
		if had.again || had.due || had.sent { // the log may have lost what is older, too
			if tr.acked.Less(tr.known[0]) {
				tr.acked = tr.known[0]
			}
			tr.known, tr.newest, tr.run, tr.again = had.known, had.newest, had.run, true
		}
	}
	t.byRoom[tr.keys.room] = tr
}

// take gives a room's trail, and forgets it: it is the caller's alone, whatever was asked about it before.
func (t *trails) take(room string) *trail {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.byRoom[room]
	if tr != nil {
		tr.again, tr.due, tr.sent = false, false, false
	}
	delete(t.byRoom, room)
	return tr
}

// acknowledged notes what was published to a room that is not subscribed to.
func (t *trails) acknowledged(k *roomKeys, i bus.ID, run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.byRoom[k.room]
	if tr == nil {
		tr = &trail{keys: k, known: []bus.ID{{}}, run: run}
		t.byRoom[k.room] = tr
	}
	tr.until = time.Now().Add(trailLife)
	if tr.acked.Less(i) {
		tr.acked = i
	}
}

// of gives the trails of a link's rooms; of all of them, or of those that could not be asked about.
func (t *trails) of(l *link, all bool) (of []*trail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for room, tr := range t.byRoom {
		if (all || tr.again) && l.bus.linkOf(room) == l {
			tr.again, tr.due = false, true
			of = append(of, tr)
		}
	}
	return of
}

// mendTrails forgets old trails, and asks again about those that could not be asked about.
func (r *Bus) mendTrails() {
	now := time.Now()
	t := &r.trails
	t.mu.Lock()
	if now.Sub(t.swept) > time.Minute {
		t.swept = now
		for room, tr := range t.byRoom {
			if tr.until.Before(now) {
				delete(t.byRoom, room)
			}
		}
	}
	t.mu.Unlock()
	for _, l := range r.links {
		l.mender.add(nil, t.of(l, false))
	}
}

// A mender is the part of a link that asks what logs have lost.
type mender struct {
	link *link

	mu     sync.Mutex
	rooms  []*room  // guarded by mu; to be asked about
	trails []*trail // guarded by mu; the same
	heads  []*room  // guarded by mu; whose newest id is asked for
	reload bool     // guarded by mu; the server forgot the script

	awaited atomic.Int64 // questions that were sent and not answered
}

const (
	mendMost    = 256     // questions in one write
	mendBytes   = 1 << 20 // of those about rooms in which much was said lately
	mendAwaited = 1024    // that are not answered: with 100,000 rooms the others of the link are not to wait for all of them
)

// begin is called for a new connection. It forgets what was to be asked before it looks which rooms there are; see link.enter.
func (m *mender) begin() {
	m.mu.Lock()
	m.rooms, m.trails, m.reload = nil, nil, false
	m.mu.Unlock()
	for _, rm := range m.link.subscriber.begin() {
		rm.reconnected()
	}
	m.add(nil, m.link.bus.trails.of(m.link, true))
}

func (m *mender) add(rooms []*room, trails []*trail) {
	if len(rooms)+len(trails) == 0 {
		return
	}
	m.mu.Lock()
	m.rooms, m.trails = append(m.rooms, rooms...), append(m.trails, trails...)
	m.mu.Unlock()
	wake(m.link.wake)
}

func (m *mender) addHead(rm *room) {
	m.mu.Lock()
	m.heads = append(m.heads, rm)
	m.mu.Unlock()
	wake(m.link.wake)
}

// appendQuestions appends some of the questions.
func (m *mender) appendQuestions(out []byte, await []awaited) ([]byte, []awaited) {
	m.mu.Lock()
	most := min(mendMost, max(0, mendAwaited-int(m.awaited.Load())))
	n := min(len(m.rooms), most)
	rooms := m.rooms[:n:n]
	m.rooms = m.rooms[n:]
	n = min(len(m.trails), most-n)
	trails := m.trails[:n:n]
	m.trails = m.trails[n:]
	heads := m.heads
	m.heads = nil
	reload := m.reload
	m.reload = false
	m.mu.Unlock()
	if reload {
		out, await = m.link.bus.reloadScripts(out, await)
	}
	began := len(out)
	for i, rm := range rooms {
		if len(out)-began > mendBytes { // what is answered first lets the others be asked about
			m.mu.Lock()
			m.rooms = append(rooms[i:], m.rooms...)
			m.mu.Unlock()
			break
		}
		out, await = m.ask(out, await, rm, false)
	}
	for _, tr := range trails {
		out, await = m.askTrail(out, await, tr)
	}
	for _, rm := range heads {
		out, await = m.ask(out, await, rm, false) // first, since the newest id may then be a marker's
		var answer func(resp.Value)
		out, answer = rm.appendHead(out)
		await = append(await, awaited{answer: answer})
	}
	return out, await
}

// ask appends a room's question, unless it was sent; where it was refused, once more if that is wanted.
func (m *mender) ask(out []byte, await []awaited, rm *room, again bool) ([]byte, []awaited) {
	out, answer := rm.appendMend(out, again)
	if answer != nil {
		await = m.await(await, answer)
	}
	return out, await
}

func (m *mender) askTrail(out []byte, await []awaited, tr *trail) ([]byte, []awaited) {
	run := m.link.bus.server.runNow()
	out, due := m.link.bus.appendTrail(out, tr, run)
	if due {
		await = m.await(await, func(v resp.Value) { m.answeredTrail(tr, run, v) })
	}
	return out, await
}

// askFirst appends the questions about a room that something is about to be appended to, those too that could not be answered before. rm
// is nil where it is not subscribed to.
func (m *mender) askFirst(out []byte, await []awaited, rm *room, name string) ([]byte, []awaited) {
	if rm != nil {
		out, await = m.ask(out, await, rm, true)
	}
	t := &m.link.bus.trails
	t.mu.Lock()
	tr := t.byRoom[name]
	if tr != nil && tr.again {
		tr.again, tr.due = false, true
	}
	t.mu.Unlock()
	if tr == nil {
		return out, await
	}
	return m.askTrail(out, await, tr)
}

func (m *mender) await(all []awaited, answer func(resp.Value)) []awaited {
	m.awaited.Add(1)
	return append(all, awaited{answer: func(v resp.Value) {
		m.link.subscriber.unheard.Store(0) // heartbeats wait their turn
		if m.awaited.Add(-1) < mendAwaited {
			wake(m.link.wake)
		}
		answer(v)
	}})
}

// reloadScripts appends the commands that load the scripts; nobody needs the answers.
func (r *Bus) reloadScripts(out []byte, await []awaited) ([]byte, []awaited) {
	out = r.scripts.appendLoad(out)
	for range loads {
		await = append(await, awaited{answer: func(resp.Value) {}})
	}
	return out, await
}

// appendScript begins a call of a script on a room's keys. Its own arguments follow.
func (r *Bus) appendScript(out []byte, sha string, k *roomKeys, floor []byte, own int) []byte {
	out = resp.AppendCommand(out, 15+own)
	for _, arg := range [...]string{"EVALSHA", sha, "5", k.log, k.last, k.records[0], k.records[1], k.lastBreak, k.channel} {
		out = resp.AppendArg(out, arg)
	}
	out = resp.AppendArg(out, floor)
	out = resp.AppendInt(out, rand.Int64N(1<<16))
	return append(out, r.limits...)
}

// appendMend appends a call of mend.lua, for the server of that run.
func (r *Bus) appendMend(out []byte, tr *trail, floor bus.ID, run string) []byte {
	out = r.appendScript(out, r.scripts.mend, tr.keys, appendKnown(nil, floor), 4)
	out = resp.AppendArg(out, appendKnown(nil, tr.acked))
	ids := make([]byte, 0, 16*len(tr.known))
	for _, i := range tr.known {
		ids = append(i.Append(ids), ' ')
	}
	out = resp.AppendArg(out, ids)
	out = resp.AppendArg(out, appendKnown(nil, tr.newest))
	left := ""
	if tr.run != run {
		left = strconv.FormatInt(r.onServer(r.server.heardUntil(tr.run)).UnixMilli(), 10)
	}
	return resp.AppendArg(out, left)
}

// appendKnown appends an id, unless it is zero.
func appendKnown(dst []byte, i bus.ID) []byte {
	if i.IsZero() {
		return dst
	}
	return i.Append(dst)
}

// appendTrail reports whether it was due.
func (r *Bus) appendTrail(out []byte, tr *trail, run string) (_ []byte, due bool) {
	r.trails.mu.Lock()
	defer r.trails.mu.Unlock()
	if !tr.due {
		return out, false
	}
	tr.due, tr.sent = false, true
	return r.appendMend(out, tr, tr.newestID(), run), true
}

// A verdict is what mend.lua answers: a log goes on, or was broken at a point, which a marker says.
type verdict struct {
	broken        bool
	marker, point bus.ID
}

func (m *mender) verdict(v resp.Value) (out verdict, err error) {
	switch {
	case v.Kind == resp.Int:
		return out, nil
	case v.Kind == resp.Array && len(v.Elems) == 2:
		out.broken = true
		if out.marker, err = id.Parse(string(v.Elems[0].Text)); err == nil {
			out.point, err = id.Parse(string(v.Elems[1].Text))
		}
		return out, err
	case v.Kind == resp.Error:
		err = refusal(v.Text)
	default:
		err = errEntry
	}
	if isForgotten(v) {
		m.mu.Lock()
		m.reload = true
		m.mu.Unlock()
	}
	return out, err
}

func (m *mender) answeredTrail(tr *trail, run string, v resp.Value) {
	r := m.link.bus
	out, err := m.verdict(v)
	r.trails.mu.Lock()
	defer r.trails.mu.Unlock()
	if r.trails.byRoom[tr.keys.room] != tr {
		return // it is somebody else's by now, who asks anew
	}
	if tr.sent = false; err != nil {
		tr.again = true
		return
	}
	tr.settle(out, run)
}

// refusedPause is the time between two questions about a room whose loss the server refuses to note, as one that is full does.
const refusedPause = time.Second

// mendLocked has the link ask whether the log has lost what the room knows. Until the answer has come the log is not read.
func (rm *room) mendLocked() {
	rm.askAnewLocked()
	if rm.mendRefused {
		rm.mendRefused = false
		rm.mendAfterLocked(refusedPause)
	} else {
		rm.link.mender.add([]*room{rm}, nil)
	}
}

// askAnewLocked has nothing count that was answered before.
func (rm *room) askAnewLocked() { rm.mending, rm.asked, rm.sure = true, false, bus.ID{} }

// mendAfterLocked has the link ask later. One question waits at most: what is published asks at once, and is refused at once, too.
func (rm *room) mendAfterLocked(pause time.Duration) {
	if rm.mendTimer == nil {
		rm.mendTimer = time.AfterFunc(pause, func() { rm.link.mender.add([]*room{rm}, nil) })
	} else {
		rm.mendTimer.Reset(pause)
	}
}

// reconnected is called when the link has a new connection.
func (rm *room) reconnected() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state == live {
		rm.state = repairing
	}
	if rm.run != rm.bus.server.runNow() {
		rm.forgetFoundLocked()
	}
	if rm.state == repairing || rm.trail != nil {
		rm.mendRefused = false // that was over the connection before
		rm.mendLocked()
	}
}

// appendMend appends the room's question, if there is one, and gives what takes the answer. It may ask again at once what was refused.
func (rm *room) appendMend(out []byte, again bool) ([]byte, func(resp.Value)) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if again && rm.mendRefused && (rm.state == repairing || rm.trail != nil) {
		rm.askAnewLocked()
	}
	if rm.state == over || !rm.mending || rm.asked {
		return out, nil
	}
	rm.asked = true
	rm.question++
	rm.mendRefused = false
	question := rm.question
	run := rm.bus.server.runNow()
	owed := rm.owed()
	rm.idsMu.Lock()
	floor := rm.floor
	rm.idsMu.Unlock()
	tr := rm.trail
	if tr == nil {
		tr = rm.trailLocked()
	}
	tr.again = false
	if tr.acked.Less(owed) {
		tr.acked = owed
	}
	if newest := tr.newestID(); floor.Less(newest) {
		floor = newest
	}
	out = rm.bus.appendMend(out, tr, floor, run)
	return out, func(v resp.Value) { rm.mended(question, run, v) }
}

// trailLocked gives what is known of the log, but for what was acknowledged.
func (rm *room) trailLocked() *trail {
	known := make([]bus.ID, 1, len(rm.recent)+1)
	known[0] = rm.at
	for _, k := range slices.Backward(rm.recent) {
		if k != rm.at {
			known = append(known, k)
		}
	}
	return &trail{keys: rm.keys, known: known, newest: rm.newest, run: rm.run}
}

// mended takes the answer to a question.
func (rm *room) mended(question uint64, run string, v resp.Value) {
	out, err := rm.link.mender.verdict(v)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.state == over || !rm.mending || question != rm.question {
		return
	}
	rm.mending = false
	switch {
	case err != nil:
		if isForgotten(v) {
			rm.mendLocked()
			return
		}
		if rm.bus.redirected(v) {
			rm.mending, rm.asked = true, false
			rm.mendAfterLocked(redirectPause)
			return
		}
		rm.mendRefused = true
		if rm.bus.ctx.Err() == nil {
			rm.bus.complain("ask what "+rm.name+" has lost", err)
		}
		if rm.trail == nil {
			rm.mendLocked() // the log need not show that it has lost something: so what follows waits for the answer
			return
		}
		rm.trail.again = true // who joins is not kept waiting
	case rm.trail != nil:
		if rm.trail.settle(out, run); out.broken {
			rm.acknowledged(out.marker)
		}
	case out.broken:
		rm.run = run
		rm.brokenLocked(out)
	default:
		rm.run, rm.sure = run, rm.at
	}
	rm.readSoonLocked()
}

// brokenLocked notes that what followed a point is lost. It is told with the next read of the log. The marker counts as
// acknowledged here: should it be lost too, that is another break.
func (rm *room) brokenLocked(v verdict) {
	rm.at, rm.horizon, rm.marker, rm.newest = v.point, v.point, v.marker, v.marker
	rm.recent.cut(v.point)
	rm.acknowledged(v.marker)
}
