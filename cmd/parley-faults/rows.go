package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus/bustest"
)

var durable = []string{"appendonly yes", "appendfsync always"}

// faults are the rows of the table, each alone.
func faults() []fault {
	return []fault{
		// Nodes.
		{name: "a node is killed", mix: "nodes", strike: killNode, must: clients},
		{name: "300 clients of a killed node", strike: killNode, must: clients, clients: 300, home: true, large: true},
		{name: "a node stands still", mix: "nodes", strike: freezeNode, must: delays},
		{name: "the log is trimmed past a node that stands still", strike: trimPastNode, must: entries, node: []string{"--history-size", "20"}, whole: elsewhere},
		{name: "rolling restart", mix: "nodes", strike: rollingRestart, must: clients},

		// Redis, which loses nothing.
		{name: "Redis is killed, with its append-only file", mix: "redis", strike: restartRedis, must: refusals, redis: durable, stay: true},
		{name: "Redis stands still", mix: "redis", strike: pauseRedis, must: delays, stay: true, large: true},
		{name: "Redis stands still, and clients change nodes", strike: pauseRedisUnderChange, must: clients},
		{name: "CLIENT KILL of subscribers", mix: "redis", strike: killClients("pubsub"), must: links, stay: true},
		{name: "CLIENT KILL of all others", mix: "redis", strike: killClients("normal"), must: links, stay: true},
		{name: "SCRIPT FLUSH", mix: "redis", strike: flushScripts, must: effects, stay: true},
		{name: "BUSY", mix: "redis", strike: busy, must: delays, redis: []string{"busy-reply-threshold 200"}, stay: true},
		{name: "LOADING", strike: loading, must: refusals, redis: append([]string{"key-load-delay 2000", "loading-process-events-interval-bytes 1024"}, durable...), stay: true},
		{name: "maxmemory is reached and lifted", mix: "redis", strike: fill, must: refusals, ready: true},
		{name: "the password changes, and back", strike: changePassword, must: refusals, redis: userLine, user: true, stay: true},
		{name: "the user loses its channels, and back", strike: loseChannels, must: links, redis: userLine, user: true, stay: true},
		{name: "the user loses one room's channel, and back", strike: loseChannel, must: links, redis: userLine, user: true, ready: true, stay: true},
		{name: "an output buffer overruns", mix: "redis", strike: overrun, must: links, bytes: 3 << 10, stay: true},

		// Redis, which loses.
		{name: "FLUSHALL", mix: "redis", strike: flushAll, must: entries},
		{name: "the log is rolled back underneath", mix: "redis", strike: rollBack, must: entries},
		{name: "Redis is restarted from an old dump", mix: "redis", strike: oldDump, must: entries},
		{name: "a replica is promoted without the tail", mix: "redis", strike: promoteWithoutTail, must: entries},
		{name: "the same, and its rooms are empty", strike: promoteWithEmptyRooms, must: entries, calm: true, large: true},
		{name: "the same, and back again", strike: promoteTwice, must: entries},

		// Redis, which moves.
		{name: "FAILOVER, and connections stay", mix: "redis", strike: failover, must: links, stay: true},
		{name: "a primary is demoted, and connections stay", strike: demote, must: links},

		// The network between nodes and Redis.
		{name: "the network is cut", mix: "network", strike: cutNetwork, must: refusals, stay: true},
		{name: "the network is a black hole for one node", mix: "network", strike: blackHole(1), must: refusals, stay: true},
		{name: "the network is a black hole for all", strike: blackHole(3), must: refusals, stay: true, large: true},
		{name: "the network is slow", mix: "network", strike: slow, must: effects, stay: true},
		{name: "the network is narrow", mix: "network", strike: narrow, must: effects, bytes: 1 << 10, stay: true},
		{name: "answers break off in the middle", mix: "network", strike: tear, must: refusals, stay: true},

		// Redis with sentinels.
		{name: "sentinels fail over by command", strike: sentinelFailover, must: links, on: sentinels, stay: true},
		{name: "sentinels replace a killed primary", strike: sentinelKill, must: refusals, on: sentinels, stay: true},
		{name: "sentinels replace a primary that stands still", strike: sentinelPause, must: delays, on: sentinels, stay: true},
		{name: "sentinels promote a replica without the tail", strike: sentinelTail, must: entries, on: sentinels},
		{name: "the old primary is cut off, and answers nodes", strike: sentinelSplit, must: entries, on: sentinels},
		{name: "no sentinel answers", strike: noSentinel, must: links, on: sentinels, stay: true},

		// A Redis Cluster.
		{name: "a shard's primary is killed", strike: shardKilled, must: refusals, on: cluster, stay: true, ready: true},
		{name: "each shard fails over by command", strike: shardsFailOver, must: links, on: cluster, stay: true},
		{name: "a shard loses its tail", strike: shardTail, must: entries, on: cluster},
		{name: "each room's slot moves", strike: slotsMove, must: effects, on: cluster, stay: true, ready: true},
		{name: "a slot is half moved for 10 s", strike: slotHeld, must: effects, on: cluster, stay: true, ready: true, large: true},
		{name: "a shard is away", strike: shardAway, must: refusals, on: cluster, stay: true, ready: true},
		{name: "CLIENT KILL at all shards", strike: shardsClientKill, must: links, on: cluster, stay: true},

		// Clients.
		{name: "clients read nothing for a while", mix: "clients", strike: readNothing, must: effects, bytes: 12000, node: []string{"--queue", "64KiB", "--max-text", "16KiB"}},
		{name: "clients are cut in mid-send, and go elsewhere", mix: "clients", strike: cutClients, must: clients},
		{name: "clients come back to a node that hears late", mix: "clients", strike: comeBack, must: clients},
	}
}

