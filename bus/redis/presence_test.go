package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// Who is in a silent room stays there however long it is silent: what Redis has of it is kept from expiring.
func TestMembersOfASilentRoomStay(t *testing.T) {
	const life = 3 * time.Second
	cfg := redis.Config{URL: bustest.StartRedis(t).URL(), HeartbeatInterval: time.Second, CompareInterval: 300 * time.Millisecond}
	cfg.SetPresenceLife(life)
	t.Parallel()
	a, b := openRedis(t, cfg), openRedis(t, cfg)
	subA, atA := subscribe(t, a, "lobby")
	subB, atB := subscribe(t, b, "lobby")
	subA.Enter(bus.Member{ID: "ann"})
	atB.change(bus.Joined, "ann")
	subB.Enter(bus.Member{ID: "bob"})
	atA.change(bus.Joined, "bob")
	for end := time.Now().Add(3 * life); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r, err := b.Roster(t.Context(), "lobby")
		if err != nil {
			t.Fatal(err)
		}
		if r.Count != 2 || subA.Roster().Count != 2 || subB.Roster().Count != 2 {
			t.Fatalf("%d members are read; %d and %d are known", r.Count, subA.Roster().Count, subB.Roster().Count)
		}
	}
	subA.Leave("ann")
	atB.change(bus.Left, "ann")
	for _, told := range []*listener{atA, atB} {
		told.expect("+ann", "+bob", "-ann")
	}
}

// While many come, those who enter a room share its writes.
func TestRedisThoseWhoComeTogetherShareAWrite(t *testing.T) {
	const people = 200
	server := bustest.StartRedis(t)
	sub, told := subscribe(t, openAt(t, server.URL(), never), "lobby")
	channel := server.Client().Subscribe(t.Context(), redis.KeysOf("lobby").Channel)
	defer channel.Close()
	if _, err := channel.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := range people {
		sub.Enter(bus.Member{ID: fmt.Sprint("user", i)})
		time.Sleep(time.Millisecond / 2)
	}
	told.change(bus.Joined, fmt.Sprint("user", people-1))
	took := time.Since(began)
	if _, err := server.Client().Publish(t.Context(), redis.KeysOf("lobby").Channel, "the end").Result(); err != nil {
		t.Fatal(err)
	}
	writes := 0
	for m := range channel.Channel() {
		if m.Payload == "the end" {
			break
		}
		writes++
	}
	if most := int(took/redis.RosterPause) + 2; writes > most {
		t.Errorf("%d wrote %d times in %v, want %d at most", people, writes, took, most)
	}
}

// Who comes is told to the others soon, also just after another; and as many as a write may have wait for nobody.
func TestRedisNobodyWaitsLongForThoseWhoMayShareAWrite(t *testing.T) {
	r := openRedis(t, never)
	sub, told := subscribe(t, r, "lobby")
	least := time.Hour
	for i := range 30 {
		began := time.Now()
		sub.Enter(bus.Member{ID: fmt.Sprint("user", i)})
		told.change(bus.Joined, fmt.Sprint("user", i))
		if i > 0 { // the first has nobody before it
			least = min(least, time.Since(began))
		}
	}
	if least > 50*time.Millisecond {
		t.Errorf("each took %v at least", least)
	}
	for _, c := range []struct {
		waiting     int
		since, want time.Duration
	}{
		{1, time.Hour, 0},
		{1, redis.RosterPause / 2, redis.RosterPause / 2},
		{redis.RosterBatch - 1, 0, redis.RosterPause},
		{redis.RosterBatch, 0, 0},
	} {
		if got := redis.RosterWait(c.waiting, c.since); got != c.want {
			t.Errorf("where %d wait, %v after a write, the next one waits %v, want %v", c.waiting, c.since, got, c.want)
		}
	}
}

