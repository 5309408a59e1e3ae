package redis_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// After a reconnection a link asks about each of its rooms, and not all at once. What is said meanwhile waits only for the question
// about its own room.
func TestRedisWhatIsSaidWaitsForTheQuestionAboutItsRoomOnly(t *testing.T) {
	const rooms = redis.MendAwaited + 300
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL(), Links: 1, Timeout: patience, HeartbeatInterval: patience}
	p := &tap{release: make(chan struct{})}
	cfg.SetDial(p.dial)
	r := openRedis(t, cfg)
	subs := make([]bus.Subscription, rooms)
	var joined sync.WaitGroup
	for i := range rooms {
		joined.Go(func() { subs[i], _ = subscribe(t, r, fmt.Sprint("room", i)) })
	}
	joined.Wait()

	p.holds.Store(true)
	r.Reconnect()
	questions := func() int { return strings.Count(p.wrote(), redis.MendSHA) }
	eventually(t, "the questions", func() bool { return questions() >= redis.MendAwaited })
	late := ""
	for i := range rooms {
		if name := fmt.Sprint("room", i); !strings.Contains(p.wrote(), redis.KeysOf(name).Log) {
			late = name
		}
	}
	said := make(chan error, 1)
	r.Publish(late, bus.Draft{Body: []byte("what is said")}, func(_ bus.ID, err error) { said <- err })
	eventually(t, "what is said to leave", func() bool { return strings.Contains(p.wrote(), "what is said") })
	if n := questions(); n != redis.MendAwaited+1 {
		t.Errorf("%d questions are not answered", n)
	}
	_, after, _ := strings.Cut(p.wrote()[:strings.Index(p.wrote(), "what is said")], redis.KeysOf(late).Log)
	if !strings.Contains(after, redis.KeysOf(late).Log) {
		t.Error("the message left before the question about its room")
	}
	close(p.release)
	if err := <-said; err != nil {
		t.Errorf("what is said: %v", err)
	}
	for _, s := range subs {
		eventually(t, "all rooms to be read", func() bool { return redis.IsLive(s) })
	}
	if n := questions(); n < rooms {
		t.Errorf("%d questions about %d rooms", n, rooms)
	}
}

// Where a log broke is what the node knows of it, and nothing that was appended while the node was still at the old primary: there the
// ids are below those of what the node knows.
func TestRedisALogBreaksBeforeAllThatIsNewToTheNode(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, now := t.Context(), server.Client(), time.Now().UnixMilli()
	at := func(ago time.Duration) string { return fmt.Sprint(now-ago.Milliseconds(), "-1") }
	both, marker, fresh := at(5*time.Second), at(3*time.Second), at(2500*time.Millisecond)
	var lost []any // newest first, more than a node remembers
	for i := range 16 {
		lost = append(lost, at(time.Second+time.Duration(i)*time.Millisecond))
	}
	for name, tt := range map[string]struct {
		marker string // of another node, which was here first
		told   string // the marker that the node knows
		acked  any
		known  []any
		want   string
	}{
		"what it knows last":                    {marker, "", "", append(lost[:3:3], both), both},
		"all that it remembers is lost":         {marker, "", "", lost, both},
		"all of it is, and it knows of another": {marker, at(4 * time.Second), "", lost, both},
		"all of it is, and it has been told":    {marker, marker, "", lost, fresh},
		"it was acknowledged, and not heard":    {marker, "", lost[0], []any{both}, both},
		"the marker is of a break long before":  {at(5 * time.Minute), "", "", lost, fresh},
		"there is none, and all of it is lost":  {"", "", "", lost, fresh},
		"there is none, and it was not heard":   {"", "", lost[0], []any{both}, both},
		"it only published, and knows no entry": {"", "", lost[0], []any{"0-0"}, fresh},
	} {
		t.Run(name, func(t *testing.T) {
			k := redis.KeysOf(name)
			prev, first := "0-0", both
			add := func(id, kind, body string) {
				if err := c.Do(ctx, "xadd", k.Log, id, kind, prev+" "+body).Err(); err != nil {
					t.Fatal(err)
				}
				prev = id
			}
			if tt.marker < both && tt.marker != "" {
				first = at(6 * time.Minute)
				add(first, "m", "before")
				add(tt.marker, "g", first)
			}
			add(both, "m", "both")
			if tt.marker == marker {
				add(marker, "g", both)
			}
			add(fresh, "m", "fresh")
			c.Set(ctx, k.Last, fresh, time.Hour)
			if tt.marker != "" {
				c.Set(ctx, k.Break, tt.marker+" "+first, time.Hour)
			}
			answer, err := mend(ctx, c, k, tt.acked, spaced(tt.known), tt.told).Slice()
			if err != nil || len(answer) != 2 || answer[1] != tt.want {
				t.Errorf("it answers %v (%v), want a break after %s", answer, err, tt.want)
			}
		})
	}
}

