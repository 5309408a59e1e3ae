//go:build !linux

package socket

import (
	"net"
	"time"
)

// Elsewhere everything is queued, and written by the drainer, and a goroutine reads each connection.
func socketOf(net.Conn) int { return -1 }

func writeNow(int, []byte) (int, error) { return 0, nil }

func (c *Conn) readSocket([]byte) (int, error) { return 0, net.ErrClosed }

func peekNow(int, []byte) int { return 0 }

func receiveNow(int, []byte) bool { return false }

func shutdownNow(int) bool { return false }

func giveUpAfter(int, time.Duration) {}

func progressOf(int) (progress, bool) { return progress{}, false }

func isOver(int) bool { return false }