// Versions rise though Redis forgot them, so that the next change is not taken for an old one, and needs no comparison.
func TestChangesAfterAFlushAreToldAtOnce(t *testing.T) {
	server := bustest.StartRedis(t)
	a, b := openAt(t, server.URL(), slow), openAt(t, server.URL(), slow)
	subA, _ := subscribe(t, a, "lobby")
	subB, atB := subscribe(t, b, "lobby")
	for _, user := range []string{"ann", "bob", "cay"} { // faster than once a ms
		subA.Enter(bus.Member{ID: user})
	}
	for _, user := range []string{"ann", "bob", "cay"} {
		atB.change(bus.Joined, user)
	}
	before := subB.Roster().Version
	if err := server.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	subA.Enter(bus.Member{ID: "dan"})
	atB.change(bus.Joined, "dan")
	if v := subB.Roster().Version; v <= before {
		t.Errorf("version %d after %d", v, before)
	}
	eventually(t, "all to be entered anew", func() bool { // by the lease
		names := []string{}
		for _, m := range subB.Roster().Members {
			names = append(names, m.ID)
		}
		slices.Sort(names)
		return slices.Equal(names, []string{"ann", "bob", "cay", "dan"})
	})
}

// An incarnation that was reaped stays so, though its lease holds: its node takes another, and everybody is back under that.
func TestRedisReapedStaysReaped(t *testing.T) {
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL(), HeartbeatInterval: 300 * time.Millisecond}
	a, b := openRedis(t, cfg), openRedis(t, cfg)
	subA, _ := subscribe(t, a, "lobby")
	subB, atB := subscribe(t, b, "lobby")
	subA.Enter(bus.Member{ID: "ann"})
	atB.change(bus.Joined, "ann")
	dead := a.Incarnation()
	if err := b.Reap(t.Context(), dead, "lobby"); err != nil {
		t.Fatal(err)
	}
	atB.change(bus.Left, "ann")
	subA.Enter(bus.Member{ID: "late"})
	atB.change(bus.Joined, "late")
	eventually(t, "both to be there", func() bool { return subB.Roster().Count == 2 })
	if now := a.Incarnation(); now == dead {
		t.Error("the node acts under the incarnation that was reaped")
	}
	atB.until("nobody else to be told", func(lines []string) bool {
		return len(lines) == 4 && lines[0] == "+ann" && lines[1] == "-ann"
	})
}

