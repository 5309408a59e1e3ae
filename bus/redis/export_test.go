package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/redis/resp"
)

// ClockBack puts a message with an id of the future into a room, as it looks after the server's clock was set back.
func ClockBack(t testing.TB, url, room string) {
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	defer c.Close()
	ctx, k := context.Background(), keysOf(o.DB, room)
	prev, err := c.Get(ctx, k.last).Result()
	if err == redis.Nil {
		prev, err = "0-0", nil
	}
	id := fmt.Sprintf("%d-7", time.Now().Add(time.Hour).UnixMilli())
	if err == nil {
		err = c.XAdd(ctx, &redis.XAddArgs{Stream: k.log, ID: id, Values: []string{"m", prev + " future"}}).Err()
	}
	if err == nil {
		err = c.Set(ctx, k.last, id, time.Hour).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// SetDial replaces the network.
func (c *Config) SetDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	c.dial = dial
}

// SetPresenceLife shortens how long Redis keeps who is in a room of which nothing is heard.
func (c *Config) SetPresenceLife(d time.Duration) { c.presenceLife = d }

// SetHeldBytes bounds what all rooms hold until their logs are read.
func (c *Config) SetHeldBytes(n int) { c.heldBytes = n }

// SetWholeUsers bounds those of one room who are written at once.
func (c *Config) SetWholeUsers(n int) { c.wholeUsers = n }

// TakeLease has the node take another lease, as where its own is gone.
func (r *Bus) TakeLease(ctx context.Context) error { return r.lease.take(ctx) }

// MayRead is how many bytes are asked for in one go.
func (r *Bus) MayRead() int64 { return r.budget.bytes.Load() }

// LateReads has so many reads in a row be late that began with a budget, and as many be in time then. It gives what may be read after each,
// and whether a late one is tried with less.
func LateReads(n int) (budgets []int64, less []bool) {
	var b budget
	b.bytes.Store(budgetFirst)
	for range n {
		bytes := b.bytes.Load()
		less = append(less, b.halve(bytes))
		b.halve(bytes) // as another worker finds
		budgets = append(budgets, b.bytes.Load())
	}
	for range n {
		bytes := b.bytes.Load()
		b.grow(bytes)
		b.grow(bytes)
		budgets = append(budgets, b.bytes.Load())
	}
	return budgets, less
}

// Held is how many bytes all rooms hold.
func (r *Bus) Held() int { return int(r.held.bytes.Load()) }

// Held is how many bytes all rooms hold, at all primaries.
func (c *Cluster) Held() (n int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, s := range c.shards {
		n += s.Held()
	}
	return n
}

// Leftover says what a node that was closed counts still, though nothing is left of it.
func (r *Bus) Leftover() error {
	var errs []error
	if n := r.Held(); n != 0 {
		errs = append(errs, fmt.Errorf("%d bytes are held until logs are read", n))
	}
	for _, l := range r.links {
		l.publisher.mu.Lock()
		if n := l.publisher.bytes; n != 0 {
			errs = append(errs, fmt.Errorf("%d bytes wait to be published", n))
		}
		l.publisher.mu.Unlock()
		if n := l.mender.awaited.Load(); n != 0 {
			errs = append(errs, fmt.Errorf("%d questions wait for an answer", n))
		}
	}
	return errors.Join(errs...)
}

// Leftover is that of all primaries.
func (c *Cluster) Leftover() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var errs []error
	for _, s := range c.shards {
		errs = append(errs, s.Leftover())
	}
	return errors.Join(errs...)
}

// Places is of how many rooms the node keeps where they are.
func (c *Cluster) Places() int {
	c.placesMu.Lock()
	defer c.placesMu.Unlock()
	return len(c.places)
}

// Asked is how many nodes are asked for the topology.
func (c *Cluster) Asked() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.nodes)
}

// RosterPause is the least time between two writes of rosters, unless RosterBatch of them wait.
const (
	RosterPause = rosterPause
	RosterBatch = rosterBatch
)

// RosterWait is how long the next write waits.
var RosterWait = rosterWait

