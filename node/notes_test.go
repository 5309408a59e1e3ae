package node

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// At info one happening of a kind is logged in ten seconds, and says how many were not; at debug all are.
func TestHappeningsAreSampledAtInfo(t *testing.T) {
	for level, want := range map[slog.Level][]string{
		slog.LevelInfo:  {"INFO refused", "INFO slow", "INFO refused unlogged=2"},
		slog.LevelDebug: {"INFO refused", "DEBUG refused", "INFO slow", "DEBUG refused", "INFO refused unlogged=2"},
	} {
		t.Run(level.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				n := notes{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: level}))}
				n.note(refused)
				n.note(refused)
				n.note(slow)
				time.Sleep(noteEvery - 1)
				n.note(refused)
				time.Sleep(time.Nanosecond)
				n.note(refused)
				var got []string
				for line := range strings.Lines(log.String()) {
					line = strings.NewReplacer("level=", "", "msg=", "").Replace(strings.TrimSpace(line))
					_, line, _ = strings.Cut(line, " ") // the time
					got = append(got, line)
				}
				if !slices.Equal(got, want) {
					t.Errorf("logged %q, want %q", got, want)
				}
			})
		})
	}
}

// A request has one name, for its client, in the log, and with the proxy that it came through.
func TestRequestsHaveIDs(t *testing.T) {
	const theirs = "0f8b1a2c-1111-4222-8333-444455556666"
	for _, tt := range []struct {
		name, trusted, sent string
		kept                bool
	}{
		{"from a proxy", "127.0.0.0/8", theirs, true},
		{"from a client", "192.0.2.0/24", theirs, false},
		{"none", "127.0.0.0/8", "", false},
		{"long", "127.0.0.0/8", strings.Repeat("a", 65), false},
		{"what would be more in a log", "127.0.0.0/8", `a" user="root`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			debug := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			var within string
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { within = requestID(r.Context()) })
			s := httptest.NewServer(BehindProxies([]netip.Prefix{netip.MustParsePrefix(tt.trusted)}, h, debug))
			defer s.Close()
			seen := make(map[string]bool)
			for range 2 {
				log.Reset()
				req, _ := http.NewRequest("GET", s.URL, nil)
				req.Header.Set("X-Request-Id", tt.sent)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				id := res.Header.Get("X-Request-Id")
				if id == "" || tt.kept != (id == tt.sent) || id != within || !strings.Contains(log.String(), "request="+id+"\n") {
					t.Errorf("answered %q, handled as %q, logged %s", id, within, &log)
				}
				seen[id] = true
			}
			if tt.kept != (len(seen) == 1) {
				t.Errorf("two requests are %v", seen)
			}
		})
	}
}
