//go:build !linux

package load

import (
	"context"
	"io"
)

// Where there is no epoll this package only says so.

type clock struct{}

func newClock() clock                      { return clock{} }
func (clock) now() int64                   { return 0 }
func MaxSockets() int                      { return 1 << 20 }
func (Process) cpu() (CPU, error)          { return CPU{}, ErrPlatform }
func (Process) resident() (int64, error)   { return 0, ErrPlatform }
func serveWorker(io.ReadWriteCloser) error { return ErrPlatform }

// Work answers ErrPlatform.
func Work(context.Context, io.Reader, io.Writer) error { return ErrPlatform }

// Floor answers ErrPlatform.
func Floor(context.Context, Plan, int, []string) (FloorReport, error) {
	return FloorReport{}, ErrPlatform
}
