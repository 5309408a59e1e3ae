package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd how the node is, if it was started by that (sd_notify(3)).
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd can't be told", "state", state, "err", err)
	}
}

// keepWatchdog tells systemd again and again that the node lives, until ctx is done; it ends a node that has not said so for
// WatchdogSec. The node says nothing as long as alive does not return.
func keepWatchdog(ctx context.Context, log *slog.Logger, alive func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog can't be told", "err", err)
	}
	if limit <= 0 || err != nil {
		return
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			alive()
			notify(log, daemon.SdNotifyWatchdog)
		}
	}
}
