//go:build !linux

package socket

// A poller watches connections that are idle. Elsewhere there is none: each has a goroutine.
type poller struct{}

func newPoller() (*poller, error) { return nil, nil }

func (*poller) park(*Conn) bool { return false }

func (*poller) remove(*Conn) {}

func (*poller) close() {}
