package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"parley/node/socket"
)

// listeners are the addresses of a node.
type listeners struct {
	public net.Listener
	admin  net.Listener // nil without --admin
}

// listen takes the addresses, before anything else needs undoing.
func (c *ServeCmd) listen(ctx context.Context) (l listeners, err error) {
	if l.public, err = listenOn(ctx, "--listen", c.Listen); err != nil {
		return l, err
	}
	if c.ProxyProtocol {
		l.public = proxiedListener(l.public, c.TrustedProxies)
	}
	if c.Admin != "" {
		if l.admin, err = listenOn(ctx, "--admin", c.Admin); err != nil {
			l.close()
		}
	}
	return l, err
}

// close is for listeners that may be served already: closing twice does no harm.
func (l listeners) close() {
	for _, ln := range []net.Listener{l.public, l.admin} {
		if ln != nil {
			ln.Close()
		}
	}
}

func listenOn(ctx context.Context, flag, addr string) (net.Listener, error) {
	ln, err := socket.Listen(ctx, addr, net.KeepAliveConfig{
		// Clients are pinged more often than this: only connections that never became one are probed.
		Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4,
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: the address is in use by another program", flag, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
	}
	return ln, nil
}

// servers are what listens on a node's addresses.
type servers struct {
	listeners     listeners
	public, admin *http.Server
	tls           bool
	serving       sync.WaitGroup
}

// newServers puts handlers behind the listeners. /metrics is on the admin address if there is one. connState is told of the public one's
// connections.
func newServers(clients, scrape http.Handler, connState func(net.Conn, http.ConnState), l listeners, cert *certificate, log *slog.Logger) *servers {
	public, admin := http.NewServeMux(), http.NewServeMux()
	public.Handle("/", clients)
	if l.admin == nil {
		only := http.NewServeMux() // which answers other methods 405, in plain text
		only.Handle("GET /metrics", scrape)
		public.Handle("/metrics", only)
	} else {
		admin.Handle("GET /metrics", scrape)
		admin.HandleFunc("/debug/pprof/", pprof.Index)
		admin.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		admin.HandleFunc("/debug/pprof/profile", pprof.Profile)
		admin.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		admin.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	s := &servers{listeners: l, public: newServer(public, log), admin: newServer(admin, log), tls: cert != nil}
	s.public.ConnState = connState
	if cert != nil {
		s.public.TLSConfig = cert.config()
	}
	return s
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(quietHandshakes{log.Handler()}, slog.LevelWarn),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true) // HTTP/2 has no upgrade to a WebSocket that coder/websocket speaks
	return s
}

// start serves until stop. What goes wrong before is sent, once.
func (s *servers) start() (failed <-chan error) {
	errs := make(chan error, 2)
	serve := func(serve func() error) {
		s.serving.Go(func() {
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				errs <- err
			}
		})
	}
	if s.tls {
		serve(func() error { return s.public.Serve(socket.TLSListener(s.listeners.public, s.public.TLSConfig)) })
	} else {
		upgrades := &socket.Upgrades{Listener: s.listeners.public, Handler: s.public.Handler, Log: s.public.ErrorLog}
		serve(func() error {
			defer upgrades.Wait()
			return s.public.Serve(upgrades)
		})
	}
	if s.listeners.admin != nil {
		serve(func() error { return s.admin.Serve(s.listeners.admin) })
	}
	return errs
}

// stop finishes the requests that are under way until ctx is done, and cuts off what is left.
func (s *servers) stop(ctx context.Context) {
	for _, server := range []*http.Server{s.public, s.admin} {
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}
	s.serving.Wait()
}

// browserURL is what to type into a browser on this machine.
func browserURL(addr net.Addr, tls bool) string {
	u := url.URL{Scheme: "http", Host: addr.String()}
	if tls {
		u.Scheme = "https"
	}
	if a, err := netip.ParseAddrPort(u.Host); err == nil && a.Addr().IsUnspecified() {
		u.Host = fmt.Sprintf("localhost:%d", a.Port())
	}
	return u.String()
}

// quietHandshakes takes what port scanners cause out of the log, unless everything is wanted there.
type quietHandshakes struct{ slog.Handler }

// Handle implements slog.Handler.
func (h quietHandshakes) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "TLS handshake error") {
		if !h.Enabled(ctx, slog.LevelDebug) {
			return nil
		}
		r.Level = slog.LevelDebug
	}
	return h.Handler.Handle(ctx, r)
}