// MendAwaited bounds the questions that are not answered.
const MendAwaited = mendAwaited

// MendBytes bounds the questions in one write, but for the last of them.
const MendBytes = mendBytes

// Remember has a room know as many entries as it may, which nobody else does.
func Remember(s bus.Subscription) (bytes int) {
	rm := s.(*room)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	for i := range recentMost {
		rm.recent.add(bus.ID{Ms: uint64(time.Now().UnixMilli()), Seq: uint64(i)})
	}
	for _, i := range rm.recent {
		bytes += len(i.String()) + 1
	}
	return bytes
}

// Remembered has a room remember so many ids, one every so many ms. It gives how many it still knows in the end, for how many there is
// space, and whether these are the last ones.
func Remembered(n int, every uint64) (kept, space int, whole bool) {
	var r recentIDs
	for i := range n {
		r.add(bus.ID{Ms: uint64(i) * every})
	}
	whole = true
	for i, id := range r {
		whole = whole && id.Ms == uint64(n-len(r)+i)*every
	}
	return len(r), cap(r), whole
}

// Compared has so many rooms compared in so many steps, at most a number in each, and says how often the rarest and the most
// frequent was.
func Compared(rooms, steps, most int) (rarest, frequent int) {
	var t turns
	counts := make(map[*room]int)
	for range rooms {
		rm := new(room)
		counts[rm] = 0
		t.add(rm)
	}
	over := new(room)
	over.ended.Store(true)
	t.add(over)
	t.suspects = append(t.suspects, suspect{room: over})
	for range steps {
		due := t.take(most)
		if len(due) > most || slices.Contains(due, over) {
			return -1, -1
		}
		for _, rm := range due {
			counts[rm]++
		}
	}
	all := slices.Collect(maps.Values(counts))
	return slices.Min(all), slices.Max(all)
}

// Compare compares a room with Redis once, in place of the loop that does so at times, and reports whether it is to be compared again
// soon.
func (r *Bus) Compare(t testing.TB, s bus.Subscription) (again bool) {
	t.Helper()
	rm := s.(*room)
	rm.reconciled.again = false
	if err := r.reconcileRooms([]*room{rm}); err != nil {
		t.Fatal(err)
	}
	return rm.reconciled.again
}

// AgeLosses has what Redis lacks of a room's roster be lost for so much longer.
func AgeLosses(s bus.Subscription, by time.Duration) {
	ro := s.(*room).roster
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, set := range ro.sets {
		if !set.lost.IsZero() {
			set.lost = set.lost.Add(-by)
		}
	}
}

// ComparedAgain tells how long it takes, by default and with so many rooms, until a room is compared again that seemed to lag behind.
func ComparedAgain(rooms int) time.Duration {
	r := &Bus{cfg: Config{}.withDefaults()}
	t := &r.turns
	for range rooms {
		t.add(&room{bus: r})
	}
	lags := t.take(rooms)[0]
	began, step := time.Now(), r.cfg.CompareInterval/reconcileSteps
	for t.again(lags); !slices.Contains(t.take(1), lags); {
		time.Sleep(step)
	}
	return time.Since(began)
}

func sentinelsOf(t testing.TB, cfg Config) *sentinels {
	where, err := cfg.parse()
	if err != nil {
		t.Fatal(err)
	}
	s := newSentinels(where, cfg.withDefaults(), rawDialer(cfg.withDefaults(), where.options))
	t.Cleanup(s.close)
	return s
}

// AskSentinels gives what asks sentinels where the primary is.
func AskSentinels(t testing.TB, cfg Config) func(ctx context.Context) (addr string, err error) {
	return sentinelsOf(t, cfg).ask
}

// Sightings gives what asks each sentinel where the primary is, and since which failover.
func Sightings(t testing.TB, cfg Config) func() (addrs []string, epochs []int64) {
	s := sentinelsOf(t, cfg)
	return func() (addrs []string, epochs []int64) {
		for _, c := range s.all() {
			if got := s.see(t.Context(), c); got.err == nil {
				addrs, epochs = append(addrs, got.addr), append(epochs, got.epoch)
			}
		}
		return addrs, epochs
	}
}