// A mark says for ten minutes that an incarnation was reaped, however many others are meanwhile: what it sent may come late. No mark is
// kept for ever.
func TestRedisMarksOfTheReapedAreForgottenInTime(t *testing.T) {
	r := openRedis(t, slow)
	ctx, k := t.Context(), redis.KeysOf("lobby")
	reap := func(inc string) {
		t.Helper()
		if err := r.Reap(ctx, inc, "lobby"); err != nil {
			t.Fatal(err)
		}
	}
	reap("first")
	for mark, age := range map[string]time.Duration{"xyoung": 9 * time.Minute, "xold": 11 * time.Minute} {
		if err := r.Client().HSet(ctx, k.Incarnations, mark, time.Now().Add(-age).UnixMilli()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	reap("second")
	marks, err := r.Client().HKeys(ctx, k.Incarnations).Result()
	slices.Sort(marks)
	if want := []string{"xfirst", "xsecond", "xyoung"}; err != nil || !slices.Equal(marks, want) {
		t.Errorf("the marks are %v, %v; want %v", marks, err, want)
	}
}

// present has a node be in a room with a user, and returns once another node could read that.
func present(t *testing.T, r *redis.Bus, room, user string) {
	t.Helper()
	sub, told := subscribe(t, r, room)
	sub.Enter(bus.Member{ID: user})
	told.change(bus.Joined, user)
}

// never is a configuration in which no lease is renewed, and nobody looks for dead nodes, but for a test's doing.
var never = redis.Config{HeartbeatInterval: time.Hour, CompareInterval: time.Hour}

// The rooms of a node that has died are not listed, though its members are still to be taken out of them.
func TestRedisRoomsOfADeadNodeAreNotListed(t *testing.T) {
	server := bustest.StartRedis(t)
	dies, lives := openAt(t, server.URL(), never), openAt(t, server.URL(), never)
	present(t, dies, "its own", "ann")
	present(t, dies, "both", "ann")
	present(t, lives, "both", "bob")
	listed := func(want ...string) {
		t.Helper()
		rooms, err := lives.Rooms(t.Context())
		if slices.Sort(rooms); err != nil || !slices.Equal(rooms, want) {
			t.Errorf("the rooms are %v, %v; want %v", rooms, err, want)
		}
	}
	listed("both", "its own")
	if err := server.Client().Del(t.Context(), "parley:lease:"+dies.Incarnation()).Err(); err != nil {
		t.Fatal(err)
	}
	listed("both")
}

// A room that the index refused to have is in it once it may be: else nobody would find who is in there when the node dies.
func TestRedisARoomThatCouldNotBeListedIsListedLater(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openAt(t, limitedURL(server), slow)
	sub, told := subscribe(t, r, "lobby")
	allow(t, server, "allchannels", "-sadd")
	sub.Enter(bus.Member{ID: "ann"})
	eventually(t, "a refusal", func() bool { return refusals(t, server, "sadd") > 0 })
	allow(t, server, "allchannels")
	told.change(bus.Joined, "ann")
	if rooms, err := r.Rooms(t.Context()); err != nil || !slices.Equal(rooms, []string{"lobby"}) {
		t.Errorf("the rooms are %v, %v", rooms, err)
	}
}

// Nobody leaves because all leases are gone at once, as after a server's clock was put forward, or it went back to what it was long ago:
// nodes take new ones.
func TestRedisNobodyLeavesBecauseAllLeasesAreGone(t *testing.T) {
	t.Parallel()
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL(), HeartbeatInterval: 400 * time.Millisecond, LeaseTTL: time.Minute}
	a, b := openRedis(t, cfg), openRedis(t, cfg)
	subA, atA := subscribe(t, a, "lobby")
	subB, atB := subscribe(t, b, "lobby")
	subA.Enter(bus.Member{ID: "ann"})
	subB.Enter(bus.Member{ID: "bob"})
	for _, told := range []*listener{atA, atB} {
		told.change(bus.Joined, "ann")
		told.change(bus.Joined, "bob")
	}
	for range 6 {
		time.Sleep(time.Second) // a reaper draws no conclusions from what it sees earlier
		formerA, formerB := a.Incarnation(), b.Incarnation()
		if err := server.Client().Del(t.Context(), "parley:lease:"+formerA, "parley:lease:"+formerB).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both to have other leases", func() bool { return a.Incarnation() != formerA && b.Incarnation() != formerB })
	}
	subA.Enter(bus.Member{ID: "end"})
	for _, told := range []*listener{atA, atB} {
		told.change(bus.Joined, "end")
		if heard := told.heard(); len(heard) != 3 {
			t.Errorf("told are %v", heard)
		}
	}
}

// A room that nobody is in any more is not listed for ever, though the list could not be told.
func TestRedisARoomThatCouldNotBeTakenOffTheListIsLater(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	r := openRedis(t, redis.Config{URL: limitedURL(server), HeartbeatInterval: 300 * time.Millisecond, CompareInterval: time.Hour})
	sub, told := subscribe(t, r, "lobby")
	sub.Enter(bus.Member{ID: "ann"})
	told.change(bus.Joined, "ann")
	allow(t, server, "allchannels", "-srem")
	sub.Close()
	eventually(t, "a refusal", func() bool { return refusals(t, server, "srem") > 0 })
	allow(t, server, "allchannels")
	eventually(t, "no room to be listed", func() bool {
		rooms, err := r.Rooms(t.Context())
		return err == nil && len(rooms) == 0
	})
}

// A node that ends is in no room any more, not in those either that it had left before the server went back to what it was.
func TestRedisANodeThatEndsLeavesRoomsThatItIsInAgain(t *testing.T) {
	server := bustest.StartRedis(t)
	r := openAt(t, server.URL(), never)
	inc, c, k := r.Incarnation(), server.Client(), redis.KeysOf("lobby")
	sub, told := subscribe(t, r, "lobby")
	sub.Enter(bus.Member{ID: "ann"})
	told.change(bus.Joined, "ann")
	before := stateOf(t, c)
	sub.Close()
	eventually(t, "ann to have left", func() bool { return c.Exists(t.Context(), "parley:rooms:"+inc).Val() == 0 })
	before.putBack(t, c)
	_ = r.Close()
	if there, err := c.HExists(t.Context(), k.Incarnations, inc).Result(); err != nil || there {
		t.Errorf("it is in the room: %v, %v", there, err)
	}
}

// What lists nodes does not outlive them for ever, even if none of them lived for long.
func TestRedisTheListOfNodesExpires(t *testing.T) {
	server := bustest.StartRedis(t)
	openAt(t, server.URL(), never)
	if left := server.Client().PTTL(t.Context(), "parley:incarnations").Val(); left <= 0 {
		t.Errorf("it expires in %v", left)
	}
}

// Who starts waits before it takes dead nodes for dead. What it has met meanwhile, and no list names, it sees to then.
func TestRedisADeadNodeThatIsMetTooSoonIsSeenToLater(t *testing.T) {
	deadIsSeenTo(t, func(*bustest.RedisServer, string) {}, func(*bustest.RedisServer) {})
}

// It does also where it could not at first.
func TestRedisADeadNodeThatCouldNotBeTakenOutIsSeenToLater(t *testing.T) {
	deadIsSeenTo(t, func(server *bustest.RedisServer, _ string) {
		allow(t, server, "allchannels", "-unlink") // which only taking out needs
	}, func(server *bustest.RedisServer) {
		eventually(t, "a refusal", func() bool { return refusals(t, server, "unlink") > 0 })
		allow(t, server, "allchannels")
	})
}

// leaveDead leaves a dead node in rooms. isOut waits until it has been taken out of one.
func leaveDead(t *testing.T, server *bustest.RedisServer, rooms ...string) (dead *redis.Bus, isOut func(room string)) {
	t.Helper()
	ctx, c := t.Context(), server.Client()
	dead = openAt(t, server.URL(), never)
	for _, room := range rooms {
		present(t, dead, room, "ann")
	}
	c.Del(ctx, "parley:lease:"+dead.Incarnation())
	return dead, func(room string) {
		t.Helper()
		eventually(t, "the dead node to be out of "+room, func() bool {
			there, err := c.HExists(ctx, redis.KeysOf(room).Incarnations, dead.Incarnation()).Result()
			return err == nil && !there
		})
	}
}

// eager is a node that sees to the dead at once, and to nothing else.
var eager = redis.Config{HeartbeatInterval: 200 * time.Millisecond, LeaseTTL: time.Minute, CompareInterval: time.Hour}

// Where a dead node could be taken out of one room and not of another, the list of its rooms has the other still.
func TestRedisARoomThatADeadNodeCouldNotBeTakenOutOfIsSeenToLater(t *testing.T) {
	t.Parallel()
	server := bustest.StartRedis(t)
	dead, isOut := leaveDead(t, server, "lobby", "tea")
	unreadable := dead.OwnUsers("tea")
	if err := server.Client().Set(t.Context(), unreadable, "no users", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	openAt(t, server.URL(), eager)
	isOut("lobby")
	server.Client().Del(t.Context(), unreadable)
	isOut("tea")
}

// Where the list of its rooms can't be read, it stays on the list of nodes.
func TestRedisADeadNodeWhoseRoomsCantBeReadIsSeenToLater(t *testing.T) {
	t.Parallel()
	server := bustest.StartRedis(t)
	ctx, c := t.Context(), server.Client()
	dead, isOut := leaveDead(t, server, "lobby")
	list := "parley:rooms:" + dead.Incarnation()
	if err := c.Set(ctx, list, "no rooms", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	openAt(t, server.URL(), eager)
	eventually(t, "two refusals", func() bool { // the second comes after all that follows the first
		_, stat, _ := strings.Cut(c.Info(ctx, "errorstats").Val(), "errorstat_WRONGTYPE:count=")
		n := 0
		_, _ = fmt.Sscan(stat, &n)
		return n >= 2
	})
	c.Del(ctx, list)
	c.SAdd(ctx, list, "lobby")
	isOut("lobby")
}

// And where another node sees to the dead one, which need not know of the room.
func TestRedisADeadNodeThatAnotherSeesToIsSeenToLater(t *testing.T) {
	claimedIsSeenTo(t, 5*time.Second)
}

// And where that other died too, just before the server's clock was set back, so that its claim lasts for longer.
func TestRedisADeadNodeWhoseClaimTheClockProlongsIsSeenToLater(t *testing.T) {
	claimedIsSeenTo(t, time.Hour)
}

// claimedIsSeenTo has another node see to the dead one, for as long as its claim lasts.
func claimedIsSeenTo(t *testing.T, lasts time.Duration) {
	deadIsSeenTo(t, func(server *bustest.RedisServer, dead string) {
		if err := server.Client().Set(t.Context(), "parley:reap:"+dead, "1", lasts).Err(); err != nil {
			t.Fatal(err)
		}
	}, func(*bustest.RedisServer) {})
}

// A node that died just before the server's clock was set back has left in time all the same, though its lease lasts for longer then.
func TestRedisADeadNodeWhoseLeaseTheClockProlongsIsSeenTo(t *testing.T) {
	t.Parallel()
	server := bustest.StartRedis(t)
	dies := openAt(t, server.URL(), never) // with leases of hours
	present(t, dies, "lobby", "ann")
	const lasts = time.Second
	_, told := subscribe(t, openRedis(t, redis.Config{URL: server.URL(), HeartbeatInterval: 300 * time.Millisecond, LeaseTTL: lasts}), "lobby")
	var left time.Duration
	eventually(t, "its lease to be shortened", func() bool {
		var err error
		left, err = server.Client().PTTL(t.Context(), "parley:lease:"+dies.Incarnation()).Result()
		return err == nil && left < time.Minute
	})
	if left > lasts {
		t.Errorf("its lease lasts for %v more, a new one for %v", left, lasts)
	}
	told.change(bus.Left, "ann")
}

// Nobody leaves a room as his node takes another lease, however many it has there: more than it writes at once.
func TestRedisNobodyLeavesWhileManyAreWrittenUnderAnotherLease(t *testing.T) {
	server := bustest.StartRedis(t)
	cfg := never
	cfg.URL = server.URL()
	cfg.SetWholeUsers(2)
	a := openRedis(t, cfg)
	sub, _ := subscribe(t, a, "lobby")
	_, told := subscribe(t, openRedis(t, cfg), "lobby")
	var want []string
	enter := func(user string) {
		t.Helper()
		sub.Enter(bus.Member{ID: user})
		told.change(bus.Joined, user)
		want = append(want, "+"+user)
	}
	for i := range 5 {
		enter(fmt.Sprint("user", i))
	}
	before := a.Incarnation()
	if err := a.TakeLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it to be there under that alone", func() bool {
		there := incarnationsIn(t, server, "lobby")
		return len(there) == 1 && there[0] != before
	})
	enter("the end")
	told.expect(want...)
}

// Whoever comes to a room is not kept waiting until a crowd has left it.
func TestRedisWhoComesIsInBeforeACrowdHasLeft(t *testing.T) {
	const crowd = 1500
	server := bustest.StartRedis(t)
	sub, _ := subscribe(t, openAt(t, server.URL(), never), "lobby")
	_, told := subscribe(t, openAt(t, server.URL(), never), "lobby")
	for i := range crowd {
		sub.Enter(bus.Member{ID: fmt.Sprint("user", i)})
	}
	told.until("the crowd", func(lines []string) bool { return len(lines) == crowd })
	for i := range crowd {
		sub.Leave(fmt.Sprint("user", i))
	}
	sub.Enter(bus.Member{ID: "ann"})
	lines := told.until("ann", func(lines []string) bool { return slices.Contains(lines, "+ann") })
	if left := slices.Index(lines, "+ann") - crowd; left > crowd/2 {
		t.Errorf("%d of %d have left before ann is told", left, crowd)
	}
}

// A full server takes what is new of who is in a room, whoever can't be entered with him.
func TestRedisAFullServerTakesAName(t *testing.T) {
	server := bustest.StartRedis(t)
	sub, _ := subscribe(t, openAt(t, server.URL(), never), "lobby")
	_, told := subscribe(t, openAt(t, server.URL(), never), "lobby")
	sub.Enter(bus.Member{ID: "ann"})
	told.change(bus.Joined, "ann")
	server.Client().ConfigSet(t.Context(), "maxmemory", "1")
	sub.Enter(bus.Member{ID: "cay"})
	sub.Enter(bus.Member{ID: "ann", Name: "Ann"})
	told.expect("+ann", "ann")
	server.Client().ConfigSet(t.Context(), "maxmemory", "0")
	told.expect("+ann", "ann", "+cay")
}

// deadIsSeenTo has a node meet a dead one in a room that it is not in, and that no list names any more.
func deadIsSeenTo(t *testing.T, before func(server *bustest.RedisServer, dead string), meanwhile func(server *bustest.RedisServer)) {
	t.Helper()
	t.Parallel()
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	ctx, c, k := t.Context(), server.Client(), redis.KeysOf("lobby")
	dies := openAt(t, server.URL(), never)
	present(t, dies, "lobby", "ann")
	dead := dies.Incarnation()
	if err := c.Del(ctx, "parley:lease:"+dead, "parley:rooms:"+dead, "parley:incarnations").Err(); err != nil {
		t.Fatal(err)
	}
	lives := openRedis(t, redis.Config{URL: limitedURL(server), HeartbeatInterval: time.Second, CompareInterval: time.Hour})
	before(server, dead)
	if roster, err := lives.Roster(ctx, "lobby"); err != nil || roster.Count != 1 {
		t.Fatalf("%d members are read, %v", roster.Count, err)
	}
	meanwhile(server)
	eventually(t, "the dead node to be out of the room", func() bool {
		there, err := c.HExists(ctx, k.Incarnations, dead).Result()
		return err == nil && !there
	})
}

// A node that needed another lease takes what it had under the one before out of its rooms, once. Where that fails it is done later, though
// no list names it any more, and nobody watches the room.
func TestRedisWhatANodeHadUnderALostLeaseIsTakenOutLater(t *testing.T) {
	t.Parallel()
	for _, room := range []string{"watched", "left"} {
		t.Run(room, func(t *testing.T) {
			t.Parallel()
			takenOutLater(t, room == "left")
		})
	}
}

func takenOutLater(t *testing.T, left bool) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	// A reaper waits for two heartbeats after a lease was taken: meanwhile it may be forbidden what it needs.
	r := openRedis(t, redis.Config{URL: limitedURL(server), HeartbeatInterval: 3 * time.Second, CompareInterval: time.Hour})
	ctx, c, k := t.Context(), server.Client(), redis.KeysOf("lobby")
	sub, told := subscribe(t, r, "lobby")
	sub.Enter(bus.Member{ID: "ann"})
	told.change(bus.Joined, "ann")
	former := r.Incarnation()
	allow(t, server, "allchannels", "-unlink") // which only taking out needs
	if err := c.Del(ctx, "parley:lease:"+former, "parley:rooms:"+former, "parley:incarnations").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func() bool { return refusals(t, server, "unlink") > 0 })
	allow(t, server, "allchannels")
	if left {
		sub.Close()
	}
	eventually(t, "the former incarnation to be out of the room", func() bool {
		there, err := c.HExists(ctx, k.Incarnations, former).Result()
		return err == nil && !there
	})
	if left {
		return
	}
	sub.Enter(bus.Member{ID: "bob"}) // who is written after that
	told.change(bus.Joined, "bob")
	const more = 8
	before := bustest.Calls(t, c)["srem"] // which follows who is taken out; a reaper may do it once
	for i := range more {
		sub.Enter(bus.Member{ID: fmt.Sprint(i)})
		told.change(bus.Joined, fmt.Sprint(i))
	}
	if again := bustest.Calls(t, c)["srem"] - before; again > more/2 {
		t.Errorf("it is taken out %d times more", again)
	}
}

