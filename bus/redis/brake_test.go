package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// A brake is a network that stops the first write that holds a text, until the release.
type brake struct {
	text             string
	reached, release chan struct{}
	once             sync.Once
}

func newBrake(text string) *brake {
	return &brake{text: text, reached: make(chan struct{}), release: make(chan struct{})}
}

func (b *brake) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &brakedConn{c, b}, err
}

type brakedConn struct {
	net.Conn
	brake *brake
}

func (c *brakedConn) Write(written []byte) (int, error) {
	if b := c.brake; bytes.Contains(written, []byte(b.text)) {
		b.once.Do(func() {
			close(b.reached)
			select {
			case <-b.release:
			case <-time.After(patience):
			}
		})
	}
	return c.Conn.Write(written)
}

// openBraked opens a node of a Cluster, in a room, over a brake. All that it says goes over one link.
func openBraked(t *testing.T, servers *bustest.RedisCluster, text, room string) (*brake, *clusterNode) {
	t.Helper()
	b := newBrake(text)
	cfg := redis.Config{URL: servers.URL(), Links: 1, Timeout: patience}
	cfg.SetDial(b.dial)
	return b, openClusterNode(t, cfg, room)
}

// sayTen says ten messages, of which the brake stops the first and the others wait behind it, and gives them and what comes of them.
func sayTen(n *clusterNode, room string, b *brake) (said []string, outcomes chan error) {
	said, outcomes = []string{b.text}, make(chan error, 10)
	for i := range cap(outcomes) {
		if i > 0 {
			said = append(said, fmt.Sprint("said then ", i))
		}
		n.Publish(room, bus.Draft{Body: []byte(said[i])}, func(_ bus.ID, err error) { outcomes <- err })
		<-b.reached
	}
	return said, outcomes
}