// Sentinels are the addresses at which sentinels are asked.
func (r *Bus) Sentinels() (addrs []string) {
	for _, c := range r.sentinels.all() {
		addrs = append(addrs, c.addr)
	}
	return addrs
}

// BoardKey is where the board's texts are.
const BoardKey = boardKey

// MendSHA is in each question about what a room has lost.
var MendSHA = plain.mend

// MembersSHA, RosterSHA and AppendSHA are of the scripts that change and read who is in a room, and that append to its log.
var MembersSHA, RosterSHA, AppendSHA = plain.members, rosterSHA, plain.append

// Client is the client that reads.
func (r *Bus) Client() *redis.Client { return r.reads }

// Append publishes bodies under random keys in one batch, as a publisher does with what has piled up.
func (r *Bus) Append(room, body string, n int) error {
	return errors.Join(r.AppendEach(room, body, n)...)
}

// AppendEach is Append, and gives the outcome of each.
func (r *Bus) AppendEach(room, body string, n int) []error {
	p := &r.linkOf(room).publisher
	k, rm := r.keys(room), r.roomNamed(room)
	errs := make([]error, n)
	var settled sync.WaitGroup
	settled.Add(n)
	p.mu.Lock()
	for i := range n {
		o := &op{room: rm, keys: k, body: body, hasKey: true, done: func(_ bus.ID, err error) {
			errs[i] = err
			settled.Done()
		}}
		_, _ = rand.Read(o.key[:])
		p.queue = append(p.queue, o)
		p.bytes += o.size()
	}
	p.mu.Unlock()
	wake(p.link.wake)
	settled.Wait()
	return errs
}

// Keys are a room's keys and its channel, those of the own users aside.
type Keys struct {
	Channel, Log, Last, Break, Incarnations string
	Records                                 [2]string
}

func KeysOf(room string) Keys {
	k := keysOf(0, room)
	return Keys{k.channel, k.log, k.last, k.lastBreak, k.incarnations, k.records}
}

// OwnUsers is the key of those who are in the room through this node.
func (r *Bus) OwnUsers(room string) string {
	inc, _ := r.lease.current()
	return keysOf(r.db, room).usersOf(inc)
}

// UsersIn is that key, where a room of a Cluster is.
func (c *Cluster) UsersIn(room string) string {
	return c.ownerOf(SlotOf(room)).OwnUsers(room)
}

// Receive hands a payload to a subscription as its link does.
func Receive(s bus.Subscription, payload string) { s.(*room).receive(payload) }

// Payload is what is published of a message.
func Payload(id, prev bus.ID, body string) string {
	return "m" + id.String() + " " + prev.String() + " " + body
}

// ParsePayload reads an entry that was published, or a change of a roster.
func ParsePayload(payload string) {
	if payload == "" {
		return
	}
	_, _ = parsePublished(payload[0], payload[1:])
	_, _ = parseRosterChange(payload[1:])
}

// Reconnect breaks all links.
func (r *Bus) Reconnect() {
	for _, l := range r.links {
		l.drop()
	}
}

// Cut does something while no link can be made.
func (r *Bus) Cut(do func()) {
	for _, l := range r.links {
		l.drop()
		l.mu.Lock() // which serve waits for
	}
	do()
	for _, l := range r.links {
		l.mu.Unlock()
	}
}

// ReadLate reads a room's log, or who is there, and takes the answer once the server was left and something was done.
func (r *Bus) ReadLate(s bus.Subscription, roster bool, do func()) error {
	rm, q := s.(*room), r.query(r.ctx, r.own)
	var rd *reading
	if roster {
		rm.mu.Lock()
		rm.rosterStale = true
		rm.mu.Unlock()
		rd = rm.askRoster(q)
		defer rm.rosterReadDone()
	} else {
		rm.mu.Lock()
		rm.state = repairing
		rm.mu.Unlock()
		rd = rm.ask(q, 0)
		defer rm.readDone()
	}
	if err := r.exec(r.ctx, r.own, q.cmds); err != nil {
		return err
	}
	r.server.leave()
	do()
	settle := rd.settle
	if roster {
		settle = rd.settleRoster
	}
	_, err := settle()
	return err
}