// Who is in a room is written under a lease that is taken while the one before is being written under, too: else nobody would do it, and
// all leave once that is reaped.
func TestRedisALeaseTakenWhileRostersAreWrittenCountsForThem(t *testing.T) {
	server := bustest.StartRedis(t)
	r := openRedis(t, redis.Config{URL: server.URL(), HeartbeatInterval: time.Hour, CompareInterval: 200 * time.Millisecond})
	first, _ := subscribe(t, r, "first")
	sub, told := subscribe(t, r, "lobby")
	for _, user := range []string{"ann", "bob"} {
		sub.Enter(bus.Member{ID: user})
		told.change(bus.Joined, user)
	}
	ctx, c := t.Context(), server.Client()
	if err := c.Del(ctx, "parley:lease:"+r.Incarnation()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.TakeLeaseWhileWriting(ctx, first, sub, "bob"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "who is there to be so under the other lease", func() bool {
		users, err := c.HKeys(ctx, r.OwnUsers("lobby")).Result()
		return err == nil && slices.Equal(users, []string{"ann"})
	})
}

// Who is told that an incarnation was reaped only by what Redis has of the room is told at once that its members have left.
func TestRedisAReapingThatWasMissedIsTold(t *testing.T) {
	server := bustest.StartRedis(t)
	dies, lives := openAt(t, server.URL(), never), openAt(t, server.URL(), never)
	present(t, dies, "lobby", "ann")
	_, told := subscribe(t, lives, "lobby")
	lives.Cut(func() {
		if err := lives.Reap(t.Context(), dies.Incarnation(), "lobby"); err != nil {
			t.Fatal(err)
		}
	})
	told.change(bus.Left, "ann")
}