// admin talks to Redis, past everything that lies between it and nodes.
func (tr *trial) admin() *redis.Client { return tr.redis.Client() }

// must fails the row if Redis does not do as it is told.
func (tr *trial) do(c *redis.Client, args ...any) string {
	tr.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tr.patience)
	defer cancel()
	answer, err := c.Do(ctx, args...).Result()
	if err != nil {
		tr.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(answer)
}

// meanwhile lets time pass.
func (tr *trial) meanwhile(d time.Duration) { time.Sleep(d) }

// killNode kills a node in the midst of things. Its clients go elsewhere, and home when it is back.
func killNode(tr *trial) {
	st := tr.stations[0]
	st.kill()
	tr.pass()
	st.start()
	for _, m := range tr.present() {
		if m.route.stations[0] == st {
			m.route.cut(true)
		}
	}
}

// freezeNode stops a node for so long that the others take it for dead.
func freezeNode(tr *trial) {
	tr.stations[0].freeze()
	tr.meanwhile(tr.long * 3 / 4)
	tr.stations[0].thaw()
}

// trimPastNode stops a node, cut off from Redis, until the log of each room has lost what that node has not heard.
func trimPastNode(tr *trial) {
	tr.stations[0].freeze()
	tr.networks[0].cut()
	before := tr.ackedIn(tr.roomNames)
	enough := func() bool {
		for _, room := range tr.roomNames {
			if len(tr.acked[room]) < before[room]+200 { // Redis trims a hundred at a time
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(tr.long); time.Now().Before(end) && !tr.await(tr.traffic/4, enough); {
		tr.urge()
	}
	tr.networks[0].mend()
	tr.stations[0].thaw()
}

// elsewhere are the members who are never at the node that stood still.
func elsewhere(tr *trial, m *member) bool {
	return m.route.stations[0] != tr.stations[0] && m.route.dials() == 1
}

// rollingRestart replaces all nodes, one after the other.
func rollingRestart(tr *trial) {
	for _, st := range tr.stations {
		tr.urge()
		st.drain()
		st.start()
		tr.pass()
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for why, n := range tr.cuts {
		if tr.alone && !strings.Contains(why, "1012") && !strings.HasPrefix(why, errHungUp.Error()) {
			tr.Errorf("%d clients were not told that the node restarts: %s", n, why)
		}
	}
}

func restartRedis(tr *trial) {
	for range 2 {
		tr.urge()
		tr.redis.Kill()
		tr.meanwhile(tr.traffic)
		tr.redis.Restart()
		tr.pass()
	}
}

func pauseRedis(tr *trial) {
	tr.redis.Pause()
	tr.meanwhile(tr.long)
	tr.redis.Resume()
}

// pauseRedisUnderChange cuts clients one after the other while Redis stands still: they come back elsewhere.
func pauseRedisUnderChange(tr *trial) {
	tr.redis.Pause()
	end := time.Now().Add(tr.long)
	for _, m := range tr.present() {
		m.route.cut(false)
		tr.meanwhile(200 * time.Millisecond)
		if time.Now().After(end) {
			break
		}
	}
	tr.meanwhile(time.Until(end))
	tr.redis.Resume()
}

// killClients ends connections of nodes of one kind, several times over.
func killClients(kind string) func(*trial) {
	return func(tr *trial) {
		c := tr.admin()
		for range 5 {
			tr.urge()
			ctx, cancel := context.WithTimeout(context.Background(), tr.patience)
			n, err := c.ClientKillByFilter(ctx, "TYPE", kind).Result()
			cancel()
			if err != nil {
				tr.Fatal(err)
			}
			tr.broke(int(n))
			tr.meanwhile(tr.traffic / 2)
		}
	}
}

func flushScripts(tr *trial) {
	c := tr.admin()
	for range 10 {
		tr.urge()
		tr.do(c, "script", "flush")
		tr.meanwhile(tr.traffic / 10)
	}
	_, missed, _ := strings.Cut(tr.do(c, "info", "errorstats"), "errorstat_NOSCRIPT:count=")
	tr.effect(missed, "scripts missed")
}

// busy has Redis run a script for a while, which it then answers BUSY.
func busy(tr *trial) {
	c, other := tr.admin(), tr.admin()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), tr.long+tr.patience)
		defer cancel()
		c.Eval(ctx, "while true do end", nil)
	}()
	tr.meanwhile(tr.long * 2 / 3)
	tr.do(other, "script", "kill")
	<-done
}

// loading restarts Redis with so much to load that it answers LOADING for a while.
func loading(tr *trial) {
	tr.do(tr.admin(), "eval", "for i = 1, 2500 do redis.call('set', 'load' .. i, string.rep('x', 1000)) end return 1", 0)
	tr.redis.Reload()
	tr.meanwhile(tr.traffic)
	c := tr.admin()
	for deadline := time.Now().Add(tr.patience); ; time.Sleep(50 * time.Millisecond) {
		if err := c.Ping(context.Background()).Err(); err == nil {
			return
		} else if time.Now().After(deadline) {
			tr.Fatalf("Redis does not end to load: %v", err)
		}
	}
}

// fill lets Redis have no more memory for a while. Some clients change nodes meanwhile.
func fill(tr *trial) {
	c := tr.admin()
	tr.do(c, "config", "set", "maxmemory", "1")
	for i, m := range tr.present() {
		if i%4 == 0 {
			m.route.cut(false)
			tr.meanwhile(tr.traffic / 10)
		}
	}
	tr.meanwhile(tr.long)
	tr.do(c, "config", "set", "maxmemory", "0")
}

var userLine = []string{"user parley on >old ~* &* +@all"}

func changePassword(tr *trial) {
	c := tr.admin()
	tr.do(c, "acl", "setuser", "parley", "resetpass", ">new")
	ctx, cancel := context.WithTimeout(context.Background(), tr.patience)
	defer cancel()
	n, err := c.ClientKillByFilter(ctx, "USER", "parley").Result()
	if err != nil {
		tr.Fatal(err)
	}
	tr.broke(int(n))
	tr.meanwhile(tr.long / 2)
	tr.do(c, "acl", "setuser", "parley", ">old")
}

func loseChannels(tr *trial) {
	c := tr.admin()
	before := tr.connections(c)
	tr.do(c, "acl", "setuser", "parley", "resetchannels")
	tr.broke(before) // Redis ends the connections that are subscribed to what is forbidden
	tr.meanwhile(tr.long / 2)
	tr.do(c, "acl", "setuser", "parley", "allchannels")
}

// loseChannel forbids the channel of one room. The others must go on.
func loseChannel(tr *trial) {
	c := tr.admin()
	tr.broke(tr.connections(c))
	allowed := []any{"acl", "setuser", "parley", "resetchannels", "&parley:beat:*"}
	for _, room := range tr.roomNames[1:] {
		allowed = append(allowed, "&parley:*:{"+room+"}")
	}
	tr.do(c, allowed...)
	tr.meanwhile(tr.long / 4)
	before := tr.ackedIn(tr.roomNames[1:])
	tr.meanwhile(tr.long / 4)
	for room, n := range before {
		if tr.ackedIn([]string{room})[room] == n {
			tr.Errorf("nothing is acknowledged in %s, whose channel is not forbidden", room)
		}
	}
	tr.do(c, "acl", "setuser", "parley", "allchannels")
}

func (tr *trial) ackedIn(rooms []string) map[string]int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := make(map[string]int)
	for _, room := range rooms {
		n[room] = len(tr.acked[room])
	}
	return n
}