// Elsewhere has all that the node knows of rooms be of another server, which was heard until so long ago.
func (r *Bus) Elsewhere(ago time.Duration) {
	r.server.heard("another", time.Now().Add(-ago))
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.rooms))
	r.mu.Unlock()
	for _, rm := range all {
		rm.mu.Lock()
		rm.run = "another"
		rm.mu.Unlock()
	}
	r.trails.mu.Lock()
	defer r.trails.mu.Unlock()
	for _, tr := range r.trails.byRoom {
		tr.run = "another"
	}
}

// SubscribeAsALinkBegins subscribes to a room that the node knows just as its link begins with a connection: when it has looked what is
// subscribed to, and not at what else there is to be asked.
func (r *Bus) SubscribeAsALinkBegins(ctx context.Context, room string, sink bus.Sink) error {
	l := r.linkOf(room)
	isConnected := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.conn != nil
	}
	for l.drop(); isConnected(); time.Sleep(time.Millisecond) {
	}
	m := &l.mender
	m.mu.Lock()
	for !isConnected() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // time enough to look
	tr := r.trails.take(room)
	rm, err := r.begin(room, sink)
	if err == nil { // as where there is a trail
		rm.mu.Lock()
		rm.trail, rm.mending = tr, true
		rm.mu.Unlock()
		m.rooms = append(m.rooms, rm)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return rm.join(ctx, rm.Close)
}

// SubscribeUnasked subscribes to a room that the node knows while nothing can be asked, and goes on once its link is to subscribe to it:
// a connection that is made meanwhile finds it there.
func (r *Bus) SubscribeUnasked(ctx context.Context, room string, sink bus.Sink) error {
	l := r.linkOf(room)
	began := make(chan begun, 1)
	isWanted := func() bool {
		l.subscriber.mu.Lock()
		defer l.subscriber.mu.Unlock()
		return l.subscriber.wanted[r.keys(room).channel] != nil
	}
	l.mender.mu.Lock()
	go func() {
		rm, err := r.begin(room, sink)
		began <- begun{rm, err}
	}()
	for !isWanted() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	l.mender.mu.Unlock()
	it := <-began
	if err := cmp.Or(it.err, ctx.Err()); err != nil {
		return err
	}
	return it.room.join(ctx, it.room.Close)
}

type begun struct {
	room *room
	err  error
}

// Sessions is how many connections of links have worked.
func (r *Bus) Sessions() (n int) {
	for _, l := range r.links {
		n += int(l.subscriber.connections.Load())
	}
	return n
}

// IsLive reports whether a subscription has all that it knows of.
func IsLive(s bus.Subscription) bool {
	rm := s.(*room)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.state == live
}

// IsRead reports whether a subscription's log is being read, or is about to be.
func IsRead(s bus.Subscription) bool {
	rm := s.(*room)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.repair != repairIdle
}

// AsksLate reports whether the next question about what a room has lost waits, as the last one was refused.
func AsksLate(s bus.Subscription) bool {
	rm := s.(*room)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.mendRefused
}

// Waiters is how many wait in Sync for what a subscription does not have yet.
func Waiters(s bus.Subscription) int {
	rm := s.(*room)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return len(rm.waiters)
}

// LinkOf tells links apart.
func (r *Bus) LinkOf(room string) any { return r.linkOf(room) }

// Reap has an incarnation taken out of a room, though its lease holds.
func (r *Bus) Reap(ctx context.Context, inc, room string) error {
	return r.reapRooms(ctx, inc, []string{room})
}

// Incarnation is the one that the node acts under.
func (r *Bus) Incarnation() string {
	inc, _ := r.lease.current()
	return inc
}

