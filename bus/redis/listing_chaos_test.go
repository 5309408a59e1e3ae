package redis_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A follower is a sink that begins with a list of who is in a room, and applies to it what it is told: as a client does.
type follower struct {
	mu      sync.Mutex
	sub     bus.Subscription  // guarded by mu; nil before it has a list
	version uint64            // guarded by mu; of the list, what is older is in it
	before  []bus.Change      // guarded by mu; what came before the list
	names   map[string]string // guarded by mu; of who is there
	told    []string          // guarded by mu; the last of what it was told
	wrong   string            // guarded by mu; what can't follow on what it knew
}

func (f *follower) Deliver(bus.Message) {}
func (f *follower) Signal([]byte)       {}

func (f *follower) Presence(c bus.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sub == nil {
		f.before = append(f.before, c)
		return
	}
	f.applyLocked(c)
}

func (f *follower) applyLocked(c bus.Change) {
	f.told = append(f.told[max(0, len(f.told)-30):], fmt.Sprintf("%d:%c%s=%s/%d", c.Version, " +-*~"[c.Kind], c.Member.ID, c.Member.Name, c.Count))
	if c.Version <= f.version {
		return
	}
	_, there := f.names[c.Member.ID]
	switch c.Kind {
	case bus.Synced:
		f.listLocked()
		return
	case bus.Left:
		delete(f.names, c.Member.ID)
	default:
		f.names[c.Member.ID] = c.Member.Name
	}
	if there == (c.Kind == bus.Joined) || c.Count != len(f.names) {
		f.wrong = fmt.Sprintf("%v makes %d of %v", c, c.Count, f.names)
	}
}

func (f *follower) listLocked() {
	r := f.sub.Roster()
	f.version, f.names = r.Version, namesOf(r)
}

// begin takes the list.
func (f *follower) begin(sub bus.Subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sub = sub
	f.listLocked()
	for _, c := range f.before {
		f.applyLocked(c)
	}
}

// follows is whom it takes to be there, and what was wrong.
func (f *follower) follows() (names map[string]string, wrong string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.names), f.wrong
}

func namesOf(r bus.Roster) map[string]string {
	names := make(map[string]string)
	for _, m := range r.Members {
		names[m.ID] = m.Name
	}
	return names
}

// A state is all that a server has.
type state []stateKey

type stateKey struct {
	name, dump string
	end        time.Duration // when it expires, since 1970; -1 for never
}

// stateOf reads it in one step.
func stateOf(t *testing.T, c *goredis.Client) (s state) {
	t.Helper()
	all, err := c.Eval(context.Background(), `
		local all = {}
		for _, key in ipairs(redis.call('KEYS', '*')) do
			all[#all + 1] = { key, redis.call('DUMP', key), redis.call('PEXPIRETIME', key) }
		end
		return all`, nil).Slice()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		k := k.([]any)
		s = append(s, stateKey{k[0].(string), k[1].(string), time.Duration(k[2].(int64)) * time.Millisecond})
	}
	return s
}

