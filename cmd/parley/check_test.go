package main

import (
	"io"
	"strings"
	"testing"
)

// Each bound of a flag holds where it says: the last value that is taken, and the first that is not.
func TestFlagsAreTakenUpToTheirBounds(t *testing.T) {
	for flag, values := range map[string][]string{ // the good before the bad
		"--history-size":     {"1", "1000000", "", "0", "1000001"},
		"--history-bytes":    {"64KiB", "2047MiB", "", "65535", "2048MiB"},
		"--max-text":         {"1", "32KiB", "", "0", "32769"},
		"--queue":            {"64KiB", "64MiB", "", "65535", "67108865"},
		"--presence-limit":   {"1", "", "0"},
		"--history-ttl":      {"1s", "876000h", "", "999ms", "876000h1s"},
		"--ping":             {"1s", "10m", "", "999ms", "601s"},
		"--drain":            {"1ns", "24h", "", "0s", "24h1s"},
		"--redis-replicas":   {"0", "16", "", "-1", "17"},
		"--redis-wait-start": {"0s", "", "-1s"},
		"--message-burst":    {"1", "", "0"},
		"--message-rate":     {"0", "", "-1"},
		"--token-life":       {"1m", "", "59s"},
	} {
		wantTaken(t, flag, values)
	}
	for _, flag := range []string{
		"--max-connections", "--address-connections", "--address-attempts", "--address-requests", "--address-rooms", "--user-rate",
		"--user-connections", "--connection-rooms",
	} {
		wantTaken(t, flag, []string{"0", "", "-1"})
	}
}

// wantTaken checks that a node could start with each value before the empty one, and that the others are refused by the flag's name.
func wantTaken(t *testing.T, flag string, values []string) {
	t.Helper()
	good := true
	for _, v := range values {
		if v == "" {
			good = false
			continue
		}
		err := run(t.Context(), []string{"serve", "--check", flag + "=" + v}, nil, io.Discard, io.Discard)
		if good && err != nil || !good && (err == nil || !strings.Contains(err.Error(), flag) && !strings.Contains(err.Error(), "a limit must be")) {
			t.Errorf("%s=%s: %v", flag, v, err)
		}
	}
}
