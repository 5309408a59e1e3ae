package node_test

import (
	"fmt"
	"testing"

	"parley/node/nodetest"
)

// All members speak at once: more of them than the poller reads by itself, and more members on each node than a room that is flushed by
// who brings a message has.
func TestALargeRoomThatSpeaksAtOnceIsHeardByAllInOneOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		const members, each = 72, 3
		c := start(t, 2)
		peers := make([]*nodetest.Peer, members)
		for i := range peers {
			peers[i] = nodetest.Dial(t, c.Nodes[i%2].URL("/"))
			peers[i].Join("lobby", `"limit":0`)
		}
		for i, p := range peers {
			for n := range each {
				p.Say(`{"op":"send","room":"lobby","text":"%d of %d","key":"%d"}`, n, i, n)
			}
		}
		var first []string
		for i, p := range peers {
			var heard []string
			for len(heard) < each*members {
				heard = append(heard, p.Until("message").Text)
			}
			if first == nil {
				first = heard
			}
			if fmt.Sprint(heard) != fmt.Sprint(first) {
				t.Errorf("member %d heard\n%v\nand member 0\n%v", i, heard, first)
			}
		}
	})
}