// Where the log was trimmed past what the node knows, its chain says no more whether all of that was in it. Of the server that the node
// knows it from it was; of another nobody can tell, and a break is noted before all that the node knows: others may not have heard of it.
func TestRedisALogThatWasTrimmedMayHaveBrokenElsewhere(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, now := t.Context(), server.Client(), time.Now().UnixMilli()
	at := func(ago time.Duration) string { return fmt.Sprint(now-ago.Milliseconds(), "-1") }
	long, oldest, older, knows, trimmed, first := at(2*time.Minute), at(6*time.Second), at(5*time.Second), at(4*time.Second), at(3*time.Second), at(2*time.Second)
	just := at(0)[:13] // the other was heard
	for name, tt := range map[string]struct {
		prev, acked, left string
		known             []any
		point, lost       string // "" where nothing is to be told
	}{
		"the same server": {trimmed, "", "", []any{knows, older, oldest}, "", ""},
		"another server":  {trimmed, "", just, []any{knows, older, oldest}, knows, oldest},
		"another server, and it knows it for long": {trimmed, "", just, []any{long}, "", ""},
		"another, left as it knew it but shortly":  {trimmed, "", at(time.Minute + 5*time.Second)[:13], []any{long}, long, long},
		"what it knows is not in the chain":        {older, "", "", []any{knows, older, oldest}, older, oldest},
		"it only published, to the same server":    {trimmed, knows, "", []any{"0-0"}, "", ""},
		"it only published, to another server":     {trimmed, knows, just, []any{"0-0"}, trimmed, "0-0"},
		"it only published, and long ago":          {trimmed, long, just, []any{"0-0"}, "", ""},
		"it only published, and that is not there": {older, knows, "", []any{"0-0"}, older, "0-0"},
	} {
		t.Run(name, func(t *testing.T) {
			k := redis.KeysOf(name)
			c.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: first, Values: []any{"m", tt.prev + " first"}})
			c.Set(ctx, k.Last, first, time.Hour)
			answer, err := mend(ctx, c, k, tt.acked, spaced(tt.known), "", tt.left).Result()
			if err != nil {
				t.Fatal(err)
			}
			told, _ := answer.([]any)
			if tt.point == "" {
				if told != nil {
					t.Errorf("it answers %v, though nothing is lost", told)
				}
				return
			}
			if len(told) != 2 || told[1] != tt.point {
				t.Fatalf("it answers %v, want a break at %s", answer, tt.point)
			}
			if marker := c.XRevRangeN(ctx, k.Log, "+", "-", 1).Val()[0]; marker.ID != told[0] || marker.Values["g"] != first+" "+tt.lost {
				t.Errorf("the marker is %v, want one that tells of all after %s", marker, tt.lost)
			}
			if noted := c.Get(ctx, k.Break).Val(); noted != fmt.Sprint(told[0], " ", tt.lost) {
				t.Errorf("noted is %q", noted)
			}
		})
	}
}

