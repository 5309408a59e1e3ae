package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/cmd/parley-faults/judge"
)

// A fault is a row of the table: what happens to a cluster under traffic.
type fault struct {
	name   string
	strike func(*trial)
	must   harm // what it has to destroy: a row that destroys nothing shows nothing

	on      servers  // what nodes are on
	redis   []string // lines of redis.conf
	node    []string // flags of nodes
	user    bool     // nodes have a user in Redis, "parley" with the password "old"
	home    bool     // all clients are at the first node
	parley  string   // the program that nodes begin with, if it is not the one to judge
	missing error    // why it cannot be run here, which is no failure
	clients int      // how many, if not as many as usual
	bytes   int      // of a message
	mix     string   // what it breaks, for mixes of faults: one of a kind at a time; not in mixes without
	stay    bool     // no client may lose its connection
	ready   bool     // nodes have to be ready throughout
	calm    bool     // nobody comes or goes meanwhile, but for what the fault does itself
	large   bool     // it takes long, or the whole machine: the short form leaves it out, unless it is named

	whole func(*trial, *member) bool // who is to be told of no gap, whatever Redis has lost
}

// servers are what nodes are on.
type servers int

const (
	aServer   servers = iota // alone
	sentinels                // a primary and two replicas, and three sentinels
	cluster                  // three primaries with a replica each
)

// harm is a kind of destruction, by the column that counts it.
type harm int

const (
	entries  harm = iota // acknowledged, and gone from Redis
	clients              // connections of clients cut
	links                // connections of nodes to Redis broken
	refusals             // answers that said unavailable
	delays               // answers that came late
	effects              // what the fault itself counts
	nothing              // of a mix
)

// A result is a row's.
type result struct {
	judge.Verdict
	name           string
	said           int
	cut            int
	cuts           map[string]int // by reason
	links          int
	refused        int
	effects        int
	effectsAre     string
	slowest        time.Duration
	unready, ready time.Duration
	took           time.Duration
	failed         []string // besides what the verdict counts
	unrun          string   // why it does not count as run
	excused        bool     // and that is no failure
	note           string   // what else is to be said of a row that holds
}

func (r *result) ok() bool {
	return r.Wrong() == 0 && len(r.failed) == 0 && (r.unrun == "" || r.excused)
}

// readyWithin is how long nodes may take to be ready after a fault.
const readyWithin = 10 * time.Second

// run gives the row of a fault.
func (f fault) run(t testing.TB, s scale, parley string) result {
	tr := begin(t, s, cmp.Or(f.parley, parley), f)
	tr.bytes.Store(int64(f.bytes))
	tr.talk()
	tr.pass()
	tr.clamour()
	tr.mu.Lock()
	tr.struck = time.Now()
	tr.mu.Unlock()
	if !f.calm {
		tr.churning.Go(func() {
			time.Sleep(s.traffic / 2)
			tr.turnover()
		})
	}
	f.strike(tr)
	tr.mu.Lock()
	tr.lifted = time.Now()
	tr.mu.Unlock()
	tr.pass()
	r := tr.settle()
	if f.whole != nil {
		tr.checkWhole(f.whole)
	}
	r.unready, r.ready = tr.readiness()
	if r.ready > readyWithin {
		t.Errorf("nodes were ready %s after the end", r.ready.Round(100*time.Millisecond))
	}
	if f.ready && r.unready > 0 {
		t.Errorf("nodes were not ready from %s on until %s after the end", r.unready.Round(100*time.Millisecond), r.ready.Round(100*time.Millisecond))
	}
	if f.stay && r.cut > 0 {
		t.Errorf("%d connections of clients were lost, for which this is no reason", r.cut)
	}
	destroyed := map[harm]int{entries: r.Gone, clients: r.cut, links: r.links, effects: r.effects, refusals: r.refused, delays: int(r.slowest / (2 * time.Second))}
	if f.must != nothing && destroyed[f.must] == 0 {
		r.unrun = "it destroyed nothing"
	}
	for _, st := range tr.stations {
		st.drain()
		st.checkLog()
		if !r.ok() || t.Failed() {
			t.Logf("%s said:\n%s", st.name, st.lastWords())
		}
	}
	return r
}

// checkWhole fails the row if a member was told of a gap that is none of its own, or if nobody else was told of one.
func (tr *trial) checkWhole(whole func(*trial, *member) bool) {
	tr.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	told, kept := 0, 0
	for _, m := range tr.members {
		gap := slices.ContainsFunc(m.told, func(e judge.Event) bool { return e.Kind == judge.Gap })
		switch {
		case whole(tr, m):
			kept++
			if gap {
				tr.Errorf("%s was told of a gap, and missed nothing", m.name())
			}
		case gap:
			told++
		}
	}
	if told == 0 || kept == 0 {
		tr.Errorf("%d members were told of a gap, and %d were to be told of none", told, kept)
	}
}

// perform gives the row of a fault, whatever becomes of it.
func (f fault) perform(s scale, parley string, errw io.Writer) result {
	if f.missing != nil {
		return result{name: f.name, unrun: f.missing.Error(), excused: true}
	}
	var r result
	failed := perform(f.name, errw, func(t testing.TB) { r = f.run(t, s, parley) })
	r.name, r.failed = f.name, append(r.failed, failed...)
	if len(failed) > 0 && r.took == 0 {
		r.unrun = failed[0]
	}
	return r
}

func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// what it destroyed, in words.
func (r *result) destroyed() string {
	var said []string
	for _, d := range []struct {
		count int
		what  string
	}{{r.Gone, "entries"}, {r.cut, "clients cut"}, {r.links, "links cut"}, {r.refused, "refused"}, {r.effects, r.effectsAre}} {
		if d.count > 0 {
			said = append(said, fmt.Sprint(d.count, " ", d.what))
		}
	}
	return strings.Join(said, ", ")
}