// TakeLeaseWhileWriting has the node begin to write who is in two rooms, the second of which a user leaves, and take another lease before
// it comes to that one.
func (r *Bus) TakeLeaseWhileWriting(ctx context.Context, first, second bus.Subscription, leaves string) error {
	stops, ro := first.(*room).roster, second.(*room).roster
	r.mu.Lock()
	delete(r.rosters, stops.keys.room) // so that who takes the lease does not wait for it
	r.mu.Unlock()
	ro.mu.Lock()
	ro.queued = true // here, and not by rosterLoop
	ro.mu.Unlock()
	second.Leave(leaves)
	stops.mu.Lock()
	written := make(chan bool)
	go func() { written <- r.writeRosters([]*roster{stops, ro}) }()
	for r.writing.TryLock() {
		r.writing.Unlock()
		runtime.Gosched()
	}
	err := r.lease.take(ctx)
	stops.mu.Unlock()
	<-written
	return err
}

// SlotOf is a room's slot on a Cluster.
func SlotOf(room string) int { return slotOf(keysOf(0, room).log) }

// AnswersAboutTrail gives what answers a question that was asked about a room's trail: its log broke.
func (r *Bus) AnswersAboutTrail(room string) (answer func(marker string)) {
	r.trails.mu.Lock()
	tr := r.trails.byRoom[room]
	r.trails.mu.Unlock()
	return func(marker string) {
		point := resp.Value{Kind: resp.Text, Text: []byte("0-0")}
		r.linkOf(room).mender.answeredTrail(tr, "", resp.Value{Kind: resp.Array, Elems: []resp.Value{{Kind: resp.Text, Text: []byte(marker)}, point}})
	}
}

// HasTrail reports whether a room has a trail, as those have that nobody is in.
func (r *Bus) HasTrail(room string) bool {
	r.trails.mu.Lock()
	defer r.trails.mu.Unlock()
	return r.trails.byRoom[room] != nil
}

// Rosters is of how many rooms the node knows who is to be there through it.
func (r *Bus) Rosters() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.rosters)
}

// AgeTrails has all trails be as old as they are after so much more time.
func (r *Bus) AgeTrails(by time.Duration) {
	r.trails.mu.Lock()
	defer r.trails.mu.Unlock()
	r.trails.swept = r.trails.swept.Add(-by)
	for _, tr := range r.trails.byRoom {
		tr.until = tr.until.Add(-by)
	}
}

// Die ends the node without a goodbye, as a process ends that is killed.
func (r *Bus) Die() {
	r.closed.Store(true)
	r.stop()
	r.server.leave()
	close(r.leaving)
	r.running.Wait()
	r.closeClients()
}

// MoveAway has a room leave its part of the Cluster and come back to the part that has its slot: as when the slot has moved there and
// back.
func (c *Cluster) MoveAway(room string) {
	c.placesMu.Lock()
	defer c.placesMu.Unlock()
	if p := c.places[room]; p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.moveLocked()
	}
}

// MoveAwayWhile is MoveAway, and does something once the room has left, before it comes back.
func (c *Cluster) MoveAwayWhile(room string, do func()) {
	c.placesMu.Lock()
	c.mu.Lock() // which is needed to find where it is to go
	p := c.places[room]
	p.mu.Lock()
	leaves := p.sub
	p.moveLocked()
	p.mu.Unlock()
	c.placesMu.Unlock()
	for !leaves.ended.Load() {
		runtime.Gosched()
	}
	do()
	c.mu.Unlock()
}

// Waiters is how many wait in Sync in a room that is subscribed to.
func (c *Cluster) Waiters(room string) int {
	p := c.use(room)
	defer c.release(p)
	p.mu.RLock()
	defer p.mu.RUnlock()
	return Waiters(p.sub)
}

// Part is the part of the primary at an address.
func (c *Cluster) Part(addr string) *Bus {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.shards[addr]
}

// Acknowledged notes that something was acknowledged in a room that is not subscribed to.
func (r *Bus) Acknowledged(room string, i bus.ID) {
	r.trails.acknowledged(r.keys(room), i, r.server.runNow())
}

// IsForbidden is for what a server says that is not here.
func IsForbidden(said string) bool { return isForbidden(said) }
