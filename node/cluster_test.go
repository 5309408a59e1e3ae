package node_test

import (
	"context"
	"log/slog"
	"testing"

	"parley/bus"
	"parley/bus/bustest"
	"parley/node"
	"parley/node/nodetest"
)

// onRedis runs n nodes on a Redis of their own.
func onRedis(t *testing.T, n int, each ...func(*node.Config)) (*nodetest.Cluster, *bustest.RedisServer) {
	t.Helper()
	redis := bustest.StartRedis(t)
	open := func(o bus.Observer) bus.Bus {
		b, err := bus.OpenRedis(context.Background(), bus.RedisConfig{
			URL: redis.URL(), Observer: o, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return nodetest.StartOn(t, n, open, each...), redis
}

func TestNodesOnRedisShareRooms(t *testing.T) {
	c, _ := onRedis(t, 3)
	var peers []*nodetest.Peer
	for _, nd := range c.Nodes {
		p := nodetest.Dial(t, nd.URL("/"))
		p.Join("lobby")
		peers = append(peers, p)
	}
	for i, from := range peers {
		sent := from.SendText("lobby", string(rune('a'+i)))
		for _, p := range peers {
			if m := p.Until("message"); m.ID != sent || m.From.ID != from.Welcome.User.ID {
				t.Errorf("got %s", nodetest.Show(m))
			}
		}
	}
	if j, backlog := nodetest.Dial(t, c.Nodes[1].URL("/")).Join("lobby"); j.Count != 4 || len(backlog) != 3 {
		t.Errorf("%d messages, %s", len(backlog), nodetest.Show(j))
	}
}
