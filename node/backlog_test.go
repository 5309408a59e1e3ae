package node_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/bus/id"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// heard returns once every node has handed that message on: who joins then finds it in the backlog.
func heard(t *testing.T, c *nodetest.Cluster, room string, what id.ID) {
	t.Helper()
	for _, nd := range c.Nodes {
		p := nodetest.Dial(t, nd.URL("/"))
		_, backlog := p.Join(room, `"limit":1`)
		if !slices.ContainsFunc(backlog, func(f wire.Frame) bool { return f.ID == what }) {
			for p.Until("message").ID != what {
			}
		}
		p.Say(`{"op":"leave","room":%q}`, room)
		p.Until("ok")
		p.Cut()
	}
}

// said says something in a room over the first node, and returns once every node has handed it on.
func said(t *testing.T, c *nodetest.Cluster, room string, texts ...string) (ids []id.ID) {
	t.Helper()
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join(room, `"limit":0`)
	for _, text := range texts {
		ids = append(ids, p.SendText(room, text))
	}
	p.Say(`{"op":"leave","room":%q}`, room)
	p.Until("ok")
	p.Cut()
	heard(t, c, room, ids[len(ids)-1])
	return ids
}

// What was acknowledged before a join is in its backlog: nothing of it comes after live.
func TestWhatWasAcknowledgedBeforeAJoinComesBeforeLive(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	a := nodetest.Dial(t, c.Nodes[0].URL("/"))
	a.Join("lobby")
	for trial := range 30 {
		late := nodetest.Dial(t, c.Nodes[0].URL("/"))
		var last id.ID
		for i := range 10 {
			last = a.SendText("lobby", fmt.Sprint(trial, i))
		}
		j, backlog := late.Join("lobby", `"limit":1`)
		if len(backlog) != 1 || backlog[0].ID != last || j.Last != last {
			t.Fatalf("trial %d: %v was acknowledged; got %v and %s", trial, last, texts(backlog), nodetest.Show(j))
		}
		late.Cut()
	}
}

// A newcomer gets as many of the newest messages as it asks for, or as there are, whether the node was there when they were
// said or not, and however long they are.
func TestANewcomerGetsTheNewestHoweverLongTheyAre(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		said, bytes int
		roomy       bool
	}{
		"none":               {0, 0, true},
		"one":                {1, 10, true},
		"fewer than 50":      {49, 10, true},
		"fifty":              {50, 10, true},
		"long":               {70, 4000, true},
		"longer than queues": {210, 4000, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := nodetest.Start(t, 2, func(cfg *node.Config) {
				if !tc.roomy {
					cfg.QueueBytes = 16 << 10
				}
			})
			pad := " " + strings.Repeat("x", tc.bytes)
			var all []string
			for i := range tc.said {
				all = append(all, fmt.Sprint(i, pad))
			}
			first := nodetest.Dial(t, c.Nodes[0].URL("/")) // the first node holds the room from its beginning
			first.Join("lobby")
			if len(all) > 0 {
				said(t, &nodetest.Cluster{Nodes: c.Nodes[:1]}, "lobby", all...)
			}
			for where, nd := range c.Nodes { // the second one enters it with what is in the log
				for _, limit := range []int{-1, 0, 1, 2, 49, 50, 51, 200} {
					p := nodetest.Dial(t, nd.URL("/"))
					var extra []string
					n := limit
					if limit >= 0 {
						extra = append(extra, fmt.Sprintf(`"limit":%d`, limit))
					} else {
						n = 50
					}
					_, backlog := p.Join("lobby", extra...)
					want := all[max(0, len(all)-n):]
					if got := texts(backlog); !slices.Equal(got, want) {
						t.Errorf("node %d, limit %d: got %d messages, want %d", where, limit, len(got), len(want))
					}
					p.Cut()
				}
			}
		})
	}
}
