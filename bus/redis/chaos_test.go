package redis_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

var chaosFor = flag.Duration("chaos", 3*time.Second, "how long TestRedisOutlivesChaos breaks things")

// TestRedisOutlivesChaos lets three nodes talk, come and go in four rooms while connections are cut and the server stands
// still. In the end everyone was told every acknowledged message, once and in the room's order, and knows who is there.
func TestRedisOutlivesChaos(t *testing.T) {
	const rooms = 4
	server := bustest.StartRedis(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	type seat struct {
		node *redis.Bus
		sub  bus.Subscription
		told *listener
		want map[string]bool
	}
	var nodes []*redis.Bus
	seats := make([][]*seat, rooms)
	for range 3 {
		n := openRedis(t, redis.Config{
			URL: server.URL(), Timeout: 300 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond,
			CompareInterval: 300 * time.Millisecond, Retention: bus.Retention{Size: 100_000},
		})
		nodes = append(nodes, n)
		for i := range rooms {
			sub, told := subscribe(t, n, fmt.Sprint("room", i))
			seats[i] = append(seats[i], &seat{n, sub, told, map[string]bool{}})
		}
	}

	over := make(chan struct{})
	var talking sync.WaitGroup
	acknowledged := make([][]string, rooms*len(nodes)) // by sender
	for i := range acknowledged {
		talking.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				body := fmt.Sprintf("m%d.%d", i, n)
				for { // as a client does
					if _, err := tryAppend(t, nodes[i%len(nodes)], fmt.Sprint("room", i/len(nodes)), body, body); err == nil {
						break
					}
					time.Sleep(time.Millisecond)
				}
				acknowledged[i] = append(acknowledged[i], body)
			}
		})
	}
	admin := server.Client()
	for began := time.Now(); time.Since(began) < *chaosFor; {
		switch random.IntN(20) {
		case 0:
			nodes[random.IntN(len(nodes))].Reconnect()
		case 1:
			admin.ClientKillByFilter(context.Background(), "TYPE", []string{"normal", "pubsub"}[random.IntN(2)], "SKIPME", "yes")
		case 2:
			server.Pause()
			time.Sleep(time.Duration(random.Int64N(int64(time.Second)))) // beyond every limit, at times
			server.Resume()
		default:
			s := seats[random.IntN(rooms)][random.IntN(len(nodes))]
			user := fmt.Sprint("u", random.IntN(6))
			if s.want[user] = !s.want[user]; s.want[user] {
				s.sub.Enter(bus.Member{ID: user, Name: user})
			} else {
				s.sub.Leave(user)
			}
			time.Sleep(time.Duration(random.Int64N(int64(10 * time.Millisecond))))
		}
	}
	close(over)
	talking.Wait()

	for i, room := range seats {
		end := fmt.Sprint("end", i)
		eventually(t, "the last message", func() bool {
			_, err := tryAppend(t, nodes[0], fmt.Sprint("room", i), end, end)
			return err == nil
		})
		want := map[string]bool{}
		for _, s := range room {
			maps.Copy(want, selected(s.want))
		}
		var order []string
		for _, s := range room {
			lines := s.told.until(end, func(lines []string) bool { return slices.Contains(lines, end) })
			messages := slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "m") })
			if slices.Contains(lines, "break") {
				t.Errorf("a break was told, though nothing was lost")
			}
			if order == nil {
				order = messages
			}
			if !slices.Equal(messages, order) {
				t.Errorf("room %d has different orders", i)
			}
			eventually(t, fmt.Sprintf("%v to be known in room %d", slices.Sorted(maps.Keys(want)), i), func() bool {
				var users []string
				for _, m := range s.sub.Roster().Members {
					users = append(users, m.ID)
				}
				slices.Sort(users)
				return slices.Equal(users, slices.Sorted(maps.Keys(want)))
			})
			var there []string
			s.told.until("changes that add up", func(lines []string) bool {
				is := map[string]bool{}
				for _, l := range lines {
					if l[0] == '+' || l[0] == '-' {
						is[l[1:]] = l[0] == '+'
					}
				}
				there = slices.Sorted(maps.Keys(selected(is)))
				return slices.Equal(there, slices.Sorted(maps.Keys(want)))
			})
		}
		for j := range nodes {
			sender := i*len(nodes) + j
			prefix := fmt.Sprintf("m%d.", sender)
			got := slices.DeleteFunc(slices.Clone(order), func(m string) bool { return !strings.HasPrefix(m, prefix) })
			if !slices.Equal(got, acknowledged[sender]) {
				t.Errorf("sender %d: %d acknowledged, %d told", sender, len(acknowledged[sender]), len(got))
			}
		}
	}
}

func selected(set map[string]bool) map[string]bool {
	set = maps.Clone(set)
	maps.DeleteFunc(set, func(_ string, in bool) bool { return !in })
	return set
}