// Where the log that a node comes back to was trimmed past what it knows, it is told of a loss if this is another server: its chain goes on
// from what the node knows, but others may have heard of more. So it is where the server can't note that at first, and where the room is
// compared with it before a link can ask.
func TestRedisWhatIsTrimmedOnAnotherServerIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		elsewhere, refuses, compared bool
		told                         []string
	}{
		"the same server":                   {false, false, false, []string{"known", "next"}},
		"another server":                    {true, false, false, []string{"known", "break", "next"}},
		"another server, which is full yet": {true, true, false, []string{"known", "break", "next"}},
		"another server, compared first":    {true, false, true, []string{"known", "break", "next"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := bustest.StartRedis(t)
			allow(t, server, "allchannels")
			cfg := slow
			if tt.refuses {
				cfg = often // and so asks again soon where nobody is
			}
			cfg.URL = limitedURL(server)
			r := openRedis(t, cfg)
			sub, told := subscribe(t, r, "lobby")
			known := map[string]bus.ID{"lobby": appendTo(t, r, "lobby", "known", ""), "left": appendTo(t, r, "left", "known", "")}
			told.expect("known")
			if tt.elsewhere {
				r.Elsewhere(0)
			}
			r.Cut(func() {
				for room, id := range known {
					next := id
					next.Seq++
					rewind(t, r, room, id, entry{next, id, "next"})
					if err := r.Client().XDel(t.Context(), redis.KeysOf(room).Log, id.String()).Err(); err != nil {
						t.Fatal(err)
					}
				}
				if tt.refuses {
					allow(t, server, "allchannels", "-xadd")
				}
				if tt.compared {
					r.Compare(t, sub)
					r.Compare(t, sub) // by now it seems to lack something
					eventually(t, "it to be read, if it is", func() bool { return !redis.IsRead(sub) })
				}
			})
			if tt.refuses {
				eventually(t, "refusals", func() bool { return refusals(t, server, "xadd") >= len(known) })
				allow(t, server, "allchannels")
			}
			told.expect(tt.told...)
			broken := func() bool {
				p, err := r.After(t.Context(), "left", known["left"], 10, 0)
				return err == nil && !p.LastBreak.IsZero()
			}
			if tt.elsewhere {
				eventually(t, "the loss where nobody is to be noted", broken)
			} else if broken() {
				t.Error("a loss is noted of a room that nobody is in")
			}
		})
	}
}

// So it is however long no server could be reached in between: what counts is for how long the node knew it from the one before.
func TestRedisWhatIsTrimmedDuringALongOutageIsTold(t *testing.T) {
	const outage = 2 * time.Minute
	for name, tt := range map[string]struct {
		before time.Duration // that the node knew it, of the server that was left
		told   []string
	}{
		"known just before it": {time.Second, []string{"break", "next"}},
		"known for long":       {2 * time.Minute, []string{"next"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRedis(t, slow)
			known := bus.ID{Ms: uint64(time.Now().Add(-outage - tt.before).UnixMilli()), Seq: 1}
			rewind(t, r, "lobby", bus.ID{}, entry{known, bus.ID{}, "known"})
			_, told := subscribe(t, r, "lobby")
			r.Elsewhere(outage)
			r.Cut(func() {
				next := known
				next.Seq++
				rewind(t, r, "lobby", bus.ID{}, entry{next, known, "next"})
			})
			told.expect(tt.told...)
		})
	}
}

// A marker that another node wrote is told again, but where the node knows of something lost that is newer: who heard of the marker has
// not been told of that.
func TestRedisAMarkerTellsOfNothingThatIsNewer(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, now := t.Context(), server.Client(), time.Now().UnixMilli()
	at := func(ago time.Duration) string { return fmt.Sprint(now-ago.Milliseconds(), "-1") }
	both, older, marker, newer := at(5*time.Second), at(4*time.Second), at(3*time.Second), at(time.Second)
	for name, tt := range map[string]struct {
		acked any
		known []any
		again bool
	}{
		"it heard of what came before":             {"", []any{older, both}, true},
		"it heard of what came after":              {"", []any{newer, older, both}, false},
		"what came before was acknowledged":        {older, []any{both}, true},
		"what came after was acknowledged":         {newer, []any{both}, false},
		"what came after was, it heard of another": {newer, []any{older, both}, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := redis.KeysOf(name)
			c.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: both, Values: []any{"m", "0-0 both"}})
			c.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: marker, Values: []any{"g", both + " " + both}})
			c.Set(ctx, k.Last, marker, time.Hour)
			c.Set(ctx, k.Break, marker+" "+both, time.Hour)
			answer, err := mend(ctx, c, k, tt.acked, spaced(tt.known)).Slice()
			if err != nil || len(answer) != 2 || answer[1] != both || (answer[0] == marker) != tt.again {
				t.Errorf("it answers %v (%v); the marker was %s, and is told again: %v", answer, err, marker, tt.again)
			}
		})
	}
}

