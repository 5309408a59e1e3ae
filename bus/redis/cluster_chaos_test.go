package redis_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/bus/redis"
)

// On a Redis Cluster users come, leave and change their names, and rooms are left and come back to, while slots move between primaries,
// stop half-way, and connections are cut. Once it is quiet everybody lists exactly who is there, and so does who follows what he is told.
func TestRedisClusterListsOutliveMoves(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	servers := bustest.StartRedisCluster(t, 2, 0)
	rooms := roomsOf(servers, 0, 2)
	at := make(map[string]int) // the server that has a room
	var nodes []*redis.Cluster
	var seats []map[string]*chaosSeat
	for range 3 {
		n, err := redis.OpenCluster(t.Context(), redis.Config{
			URL: servers.URL(), Timeout: 3 * time.Second, HeartbeatInterval: 500 * time.Millisecond, CompareInterval: 400 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		in := make(map[string]*chaosSeat)
		for _, room := range rooms {
			in[room] = &chaosSeat{chosen: make(map[string]int)}
		}
		nodes, seats = append(nodes, n), append(seats, in)
	}
	names := 0
	var did diary
	do := did.note
	enter := func(i int, room, user string) {
		if s := seats[i][room]; s.come(t, i, nodes[i], room, &did) {
			names++
			do("%d %s +%s#%d", i, room, user, names)
			s.enter(user, names)
		}
	}
	out := func(i int, room string) { seats[i][room].leave(i, room, &did) }
	half := "" // the room whose slot is half moved
	move := func() {
		slot, from := redis.SlotOf(half), at[half]
		servers.MoveKeys(slot, from, 1-from, 1<<30)
		servers.End(slot, from, 1-from)
		at[half], half = 1-from, ""
	}
	for began := time.Now(); time.Since(began) < *chaosFor; {
		i, room, user := random.IntN(len(nodes)), rooms[random.IntN(len(rooms))], fmt.Sprint("u", random.IntN(4))
		s := seats[i][room]
		switch random.IntN(40) {
		case 0, 1:
			if half != "" {
				do("%s has moved", half)
				move()
				break
			}
			half = room
			servers.Begin(redis.SlotOf(room), at[room], 1-at[room])
			do("%s moves: %d keys", room, servers.MoveKeys(redis.SlotOf(room), at[room], 1-at[room], random.IntN(4)))
		case 2:
			do("%d moves %s", i, room)
			nodes[i].MoveAway(room)
		case 3:
			kind := []string{"normal", "pubsub"}[random.IntN(2)]
			do("kill %s", kind)
			servers.Do(random.IntN(2), "client", "kill", "type", kind, "skipme", "yes")
		case 4, 5:
			out(i, room)
		case 6, 7:
			if _, there := s.chosen[user]; there {
				out(i, room)
				enter(i, room, user)
			}
		default:
			if _, there := s.chosen[user]; there && random.IntN(3) > 0 {
				do("%d %s -%s", i, room, user)
				s.end(user)
				break
			}
			enter(i, room, user)
		}
		time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
	}
	if half != "" {
		move()
	}
	quiet := time.Now()
	for _, room := range rooms {
		want := newest(seats[0][room], seats[1][room], seats[2][room])
		agrees := func() (lists []string, ok bool) {
			read, err := nodes[0].Roster(t.Context(), room)
			if err != nil {
				return []string{err.Error()}, false
			}
			all := namesOf(read)
			ok = len(all) == len(want)
			for user, least := range want {
				ok = ok && numberOf(user, all[user]) >= least
			}
			lists = append(lists, fmt.Sprint("read: ", all))
			for i := range nodes {
				s := seats[i][room]
				if s.sub == nil {
					continue
				}
				listed := namesOf(s.sub.Roster())
				_, follows, wrong := s.told.follows()
				lists = append(lists, fmt.Sprintf("%d: %v, follows %v %s", i, listed, follows, wrong))
				ok = ok && maps.Equal(listed, all) && maps.Equal(follows, all) && wrong == ""
			}
			return lists, ok
		}
		var lists []string
		for ok := false; !ok; time.Sleep(20 * time.Millisecond) {
			if lists, ok = agrees(); !ok && time.Since(quiet) > 20*time.Second {
				who := servers.Do(at[room], "hgetall", redis.KeysOf(room).Incarnations)
				t.Fatalf("in %s there are %v; %s\nRedis has %s\nall did %s", room, want, strings.Join(lists, "\n"), who, strings.Join(did, "\n"))
			}
		}
	}
}
