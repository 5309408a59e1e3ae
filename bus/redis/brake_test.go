package redis_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"
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
