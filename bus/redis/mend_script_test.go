package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus/bustest"
	"parley/bus/redis"
)

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