// connections counts those that are subscribed to something.
func (tr *trial) connections(c *redis.Client) int {
	tr.Helper()
	return strings.Count(tr.do(c, "client", "list", "type", "pubsub"), "\n")
}

// overrun lets Redis keep next to nothing for subscribers while everyone says much.
func overrun(tr *trial) {
	c := tr.admin()
	before := tr.reconnects()
	tr.do(c, "config", "set", "client-output-buffer-limit", "pubsub 1 0 0")
	for range 8 {
		tr.urge()
		tr.meanwhile(tr.traffic / 4)
	}
	tr.do(c, "config", "set", "client-output-buffer-limit", "pubsub 33554432 8388608 60")
	tr.meanwhile(tr.traffic)
	tr.broke(tr.reconnects() - before)
}

// reconnects counts the connections of nodes that were replaced.
func (tr *trial) reconnects() int { return tr.metric("parley_bus_reconnects_total") }

// metric sums up a counter of all nodes.
func (tr *trial) metric(name string) (sum int) {
	for _, st := range tr.stations {
		_, body, _ := st.get("/metrics")
		for line := range strings.Lines(string(body)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				var n float64
				fmt.Sscan(value, &n)
				sum += int(n)
			}
		}
	}
	return sum
}

// across loses what was said after a fork. Some clients are away from before the fork, some from then on, and some are cut as
// it happens: they come back at once or later, with cursors from before what is lost and from the midst of it.
func (tr *trial) across(fork, lose func()) {
	var groups [4][]*member
	for i, m := range tr.present() {
		groups[i%4] = append(groups[i%4], m)
	}
	before, midst, cut := groups[0], groups[1], groups[2]
	for _, m := range before {
		m.route.close()
	}
	if fork != nil {
		fork()
	}
	tr.pass()
	for _, m := range midst {
		m.route.close()
	}
	tr.meanwhile(tr.traffic / 2)
	tr.urge()
	tr.awaitAcks(1)
	lose()
	tr.lost = append(tr.lost, time.Now())
	for _, some := range [][]*member{before[:len(before)/2], midst[:len(midst)/2], cut} {
		for _, m := range some {
			m.route.open()
			if len(some) == len(cut) {
				m.route.cut(false)
			}
			tr.meanwhile(20 * time.Millisecond)
		}
	}
	tr.pass()
	for _, m := range append(before, midst...) {
		m.route.open()
	}
}