// What a log is found to have lost, by what is left of it and of the keys that name its end and its newest break. A marker that is written
// is the log's end, names what was the end before, and is the newest break from then on.
func TestRedisWhatALogHasLost(t *testing.T) {
	server := bustest.StartRedis(t)
	openRedis(t, redis.Config{URL: server.URL()}) // loads the scripts
	ctx, c, now := t.Context(), server.Client(), time.Now().UnixMilli()
	id := func(n int) string { // 0 is that of an empty room
		if n == 0 {
			return "0-0"
		}
		return fmt.Sprint(now-60_000+1000*int64(n), "-1")
	}
	type entry struct{ id, prev int }
	for name, tt := range map[string]struct {
		log          []entry
		last         int   // -1 for none
		marker, told int   // the newest break's, in the log where that has it; and what it tells; 0 for none
		known        []int // newest first
		acked        int
		point, lost  int // -1 where nothing is lost
		prev         int // of a new marker; -1 where the break's is told again
		end          int // the last that is known then, where nothing is lost
	}{
		"nothing":                              {log: []entry{{1, 0}, {2, 1}}, last: 2, known: []int{2, 1}, point: -1, end: 2},
		"nothing, and more was said":           {log: []entry{{1, 0}, {2, 1}, {3, 2}}, last: 3, known: []int{2, 1}, point: -1, end: 3},
		"the key of the end":                   {log: []entry{{1, 0}, {2, 1}}, last: -1, known: []int{2, 1}, point: -1, end: 2},
		"the key of the end is behind":         {log: []entry{{1, 0}, {2, 1}}, last: 1, known: []int{2, 1}, point: -1, end: 2},
		"the log, by its age":                  {last: 2, known: []int{2, 1}, point: -1, end: 2},
		"the log, by its age, and more":        {last: 3, known: []int{2, 1}, point: -1, end: 3},
		"all":                                  {last: -1, known: []int{2, 1}, point: 0, lost: 0, prev: 0},
		"all, and the end is behind":           {last: 1, known: []int{2, 1}, point: 1, lost: 1, prev: 1},
		"the end":                              {log: []entry{{1, 0}}, last: 1, known: []int{2, 1}, point: 1, lost: 1, prev: 1},
		"the end, and more was said":           {log: []entry{{1, 0}, {6, 1}}, last: 6, known: []int{5, 1}, point: 1, lost: 1, prev: 6},
		"the end, whose key is behind":         {log: []entry{{1, 0}, {6, 1}}, last: 1, known: []int{5, 1}, point: 1, lost: 1, prev: 6},
		"the end, whose key is ahead":          {log: []entry{{1, 0}}, last: 4, known: []int{3, 1}, point: 1, lost: 1, prev: 4},
		"nothing that was acknowledged":        {log: []entry{{1, 0}, {2, 1}}, last: 2, known: []int{1}, acked: 2, point: -1, end: 2},
		"what was acknowledged and is trimmed": {log: []entry{{2, 0}, {3, 2}}, last: 3, known: []int{3, 2}, acked: 1, point: -1, end: 3},
		"what was acknowledged":                {log: []entry{{1, 0}, {3, 1}}, last: 3, known: []int{1}, acked: 2, point: 1, lost: 1, prev: 3},
		"all that was acknowledged":            {last: -1, known: []int{0}, acked: 2, point: 0, lost: 0, prev: 0},
		"all of which the end is behind":       {last: 1, known: []int{0}, acked: 2, point: 1, lost: 1, prev: 1},
		"all that was acknowledged, by age":    {last: 2, known: []int{0}, acked: 2, point: -1, end: 2},
		"all that was, and more, by age":       {last: 3, known: []int{0}, acked: 2, point: -1, end: 3},
		"what is older than the log":           {log: []entry{{5, 1}}, last: 5, known: []int{4}, point: 1, lost: 1, prev: 5},
		"what follows what was trimmed":        {log: []entry{{3, 2}, {6, 3}}, last: 6, known: []int{2, 1}, acked: 5, point: 2, lost: 2, prev: 6},
		"what is told":                         {log: []entry{{1, 0}, {6, 1}}, last: 6, marker: 6, told: 1, known: []int{5, 1}, point: 1, prev: -1},
		"more than is told":                    {log: []entry{{1, 0}, {6, 1}}, last: 6, marker: 6, told: 3, known: []int{5, 1}, point: 1, lost: 1, prev: 6},
		"what was told and trimmed":            {log: []entry{{1, 0}, {7, 1}}, last: 7, marker: 6, told: 1, known: []int{5, 1}, point: 1, lost: 1, prev: 7},
		"all that is known, as is told":        {log: []entry{{1, 0}, {2, 1}, {6, 2}}, last: 6, marker: 6, told: 1, known: []int{5, 4}, point: 1, prev: -1},
		"all that is known, and more":          {log: []entry{{1, 0}, {6, 1}}, last: 6, marker: 6, told: 4, known: []int{5, 4}, point: 1, lost: 1, prev: 6},
		"all that is known, told and trimmed":  {log: []entry{{3, 2}, {7, 3}}, last: 7, marker: 6, told: 1, known: []int{5, 4}, point: 3, lost: 3, prev: 7},
	} {
		t.Run(name, func(t *testing.T) {
			k := redis.KeysOf(name)
			for _, e := range tt.log {
				kind := "m"
				if e.id == tt.marker {
					kind = "g"
				}
				c.XAdd(ctx, &goredis.XAddArgs{Stream: k.Log, ID: id(e.id), Values: []any{kind, id(e.prev) + " " + id(tt.told)}})
			}
			if tt.last >= 0 {
				c.Set(ctx, k.Last, id(tt.last), time.Hour)
			}
			if tt.marker > 0 {
				c.Set(ctx, k.Break, id(tt.marker)+" "+id(tt.told), time.Hour)
			}
			var known []any
			for _, n := range tt.known {
				known = append(known, id(n))
			}
			acked := ""
			if tt.acked > 0 {
				acked = id(tt.acked)
			}
			answer, err := mend(ctx, c, k, acked, spaced(known), "", "").Result()
			if err != nil {
				t.Fatal(err)
			}
			told, _ := answer.([]any)
			end := id(tt.end)
			switch {
			case tt.point < 0:
				if answer != int64(1) {
					t.Errorf("it answers %v, though nothing is lost", answer)
				}
			case len(told) != 2 || told[1] != id(tt.point):
				t.Fatalf("it answers %v, want a break after %s", answer, id(tt.point))
			case tt.prev < 0:
				if end = id(tt.last); told[0] != id(tt.marker) {
					t.Errorf("the marker is %v, want the one that is there, %s", told[0], id(tt.marker))
				}
			default:
				end, _ = told[0].(string)
				if end == id(tt.marker) {
					t.Fatal("the old marker is told")
				}
				if e := c.XRevRangeN(ctx, k.Log, "+", "-", 1).Val()[0]; e.ID != end || e.Values["g"] != id(tt.prev)+" "+id(tt.lost) {
					t.Errorf("the log ends with %v, want the marker %s of what follows %s, after %s", e, end, id(tt.lost), id(tt.prev))
				}
				if noted := c.Get(ctx, k.Break).Val(); noted != end+" "+id(tt.lost) {
					t.Errorf("noted is %q, want %s %s", noted, end, id(tt.lost))
				}
			}
			if last := c.Get(ctx, k.Last).Val(); last != end {
				t.Errorf("the last is %s, want %s", last, end)
			}
		})
	}
}

