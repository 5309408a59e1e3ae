package main

import (
	"fmt"
	"strconv"
	"strings"

	"parley/cmd/internal/cli"
	"parley/cmd/parley-bench/load"
)

// processes are those of servers on the command line: PIDs that commas part, each after the name of its group or of the one
// before it: 1,2 or node=1,2,redis=3. Those of a flag that is repeated add up.
type processes []load.Process

// MarshalText implements encoding.TextMarshaler.
func (p processes) MarshalText() ([]byte, error) {
	var list cli.List
	for _, one := range p {
		list = append(list, fmt.Sprintf("%s=%d", one.Name, one.PID))
	}
	return list.MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *processes) UnmarshalText(text []byte) error {
	name := load.Together
	for s := range strings.SplitSeq(string(text), ",") {
		digits := s
		if before, after, named := strings.Cut(s, "="); named {
			name, digits = before, after
		}
		pid, err := strconv.Atoi(digits)
		if err != nil || pid <= 0 || name == "" {
			return fmt.Errorf("%q is neither PID nor NAME=PID", s)
		}
		*p = append(*p, load.Process{Name: name, PID: pid})
	}
	return nil
}