func flushAll(tr *trial) {
	tr.across(nil, func() {
		tr.see(tr.admin(), func(p redis.Pipeliner) { p.FlushAll(context.Background()) })
	})
}

// rollBack puts the keys of rooms back as they were a while ago, in one step and under the nodes' hands.
func rollBack(tr *trial) {
	c := tr.admin()
	ctx := context.Background()
	dumps := make(map[string]*redis.StringCmd)
	tr.across(func() {
		_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for _, room := range tr.roomNames {
				for _, key := range []string{"log", "last", "ka", "kb"} {
					name := "parley:{" + room + "}:" + key
					dumps[name] = p.Dump(ctx, name)
				}
			}
			return nil
		})
		if err != nil && err != redis.Nil {
			tr.Fatal(err)
		}
	}, func() {
		tr.see(c, func(p redis.Pipeliner) {
			for name, dump := range dumps {
				if dump.Err() == nil {
					p.RestoreReplace(ctx, name, time.Hour, dump.Val())
				} else {
					p.Del(ctx, name)
				}
			}
		})
	})
}

func oldDump(tr *trial) {
	tr.across(func() { tr.do(tr.admin(), "save") }, func() {
		tr.see(tr.admin(), nil)
		tr.redis.Restart()
	})
}

// replica starts a server that has all that the primary has, and follows it.
func (tr *trial) replica() *bustest.RedisServer {
	tr.Helper()
	r := bustest.StartRedisTCP(tr.TB, "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")
	tr.follow(r, tr.redis)
	return r
}