// lossInVain has a room that its node has left lose something, which the server refuses to note for now. noted waits until it has.
func lossInVain(t *testing.T) (server *bustest.RedisServer, r *redis.Bus, kept bus.ID, noted func()) {
	t.Helper()
	server = bustest.StartRedis(t)
	allow(t, server, "allchannels")
	cfg := often
	cfg.URL = limitedURL(server)
	r = openRedis(t, cfg)
	sub, told := subscribe(t, r, "lobby")
	kept = appendTo(t, r, "lobby", "kept", "")
	lost := appendTo(t, r, "lobby", "lost", "")
	told.expect("kept", "lost")
	sub.Close()
	r.Cut(func() {
		rewind(t, r, "lobby", kept)
		allow(t, server, "allchannels", "-xadd")
	})
	return server, r, kept, func() {
		t.Helper()
		allow(t, server, "allchannels")
		eventually(t, "the loss to be noted", func() bool {
			p, err := r.After(t.Context(), "lobby", lost, 10, 0)
			return err == nil && !p.LastBreak.IsZero()
		})
	}
}

// What a room that was left has lost is asked again where the server refused to say so: who comes back is told then.
func TestRedisALossThatCouldNotBeNotedIsNotedLater(t *testing.T) {
	server, _, _, noted := lossInVain(t)
	eventually(t, "a refusal", func() bool { return refusals(t, server, "xadd") > 0 })
	noted()
}

