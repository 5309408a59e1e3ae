// Package bustest is what every implementation of bus.Bus must pass, and a real redis-server to pass it on.
//
// Each promise is a subtest on a backend of its own, under a watchdog. The subtests wait on events, never on time to pass.
package bustest

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"parley/bus"
)

// A Factory makes a new, empty backend for one subtest. What needs ending it ends in t.Cleanup.
type Factory func(t testing.TB, r bus.Retention) Backend

// A Backend is what the nodes of one cluster share.
type Backend struct {
	// Open gives another handle on it, as one more node has. The suite closes it.
	Open func(o bus.Observer) (bus.Bus, error)

	// ClockBack sets the clock that ids are made from behind the room's last id. It may do so by appending a message
	// with an id of the future. Nobody is subscribed to the room then.
	ClockBack func(room string)
}

// Run shows that a backend keeps the promises of bus.Bus as long as nothing breaks.
func Run(t *testing.T, f Factory) {
	for _, p := range promises {
		run(t, p, func(t testing.TB) *cluster { return &cluster{t: t, backend: f(t, p.retention)} })
	}
}

// A Redis is an implementation that keeps its rooms in a Redis.
type Redis struct {
	// Open gives a handle on the server at url, as one more node has. The suite closes it.
	Open func(url string, s Settings) (bus.Bus, error)

	// ClockBack is as in Backend, for the server at url.
	ClockBack func(t testing.TB, url, room string)
}

// Settings are those of a handle on a Redis. What is zero is as by default.
type Settings struct {
	Retention  bus.Retention
	Observer   bus.Observer
	Timeout    time.Duration // of an answer
	Compare    time.Duration // how often a room is compared with the server
	QueueBytes int           // what may wait to be published
}

// RunRedis is Run, and shows beyond it what holds whatever happens to the server, to the connections to it, and to nodes.
// Each subtest has a redis-server of its own.
func RunRedis(t *testing.T, r Redis) {
	for _, p := range slices.Concat(promises, faults) {
		run(t, p, func(t testing.TB) *cluster {
			start := StartRedis
			if p.tcp {
				start = StartRedisTCP
			}
			server := start(t, p.conf...)
			open := func(url string, o bus.Observer) (bus.Bus, error) {
				s := p.settings
				s.Retention, s.Observer = p.retention, o
				return r.Open(url, s)
			}
			return &cluster{
				t:      t,
				server: server,
				openAt: open,
				backend: Backend{
					Open:      func(o bus.Observer) (bus.Bus, error) { return open(server.URL(), o) },
					ClockBack: func(room string) { r.ClockBack(t, server.URL(), room) },
				},
			}
		})
	}
}

// A promise is a subtest.
type promise struct {
	name      string
	test      func(c *cluster)
	retention bus.Retention
	settings  Settings // of its handles on a Redis; retention and observer aside
	conf      []string // lines of redis.conf
	tcp       bool     // the server listens on a port, since replicas can't follow a unix socket
}

// promises are those of every bus, faults what a bus on Redis must outlive.
var (
	promises = slices.Concat(deliveryPromises, handlePromises, closePromises, keyPromises, logPromises, presencePromises, countPromises, crowdPromises, namePromises, boardPromises)
	faults   = slices.Concat(serverFaults, connectionFaults, momentFaults, readingFaults, boundFaults, lossFaults, resumeFaults, failoverFaults, presenceFaults, leaseFaults, refusedFaults, missedFaults, underwayFaults, crowdFaults, deafFaults, movedFaults)
)

// watchdogAfter is far more than any subtest needs.
const watchdogAfter = 90 * time.Second

// run runs a promise in a goroutine of its own, so that a call that hangs fails the subtest, with all stacks, and no other.
func run(t *testing.T, p promise, start func(testing.TB) *cluster) {
	t.Run(p.name, func(t *testing.T) {
		t.Parallel() // most of them mostly wait
		c := start(t)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer c.close()
			p.test(c)
		}()
		watchdog := time.NewTimer(watchdogAfter)
		defer watchdog.Stop()
		select {
		case <-ended:
		case <-watchdog.C:
			stacks := make([]byte, 4<<20)
			t.Errorf("still not done after %v; all goroutines:\n%s", watchdogAfter, stacks[:runtime.Stack(stacks, true)])
		}
	})
}