func (tr *trial) follow(r, primary *bustest.RedisServer) {
	tr.Helper()
	host, port, _ := net.SplitHostPort(primary.Addr())
	c := r.Client()
	tr.do(c, "replicaof", host, port)
	p := primary.Client()
	online := func() bool {
		_, own, _ := net.SplitHostPort(r.Addr())
		return strings.Contains(tr.do(c, "info", "replication"), "master_link_status:up") &&
			strings.Contains(tr.do(p, "info", "replication"), "port="+own+",state=online")
	}
	for deadline := time.Now().Add(tr.patience); !online(); {
		if time.Now().After(deadline) {
			tr.Fatal("the replica does not follow")
		}
		tr.meanwhile(20 * time.Millisecond)
	}
}

// promote makes a replica that has fallen behind the primary. The old one dies.
func (tr *trial) promote(r *bustest.RedisServer) {
	tr.see(tr.admin(), nil)
	tr.address.move(r.Addr())
	old := tr.redis
	tr.redis = r
	old.Kill()
	tr.broke(tr.address.cut())
}

// promoteWithoutTail promotes a replica that lacks what was said for a while.
func promoteWithoutTail(tr *trial) {
	r := tr.replica()
	tr.across(func() { tr.do(r.Client(), "replicaof", "no", "one") }, func() { tr.promote(r) })
}

// promoteWithEmptyRooms promotes while nobody is in any room, and nodes have forgotten them.
func promoteWithEmptyRooms(tr *trial) {
	r := tr.replica()
	all := tr.present()
	for i, m := range all { // their cursors are from before what is lost
		if i%4 == 0 {
			m.route.close()
		}
	}
	tr.meanwhile(tr.traffic / 3)
	tr.do(r.Client(), "replicaof", "no", "one")
	tr.pass()
	tr.urge()
	tr.awaitAcks(1)
	for _, m := range all {
		m.route.close()
	}
	tr.meanwhile(13 * time.Second) // a node keeps a room for 10 s after its last member
	tr.promote(r)
	tr.meanwhile(tr.traffic)
	for _, m := range all {
		m.route.open()
		tr.meanwhile(20 * time.Millisecond)
	}
}

// promoteTwice loses the tail, and soon after that what came next, the marker too. The second replica follows the first, so that
// it has nothing which that lacks: an entry that was lost, told as a gap, and is there again is heard again.
func promoteTwice(tr *trial) {
	first, second := tr.replica(), tr.replica()
	tr.follow(second, first)
	tr.across(func() {
		for _, r := range []*bustest.RedisServer{first, second} {
			tr.do(r.Client(), "replicaof", "no", "one")
		}
	}, func() {
		tr.promote(first)
		tr.meanwhile(tr.traffic)
		tr.promote(second)
	})
}

// failover has Redis change roles as it offers to: nothing is lost, and connections stay.
func failover(tr *trial) {
	r := tr.replica()
	host, port, _ := net.SplitHostPort(r.Addr())
	before := tr.reconnects()
	tr.do(tr.admin(), "failover", "to", host, port)
	for deadline := time.Now().Add(tr.patience); !strings.Contains(tr.do(r.Client(), "info", "replication"), "role:master"); {
		if time.Now().After(deadline) {
			tr.Fatal("no failover")
		}
		tr.meanwhile(10 * time.Millisecond)
	}
	tr.address.move(r.Addr())
	tr.redis = r
	tr.meanwhile(tr.long / 2)
	tr.broke(tr.reconnects() - before) // nodes left the old primary of their own accord
}