// So it is where somebody comes back while the server refuses: who joins does not wait, and the loss is noted when it may be.
func TestRedisALossThatCouldNotBeNotedAtAJoinIsNotedLater(t *testing.T) {
	_, r, kept, noted := lossInVain(t)
	if back, _ := subscribe(t, r, "lobby"); back.Last() != kept {
		t.Errorf("who is back begins after %v, the log ends with %v", back.Last(), kept)
	}
	noted()
}

// What was acknowledged and did not arrive is told as lost, too, where the room was left before that was noticed.
func TestRedisALossIsNotedThoughTheRoomWasLeft(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	cfg := never
	cfg.URL = limitedURL(server)
	r := openRedis(t, cfg)
	sub, told := subscribe(t, r, "lobby")
	kept := appendTo(t, r, "lobby", "kept", "")
	told.expect("kept")
	allow(t, server, "allchannels", "-publish")
	lost := appendTo(t, r, "lobby", "lost", "") // and nobody is told
	allow(t, server, "allchannels")
	sub.Close()
	r.Cut(func() { rewind(t, r, "lobby", kept) })
	eventually(t, "the loss to be noted", func() bool {
		p, err := r.After(t.Context(), "lobby", lost, 10, 0)
		return err == nil && !p.LastBreak.IsZero()
	})
}

