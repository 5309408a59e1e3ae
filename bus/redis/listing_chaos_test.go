package redis_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
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
	names   map[string]string // guarded by mu; of who is there, of a crowd of some
	count   int               // guarded by mu; of all
	crowd   bool              // guarded by mu; not all were listed
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
		f.count--
	case bus.Joined:
		f.count++
		fallthrough
	default:
		f.names[c.Member.ID] = c.Member.Name
	}
	if there == (c.Kind == bus.Joined) && !f.crowd || c.Count != f.count {
		f.wrong = fmt.Sprintf("%v makes %d of %v", c, f.count, f.names)
	}
}

func (f *follower) listLocked() {
	r := f.sub.Roster()
	f.version, f.names, f.count, f.crowd = r.Version, namesOf(r), r.Count, r.Count > len(r.Members)
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

// follows is how many it takes to be there, whom, unless they were too many to be listed, and what was wrong.
func (f *follower) follows() (count int, names map[string]string, wrong string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crowd {
		return f.count, nil, f.wrong
	}
	return f.count, maps.Clone(f.names), f.wrong
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

// A stall holds all that passes over a node's connections, as if its process stood still, or the network.
type stall struct{ passing sync.RWMutex }

func (s *stall) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return stalledConn{c, s}, err
}

type stalledConn struct {
	net.Conn
	stall *stall
}

func (c stalledConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.stall.passing.RLock()
	defer c.stall.passing.RUnlock()
	return n, err
}

func (c stalledConn) Write(b []byte) (int, error) {
	c.stall.passing.RLock()
	defer c.stall.passing.RUnlock()
	return c.Conn.Write(b)
}

// A chaosNode is a node in some rooms.
type chaosNode struct {
	*redis.Bus
	seats  map[string]*chaosSeat
	wire   *stall        // nil where the connections are the system's
	stands chan struct{} // closed once it does not stand still any more
}

type chaosSeat struct {
	sub    bus.Subscription // nil while the node is not in the room
	told   *follower
	chosen map[string]int // who is in the room through it -> the number of the name
}

// come has a node be in a room, if it can.
func (s *chaosSeat) come(t *testing.T, i int, n bus.Bus, room string, d *diary) bool {
	if s.sub != nil {
		return true
	}
	told := new(follower)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sub, err := n.Subscribe(ctx, room, told)
	if err != nil {
		d.note("%d can't be in %s: %v", i, room, err)
		return false
	}
	d.note("%d is in %s", i, room)
	s.sub, s.told = sub, told
	told.begin(sub)
	return true
}

// leave has it be there no more, nor who is there through it.
func (s *chaosSeat) leave(i int, room string, d *diary) {
	if s.sub != nil {
		d.note("%d leaves %s", i, room)
		s.sub.Close()
		s.sub = nil
		clear(s.chosen)
	}
}

// enter has a user be there under the name of that number.
func (s *chaosSeat) enter(user string, number int) {
	s.chosen[user] = number
	s.sub.Enter(bus.Member{ID: user, Name: fmt.Sprint(user, "#", number), Named: int64(number)})
}

// end has a user be there no more.
func (s *chaosSeat) end(user string) {
	delete(s.chosen, user)
	s.sub.Leave(user)
}

// numberOf gives the number of a user's name, 0 if it is not his.
func numberOf(user, name string) int {
	digits, _ := strings.CutPrefix(name, user+"#")
	number, _ := strconv.Atoi(digits)
	return number
}

// newest are those who are there through some seats of a room, with the greatest of the numbers that each has.
func newest(seats ...*chaosSeat) map[string]int {
	out := make(map[string]int)
	for _, s := range seats {
		for user, number := range s.chosen {
			out[user] = max(out[user], number)
		}
	}
	return out
}

// A diary is what was done last.
type diary []string

func (d *diary) note(format string, args ...any) {
	*d = append((*d)[max(0, len(*d)-400):], time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// openIntoChaos opens a node, however long a busy machine takes for it.
func openIntoChaos(t *testing.T, url string, rooms []string, wire *stall) *chaosNode {
	t.Helper()
	cfg := redis.Config{URL: url, Timeout: 300 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond, CompareInterval: 300 * time.Millisecond}
	if wire != nil {
		cfg.SetDial(wire.dial)
	}
	n := &chaosNode{seats: make(map[string]*chaosSeat), wire: wire}
	for _, room := range rooms {
		n.seats[room] = &chaosSeat{chosen: make(map[string]int)}
	}
	eventually(t, "a node to open", func() (ok bool) {
		b, err := redis.Open(t.Context(), cfg)
		if err != nil && errors.Is(err, redis.ErrMisconfigured) {
			t.Fatal(err)
		}
		n.Bus = b
		return err == nil
	})
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// In rooms over four nodes users come, leave, change their names and their nodes, one room is crowded, and rooms are left altogether,
// and come back to at once, while connections are cut, nodes end, die and stand still beyond their leases, keys vanish and the server
// stands still, is emptied, or is put back to what it was. Once it is quiet everybody lists exactly who is there, under the newest
// names, and so does who follows what he is told.
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
	const crowd, crowded = "crowd", bus.RosterMax + 100
	rooms := []string{"one", "two", "three", crowd}
	server := bustest.StartRedis(t)
	admin := server.Client()
	var nodes []*chaosNode
	open := func(i int) *chaosNode {
		if i%2 == 0 {
			return openIntoChaos(t, server.URL(), rooms, nil)
		}
		return openIntoChaos(t, server.URL(), rooms, new(stall))
	}
	for i := range 4 {
		nodes = append(nodes, open(i))
	}
	names := 0
	var did diary
	do := did.note
	out := func(i int, room string) { nodes[i].seats[room].leave(i, room, &did) }
	enter := func(i int, room, user string) {
		if s := nodes[i].seats[room]; s.come(t, i, nodes[i], room, &did) {
			names++
			do("%d %s +%s#%d", i, room, user, names)
			s.enter(user, names)
		}
	}
	goOn := func(n *chaosNode) {
		if n.stands != nil {
			<-n.stands
		}
	}
	var states []state
	for began := time.Now(); time.Since(began) < long; {
		i := random.IntN(len(nodes))
		n, room := nodes[i], rooms[random.IntN(len(rooms))]
		s := n.seats[room]
		user := fmt.Sprint("u", random.IntN(5))
		switch random.IntN(70) {
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
			goOn(n)
			n.Die()
			nodes[i] = open(i)
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
		case 22, 23:
			do("go back at once")
			before := stateOf(t, admin)
			for range random.IntN(3) {
				out(random.IntN(len(nodes)), rooms[random.IntN(len(rooms))])
			}
			time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond)))) // on its way, or done
			before.putBack(t, admin)
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
			out(i, room)
		case 12, 13:
			if s.sub != nil {
				again := slices.Sorted(maps.Keys(s.chosen))
				out(i, room)
				for _, user := range again[:random.IntN(len(again)+1)] {
					enter(i, room, user)
				}
			}
		case 14:
			if random.IntN(2) == 0 {
				do("%d ends", i)
				goOn(n)
				_ = n.Close()
				nodes[i] = open(i)
			}
		case 15, 16:
			if n.wire != nil && (n.stands == nil || over(n.stands)) {
				do("%d stands still", i)
				n.stands = make(chan struct{})
				n.wire.passing.Lock()
				time.AfterFunc(time.Duration(random.Int64N(int64(1500*time.Millisecond))), func() {
					n.wire.passing.Unlock()
					close(n.stands)
				})
			}
		case 17, 18, 19:
			enter(i, room, user)
			enter((i+1)%len(nodes), room, user)
		case 20:
			if s := n.seats[crowd]; s.come(t, i, n, crowd, &did) {
				do("%d crowds", i)
				first := random.IntN(crowded)
				for j := range random.IntN(crowded) {
					user := fmt.Sprint("c", (first+j)%crowded)
					if random.IntN(8) == 0 {
						s.end(user)
						continue
					}
					names++
					s.enter(user, names)
				}
			}
		case 21:
			if s := n.seats[crowd]; s.sub != nil {
				do("%d crowds no more", i)
				for user := range s.chosen {
					s.sub.Leave(user)
				}
				clear(s.chosen)
			}
		default:
			if _, there := s.chosen[user]; there && random.IntN(3) > 0 {
				do("%d %s -%s", i, room, user)
				s.end(user)
				break
			}
			enter(i, room, user)
		}
		time.Sleep(time.Duration(random.Int64N(int64(10 * time.Millisecond))))
	}

	for _, n := range nodes {
		goOn(n)
	}
	reader := open(0)
	quiet := time.Now()
	for _, room := range rooms {
		var seats []*chaosSeat
		for _, n := range nodes {
			seats = append(seats, n.seats[room])
		}
		newest := newest(seats...)
		// right reports whether a list has who is there, by that name or a later one: of a crowd so many as are listed.
		right := func(names map[string]string) bool {
			for user, name := range names {
				if least, there := newest[user]; !there || numberOf(user, name) < least {
					return false
				}
			}
			return len(names) == min(len(newest), bus.RosterMax)
		}
		small := len(newest) <= bus.RosterMax
		agrees := func() (lists []string, ok bool) {
			read, err := reader.Roster(t.Context(), room)
			if err != nil {
				return []string{err.Error()}, false
			}
			all := namesOf(read)
			ok = read.Count == len(newest) && right(all)
			lists = append(lists, fmt.Sprint("read: ", read.Count, all))
			for i, n := range nodes {
				s := n.seats[room]
				if s.sub == nil {
					continue
				}
				r := s.sub.Roster()
				listed := namesOf(r)
				count, follows, wrong := s.told.follows()
				lists = append(lists, fmt.Sprintf("%d (%s): %d %v, follows %d %v %s", i, n.Incarnation(), r.Count, listed, count, follows, wrong))
				ok = ok && r.Count == len(newest) && right(listed) && count == len(newest) && wrong == ""
				if small {
					ok = ok && maps.Equal(listed, all) && (follows == nil || maps.Equal(follows, all))
				}
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

func over(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