// putBack has the server be in that state again, as one is that starts with an old file, or a replica that lacks the newest of it.
func (s state) putBack(t *testing.T, c *goredis.Client) {
	t.Helper()
	_, err := c.TxPipelined(context.Background(), func(p goredis.Pipeliner) error {
		p.FlushAll(context.Background())
		for _, k := range s {
			args := []any{"restore", k.name, 0, k.dump}
			if k.end > 0 {
				args = []any{"restore", k.name, k.end.Milliseconds(), k.dump, "absttl"}
			}
			p.Do(context.Background(), args...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// In rooms over four nodes users come, leave, change their names and their nodes, and rooms are left altogether, while connections are
// cut, nodes die, keys vanish and the server stands still, is emptied, or is put back to what it was. Once it is quiet everybody lists
// exactly who is there, under the newest names, and so does who follows what he is told.
func TestRedisListsOutliveChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	for began, round := time.Now(), uint64(0); round == 0 || time.Since(began) < *chaosFor; round++ {
		listsOutliveChaos(t, rand.New(rand.NewPCG(seed, round)), min(*chaosFor, 6*time.Second))
		if t.Failed() {
			t.Log("round", round)
			return
		}
	}
}

func listsOutliveChaos(t *testing.T, random *rand.Rand, long time.Duration) {
	rooms := []string{"one", "two", "three"}
	server := bustest.StartRedis(t)
	admin := server.Client()
	type seat struct {
		sub    bus.Subscription // nil while the node is not in the room
		told   *follower
		chosen map[string]int // who is in the room through it -> the number of the name
	}
	type node struct {
		*redis.Bus
		seats map[string]*seat
	}
	open := func() *node {
		n := &node{openRedis(t, redis.Config{
			URL: server.URL(), Timeout: 300 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond, CompareInterval: 300 * time.Millisecond,
		}), make(map[string]*seat)}
		for _, room := range rooms {
			n.seats[room] = &seat{chosen: make(map[string]int)}
		}
		return n
	}
	nodes := []*node{open(), open(), open(), open()}
	names := 0
	nameOf := func(user string, n int) string { return fmt.Sprint(user, "#", n) }
	var did []string
	do := func(format string, args ...any) {
		did = append(did[max(0, len(did)-400):], time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	}
	var states []state
	for began := time.Now(); time.Since(began) < long; {
		i := random.IntN(len(nodes))
		n, room := nodes[i], rooms[random.IntN(len(rooms))]
		s := n.seats[room]
		switch random.IntN(60) {
		case 0:
			do("%d reconnects", i)
			n.Reconnect()
		case 1:
			do("kill")
			admin.ClientKillByFilter(t.Context(), "TYPE", []string{"normal", "pubsub"}[random.IntN(2)], "SKIPME", "yes")
		case 2:
			do("pause")
			server.Pause()
			time.Sleep(time.Duration(random.Int64N(int64(time.Second)))) // beyond every limit, at times
			server.Resume()
		case 3:
			do("%d dies", i)
			n.Die()
			nodes[i] = open()
		case 4:
			states = append(states[max(0, len(states)-4):], stateOf(t, admin))
			do("remember %d", len(states))
		case 5:
			if len(states) > 0 {
				which := random.IntN(len(states))
				do("put back to %d", which)
				states[which].putBack(t, admin)
				states = states[:which+1]
			}
		case 6:
			if random.IntN(4) == 0 {
				do("flush")
				admin.FlushAll(t.Context())
			}
		case 7, 8:
			if keys := admin.Keys(t.Context(), "*").Val(); len(keys) > 0 {
				key := keys[random.IntN(len(keys))]
				do("delete %s", key)
				admin.Del(t.Context(), key)
			}
		case 9, 10, 11:
			if s.sub != nil {
				do("%d leaves %s", i, room)
				s.sub.Close()
				s.sub = nil
				clear(s.chosen)
			}
		default:
			if s.sub == nil {
				told := new(follower)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				sub, err := n.Subscribe(ctx, room, told)
				cancel()
				if err != nil {
					do("%d can't be in %s: %v", i, room, err)
					continue
				}
				do("%d is in %s", i, room)
				s.sub, s.told = sub, told
				told.begin(sub)
			}
			user := fmt.Sprint("u", random.IntN(5))
			if _, in := s.chosen[user]; in && random.IntN(3) > 0 {
				do("%d %s -%s", i, room, user)
				delete(s.chosen, user)
				s.sub.Leave(user)
				break
			}
			names++
			do("%d %s +%s", i, room, nameOf(user, names))
			s.chosen[user] = names
			s.sub.Enter(bus.Member{ID: user, Name: nameOf(user, names), Named: int64(names)})
		}
		time.Sleep(time.Duration(random.Int64N(int64(10 * time.Millisecond))))
	}

	reader := open()
	quiet := time.Now()
	for _, room := range rooms {
		newest := make(map[string]int) // of those whom who is there has chosen
		for _, n := range nodes {
			for user, name := range n.seats[room].chosen {
				newest[user] = max(newest[user], name)
			}
		}
		agrees := func() (lists []string, ok bool) {
			read, err := reader.Roster(t.Context(), room)
			if err != nil {
				return []string{err.Error()}, false
			}
			all := namesOf(read)
			ok = len(all) == len(newest)
			for user, name := range newest {
				var is int
				_, _ = fmt.Sscanf(strings.TrimPrefix(all[user], user), "#%d", &is)
				ok = ok && is >= name
			}
			lists = append(lists, fmt.Sprint("read: ", all))
			for i, n := range nodes {
				s := n.seats[room]
				if s.sub == nil {
					continue
				}
				listed := namesOf(s.sub.Roster())
				follows, wrong := s.told.follows()
				lists = append(lists, fmt.Sprintf("%d (%s): %v, follows %v %s", i, n.Incarnation(), listed, follows, wrong))
				ok = ok && maps.Equal(listed, all) && maps.Equal(follows, all) && wrong == ""
			}
			return lists, ok
		}
		var lists []string
		for ok := false; !ok; time.Sleep(20 * time.Millisecond) {
			if lists, ok = agrees(); !ok && time.Since(quiet) > 12*time.Second {
				who, _ := admin.HGetAll(t.Context(), redis.KeysOf(room).Incarnations).Result()
				for _, n := range nodes {
					if s := n.seats[room]; s.sub != nil {
						lists = append(lists, fmt.Sprint("told ", s.told.told))
					}
				}
				t.Fatalf("in %s there are %v; %s\nRedis has %v\nall did %s", room, newest, strings.Join(lists, "\n"), who, strings.Join(did, "\n"))
			}
		}
	}
	for _, n := range nodes {
		_ = n.Close()
	}
	_ = reader.Close()
}