// Whoever saw what is lost has less than the marker, also where the clock is behind and the room was left.
func TestRedisAMarkerFollowsWhatIsLostThoughTheRoomWasLeft(t *testing.T) {
	server := bustest.StartRedis(t)
	cfg := never
	cfg.URL = server.URL()
	r := openRedis(t, cfg)
	redis.ClockBack(t, server.URL(), "lobby")
	sub, told := subscribe(t, r, "lobby")
	lost := appendTo(t, r, "lobby", "lost", "")
	told.expect("lost")
	sub.Close()
	k := redis.KeysOf("lobby")
	if err := server.Client().Del(t.Context(), k.Log, k.Last).Err(); err != nil {
		t.Fatal(err)
	}
	subscribe(t, r, "lobby")
	p, err := r.After(t.Context(), "lobby", bus.ID{}, 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !lost.Less(p.LastBreak) {
		t.Errorf("the marker is %v, and %v was lost", p.LastBreak, lost)
	}
}

// A loss that the server refuses to note is not passed over: nothing that follows it is handed on before it could be told. Nor is it
// asked about without end.
func TestRedisALossThatCouldNotBeNotedHoldsUpWhatFollows(t *testing.T) {
	server := bustest.StartRedis(t)
	allow(t, server, "allchannels")
	cfg := often
	cfg.URL = limitedURL(server)
	r := openRedis(t, cfg)
	sub, told := subscribe(t, r, "lobby")
	kept := appendTo(t, r, "lobby", "kept", "")
	next := appendTo(t, r, "lobby", "lost", "")
	next.Seq++
	told.expect("kept", "lost")
	r.Cut(func() {
		rewind(t, r, "lobby", kept, entry{next, kept, "next"})
		allow(t, server, "allchannels", "-xadd")
	})
	for range 50 { // each of which asks, too
		_, _ = tryAppend(t, r, "lobby", "refused", "")
	}
	if err := server.Client().Do(t.Context(), "acl", "log", "reset").Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "three refusals", func() bool { return refusals(t, server, "xadd") >= 3 })
	for time.Since(began) < 3*time.Second {
		time.Sleep(10 * time.Millisecond)
		if n := refusals(t, server, "xadd"); n > 3+int(time.Since(began)/time.Second) {
			t.Fatalf("it is asked %d times within %v", n, time.Since(began))
		}
	}
	allow(t, server, "allchannels")
	allowed := time.Now()
	told.expect("kept", "lost", "break", "next")
	if took := time.Since(allowed); took > 8*time.Second {
		t.Errorf("it is told %v after it could be, want about a second", took)
	}
	if redis.AsksLate(sub) {
		t.Error("the next loss is told late, too")
	}
}