// demote makes the primary a replica of a replica without the tail. Connections stay; new ones lead to the new primary.
func demote(tr *trial) {
	r := tr.replica()
	before := tr.reconnects()
	tr.across(func() { tr.do(r.Client(), "replicaof", "no", "one") }, func() {
		old := tr.redis
		tr.see(old.Client(), nil)
		tr.address.move(r.Addr())
		tr.redis = r
		tr.follow(old, r)
	})
	tr.meanwhile(tr.long / 2)
	tr.broke(tr.reconnects() - before)
}

func cutNetwork(tr *trial) {
	for range 2 {
		tr.urge()
		for _, n := range tr.networks {
			n.cut()
		}
		tr.meanwhile(tr.traffic)
		for _, n := range tr.networks {
			n.mend()
		}
		tr.pass()
	}
}

// blackHole lets nothing pass between so many nodes and Redis, and breaks no connection.
func blackHole(nodes int) func(*trial) {
	return func(tr *trial) {
		cure := poison(tr.networks[:nodes], "timeout", map[string]any{"timeout": 0}, "upstream", "downstream")
		tr.meanwhile(tr.long * 2 / 3)
		cure()
	}
}

func slow(tr *trial) {
	before := tr.metric("parley_publish_duration_seconds_sum")
	cure := poison(tr.networks[:], "latency", map[string]any{"latency": 400, "jitter": 300}, "downstream")
	tr.meanwhile(tr.long / 2)
	cure()
	tr.effect(fmt.Sprint(tr.metric("parley_publish_duration_seconds_sum")-before), "s of waiting")
}

// narrow lets 50 KB a second pass to each node.
func narrow(tr *trial) {
	before := tr.metric("parley_publish_duration_seconds_sum")
	cure := poison(tr.networks[:], "bandwidth", map[string]any{"rate": 50}, "downstream")
	for range 4 {
		tr.urge()
		tr.meanwhile(tr.long / 8)
	}
	cure()
	tr.effect(fmt.Sprint(tr.metric("parley_publish_duration_seconds_sum")-before), "s of waiting")
}

// tear breaks each connection once so many bytes came over it, wherever that is in an answer.
func tear(tr *trial) {
	for i := range 4 {
		cure := poison(tr.networks[:], "limit_data", map[string]any{"bytes": 5000 + 777*i}, "downstream")
		tr.urge()
		tr.meanwhile(tr.traffic / 2)
		cure()
		tr.meanwhile(tr.traffic / 2)
	}
}

// readNothing has some clients read nothing while much is said: they hold up nobody, and get it all later.
func readNothing(tr *trial) {
	var deaf, others []*member
	for i, m := range tr.present() {
		if m.kind() == "plain" && i%4 == 0 {
			deaf = append(deaf, m)
			m.read(false)
		} else {
			others = append(others, m)
		}
	}
	busy := func(m *member) bool { return m.open > 3 } // more than talk says at once
	overflows := 0
	for began := time.Now(); time.Since(began) < tr.long/2 || overflows == 0 && time.Since(began) < tr.long/2+tr.patience; {
		urge(others)
		tr.meanwhile(tr.traffic / 4)
		tr.await(tr.patience, func() bool { return !slices.ContainsFunc(others, busy) }) // no more than the machine takes
		overflows = tr.metric("parley_queue_overflows_total")
	}
	for _, m := range deaf {
		m.read(true)
	}
	tr.effect(fmt.Sprint(overflows), "queues overflowed")
}

// comeBack has clients come back one after the other while all others talk, many of them to a node that hears of it late:
// whatever was acknowledged before they asked is not new to them.
func comeBack(tr *trial) {
	cure := poison(tr.networks[1:2], "latency", map[string]any{"latency": 200}, "upstream", "downstream")
	for range 5 {
		tr.urge()
		for _, m := range tr.present() {
			tr.awaitAcks(1)
			m.route.cut(false)
		}
		tr.meanwhile(tr.traffic / 4)
	}
	cure()
}

// cutClients cuts everyone's connection while what they said has no answer yet: they say it again over another node.
func cutClients(tr *trial) {
	for range 5 {
		tr.clamour()
		for _, m := range tr.present() {
			m.route.cut(false)
		}
		tr.meanwhile(tr.traffic / 2)
	}
}
