package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of the times in /proc/PID/stat, the same on all of Linux's architectures.
const ticksPerSecond = 100

// cpu reads what the process has used so far, all threads.
func (p Process) cpu() (CPU, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return CPU{}, fmt.Errorf("process %d: %w", p.PID, err)
	}
	// The command's name, in parentheses, may hold anything; the fields after it are numbered from 3 (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return CPU{}, fmt.Errorf("process %d: /proc/%d/stat is not as expected", p.PID, p.PID)
	}
	user, err1 := strconv.ParseFloat(fields[14-3], 64)
	system, err2 := strconv.ParseFloat(fields[15-3], 64)
	if err1 != nil || err2 != nil {
		return CPU{}, fmt.Errorf("process %d: /proc/%d/stat is not as expected", p.PID, p.PID)
	}
	return CPU{user / ticksPerSecond, system / ticksPerSecond}, nil
}

// resident reads the process's resident memory, in bytes.
func (p Process) resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", p.PID, err)
	}
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(value)), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no memory of its own", p.PID)
}