// The questions about rooms in which much was said do not leave all at once: what is said elsewhere does not wait for megabytes of them.
func TestRedisQuestionsThatAreLongLeaveInPieces(t *testing.T) {
	server := bustest.StartRedis(t)
	cfg := redis.Config{URL: server.URL(), Links: 1}
	p := &tap{release: make(chan struct{})}
	close(p.release)
	cfg.SetDial(p.dial)
	r := openRedis(t, cfg)
	var subs []bus.Subscription
	long := 0
	for all := 0; all < 3*redis.MendBytes; all += long {
		s, _ := subscribe(t, r, fmt.Sprint("room", len(subs)))
		long = redis.Remember(s)
		subs = append(subs, s)
	}
	p.holds.Store(true)
	r.Reconnect()
	eventually(t, "all to be asked about", func() bool { return strings.Count(p.wrote(), redis.MendSHA) >= len(subs) })
	for _, s := range subs {
		eventually(t, "all rooms to be read", func() bool { return redis.IsLive(s) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if most := redis.MendBytes + 2*long; p.largest > most {
		t.Errorf("a write has %d bytes, want at most %d", p.largest, most)
	}
}

// What was asked about a room that nobody was in may be answered while somebody comes, who asks anew.
func TestRedisALateAnswerAboutARoomIsNobodys(t *testing.T) {
	r := openRedis(t, redis.Config{})
	appendTo(t, r, "lobby", "hi", "")
	answer := r.AnswersAboutTrail("lobby")
	came, over := make(chan struct{}), make(chan struct{})
	r.Cut(func() {
		go func() {
			defer close(came)
			subscribe(t, r, "lobby")
		}()
		eventually(t, "somebody to come", func() bool { return !r.HasTrail("lobby") })
		go func() {
			defer close(over)
			for {
				select {
				case <-came:
					return
				default:
					answer("1-1")
				}
			}
		}()
	})
	<-came
	<-over
}

// What a node knows of a room that it has left, or only published to, it knows for ten minutes, and not for ever.
func TestRedisRoomsThatANodeHasLeftAreForgotten(t *testing.T) {
	r := openRedis(t, redis.Config{CompareInterval: 100 * time.Millisecond})
	known := func(rooms ...string) bool {
		return !slices.ContainsFunc(rooms, func(room string) bool { return !r.HasTrail(room) })
	}
	sub, told := subscribe(t, r, "left")
	sub.Enter(bus.Member{ID: "ann"})
	told.change(bus.Joined, "ann")
	appendTo(t, r, "left", "m", "")
	sub.Close()
	appendTo(t, r, "published to", "m", "")
	r.AgeTrails(9 * time.Minute)
	appendTo(t, r, "used again", "m", "")
	if !known("left", "published to", "used again") {
		t.Error("one is forgotten too early")
	}
	r.AgeTrails(2 * time.Minute)
	eventually(t, "them to be forgotten", func() bool { return !r.HasTrail("left") && !r.HasTrail("published to") })
	if !known("used again") {
		t.Error("one that was used since is forgotten")
	}
	eventually(t, "who was in it to be forgotten", func() bool { return r.Rosters() == 0 })
}

// mend calls mend.lua with its own arguments.
func mend(ctx context.Context, c *goredis.Client, k redis.Keys, own ...any) *goredis.Cmd {
	args := []any{k.Channel, "", 1, 1000, time.Hour.Milliseconds(), time.Hour.Milliseconds(), 1 << 20}
	return c.EvalSha(ctx, redis.MendSHA, []string{k.Log, k.Last, k.Records[0], k.Records[1], k.Break}, append(args, own...)...)
}

func spaced(ids []any) (s string) {
	for _, id := range ids {
		s += fmt.Sprint(id, " ")
	}
	return s
}

// A link that has a new connection forgets nothing that is to be asked: who comes to a room just then is not kept waiting.
func TestRedisWhoComesAsALinkBeginsIsNotForgotten(t *testing.T) {
	r := openRedis(t, never)
	appendTo(t, r, "lobby", "m", "") // so that there is something to be asked
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.SubscribeAsALinkBegins(ctx, "lobby", &nothing{}); err != nil {
		t.Error(err)
	}
}

// A tap notes what is written to the connections that subscribe while it holds, of which nothing is read until the release.
type tap struct {
	holds   atomic.Bool
	release chan struct{}

	mu      sync.Mutex
	written strings.Builder // guarded by mu
	largest int             // guarded by mu; bytes in one write
}

func (p *tap) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &tapped{Conn: c, tap: p}, err
}

func (p *tap) wrote() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written.String()
}

type tapped struct {
	net.Conn
	tap  *tap
	held atomic.Bool
}

func (c *tapped) Write(b []byte) (int, error) {
	p := c.tap
	if p.holds.Load() && strings.Contains(string(b), "SUBSCRIBE") {
		c.held.Store(true)
	}
	if c.held.Load() {
		p.mu.Lock()
		p.written.Write(b)
		p.largest = max(p.largest, len(b))
		p.mu.Unlock()
	}
	return c.Conn.Write(b)
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.held.Load() {
		select {
		case <-c.tap.release:
		case <-time.After(patience):
		}
	}
	return n, err
}

// What was acknowledged and not delivered may be lost between the answer that the log has it and the read of the log. It is not
// forgotten for that: the log is asked about again.
func TestRedisWhatIsLostBeforeItIsReadIsTold(t *testing.T) {
	for _, follows := range []string{"nothing", "another message"} {
		t.Run(follows+" follows", func(t *testing.T) {
			t.Parallel()
			server := bustest.StartRedis(t)
			allow(t, server, "allchannels")
			before := appendTo(t, openRedis(t, redis.Config{URL: server.URL()}), "lobby", "before", "")
			read := newBrake("(" + before.String()) // of what follows
			cfg := redis.Config{URL: limitedURL(server), HeartbeatInterval: time.Hour}
			cfg.SetDial(read.dial)
			r := openRedis(t, cfg)
			_, told := subscribe(t, r, "lobby")
			allow(t, server, "allchannels", "-publish") // so that it does not arrive
			lost := appendTo(t, r, "lobby", "lost", "")
			r.Reconnect()
			select {
			case <-read.reached:
			case <-time.After(patience):
				t.Fatal("the log is not read")
			}
			want := []string{"break"}
			if follows == "nothing" {
				rewind(t, r, "lobby", before)
			} else {
				next := lost
				next.Seq++
				rewind(t, r, "lobby", before, entry{next, before, "next"})
				want = append(want, "next")
			}
			allow(t, server, "allchannels")
			close(read.release)
			told.until("what was lost", func(lines []string) bool { return slices.Equal(lines, want) })
		})
	}
}
