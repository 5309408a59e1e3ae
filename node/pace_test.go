package node

import (
	"testing"
	"testing/synctest"
	"time"

	"parley/node/wire"
)

// Who goes on in spite of being told to wait, because it had not heard yet, and waits then, is not closed for it in the long run.
func TestWhoWaitsAsToldIsForgivenWhatCameBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &Server{cfg: Config{Limits: Limits{Messages: 1, MessageBurst: 1}}.withDefaults()}
		s := &session{srv: srv, codec: jsonV1}
		for round := range 4 * maxIgnored {
			if bad := s.keepPace("send"); bad != nil {
				t.Fatalf("round %d: %v", round, bad)
			}
			var wait time.Duration
			for range 3 {
				bad := s.keepPace("send")
				if bad == nil || bad.Code != wire.RateLimited || bad.RetryAfter < time.Millisecond {
					t.Fatalf("round %d: %v", round, bad)
				}
				wait = bad.RetryAfter
			}
			time.Sleep(wait)
		}
	})
}
