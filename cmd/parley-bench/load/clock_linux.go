package load

import (
	"time"

	"golang.org/x/sys/unix"
)

// A clock tells the nanoseconds of the system's monotonic clock, which is one for all processes of the machine.
type clock struct {
	base time.Time
	mono int64
}

func newClock() clock {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // Linux always has it
	}
	return clock{base: time.Now(), mono: ts.Nano()}
}

func (c clock) now() int64 { return c.mono + int64(time.Since(c.base)) }
