//go:build !linux

package node

// A lot parks connections that are idle. Elsewhere there is none: each has a goroutine.
type lot struct{}

func newLot() (*lot, error) { return nil, nil }

func (*lot) park(*session) bool { return false }

func (*lot) remove(*session) {}

func (*lot) close() {}
