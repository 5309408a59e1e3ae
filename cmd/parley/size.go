package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// byteSize is a number of bytes on the command line: 4096, 4KiB or 1MiB.
type byteSize int

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *byteSize) UnmarshalText(text []byte) error {
	number, unit := string(text), 1
	for suffix, bytes := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = n, bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n > uint64(math.MaxInt32/unit) {
		return errors.New("expected a number of bytes such as 4096, 4KiB or 1MiB")
	}
	*s = byteSize(n) * byteSize(unit)
	return nil
}
