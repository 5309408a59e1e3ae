package socket

import (
	"context"
	"net"
)

// Listen listens for clients. When nothing comes of one for long, the kernel asks whether it is there. Its connection has that from
// the listener where the system allows it: it would take four calls for each that is accepted.
func Listen(ctx context.Context, addr string, probes net.KeepAliveConfig) (net.Listener, error) {
	if set := inherited(probes); set != nil {
		lc := net.ListenConfig{KeepAlive: -1, Control: set}
		if ln, err := lc.Listen(ctx, "tcp", addr); err == nil {
			return plainListenerOf(ln, probes), nil
		}
	}
	lc := net.ListenConfig{KeepAliveConfig: probes}
	return lc.Listen(ctx, "tcp", addr)
}
