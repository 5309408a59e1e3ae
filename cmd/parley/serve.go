package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"parley/bus"
	"parley/cmd/internal/cli"
	"parley/metrics"
	"parley/node"
)

// ServeCmd runs a node.
type ServeCmd struct {
	Listen string

	Redis          string
	RedisPassword  string
	RedisCA        string
	RedisCert      string
	RedisKey       string
	RedisReplicas  int
	RedisWaitStart time.Duration

	HistorySize  int
	HistoryBytes cli.Bytes
	HistoryTTL   time.Duration

	Origins       cli.List
	MaxText       cli.Bytes
	Queue         cli.Bytes
	PresenceLimit int
	Ping          time.Duration
	Drain         time.Duration
	NodeID        string

	TLSCert string
	TLSKey  string

	Access AccessFlags

	TrustedProxies cli.Prefixes
	ProxyProtocol  bool
	Limits         node.Limits

	Admin     string
	LogFormat string
	LogLevel  string

	Check bool
}

func (c *ServeCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", ":8765", "`ADDR` Address that clients connect to.")

	f.StringVar(&c.Redis, "redis", "", "`URL` The Redis that joins nodes into a cluster: redis://HOST, unix://PATH, redis+sentinel://HOST:PORT[,HOST:PORT...]/NAME or redis+cluster://HOST:PORT[,HOST:PORT...]; rediss for TLS. Without it the node is alone, and keeps its rooms in memory.")
	f.StringVar(&c.RedisPassword, "redis-password", "", "`PASSWORD` Its password, if the URL has none. Others on the machine see a command line: rather set the variable, or one with _FILE at its end, which names a file.")
	f.StringVar(&c.RedisCA, "redis-ca", "", "`FILE` Certificates (PEM) that vouch for Redis, with rediss. Those of the system, by default.")
	f.StringVar(&c.RedisCert, "redis-cert", "", "`FILE` Certificate (PEM) to show to Redis, with rediss. Read again when it is needed.")
	f.StringVar(&c.RedisKey, "redis-key", "", "`FILE` Its private key (PEM).")
	f.IntVar(&c.RedisReplicas, "redis-replicas", 0, "Replicas of Redis that must have a message before it is acknowledged. None, by default.")
	f.DurationVar(&c.RedisWaitStart, "redis-wait-start", 30*time.Second, "How long to wait at the start for a Redis that is away.")

	f.IntVar(&c.HistorySize, "history-size", 5000, "Messages that a room's log keeps.")
	f.TextVar(&c.HistoryBytes, "history-bytes", cli.Bytes(32<<20), "`BYTES` Memory that a room's log may take; past it the oldest messages go.")
	f.DurationVar(&c.HistoryTTL, "history-ttl", 24*time.Hour, "How long a room's log keeps them.")

	f.TextVar(&c.Origins, "origins", cli.List(nil), "`PATTERN,...` Origins that pages may connect from, such as *.example.com or https://example.com. Any, by default.")
	f.TextVar(&c.MaxText, "max-text", cli.Bytes(4<<10), "`BYTES` Longest text of a message.")
	f.TextVar(&c.Queue, "queue", cli.Bytes(256<<10), "`BYTES` What may wait for one slow client; past it, the log serves it.")
	f.IntVar(&c.PresenceLimit, "presence-limit", 200, "Members of a room past which single joins and leaves are not told.")
	f.DurationVar(&c.Ping, "ping", 25*time.Second, "Time between pings to a client.")
	f.DurationVar(&c.Drain, "drain", 10*time.Second, "Over how long a shutdown spreads the goodbyes to its clients.")
	f.StringVar(&c.NodeID, "node-id", "", "`NAME` The node's name. The host's name and a random suffix, by default.")

	f.StringVar(&c.TLSCert, "tls-cert", "", "`FILE` Certificate chain (PEM) to serve TLS with. Read again when it changes.")
	f.StringVar(&c.TLSKey, "tls-key", "", "`FILE` Its private key (PEM).")

	c.Access.add(f)

	f.TextVar(&c.TrustedProxies, "trusted-proxies", cli.Prefixes(nil), "`PREFIX,...` Addresses of load balancers, such as 10.0.0.0/8, whose X-Forwarded-For is believed. None, by default.")
	f.BoolVar(&c.ProxyProtocol, "proxy-protocol", false, "Connections from --trusted-proxies begin with the PROXY protocol, version 1 or 2, which says who the client is.")

	l := &c.Limits
	f.IntVar(&l.Connections, "max-connections", 100_000, "Clients that may be connected; others get 503, which sends them to another node. 0 for any number, as for the limits below.")
	f.IntVar(&l.AddressConnections, "address-connections", 10_000, "Connections that one address, or IPv6 network (/64), may have; and as many over HTTP.")
	f.IntVar(&l.AddressAttempts, "address-attempts", 200, "How often it may connect in a second, on average; 25 times that at once.")
	f.IntVar(&l.AddressRequests, "address-requests", 500, "HTTP requests that it may make in a second, on average; 10 times that at once.")
	f.IntVar(&l.AddressRooms, "address-rooms", 3000, "Rooms that nobody is in that it may enter in a minute.")
	f.IntVar(&l.UserMessages, "user-rate", 200, "Messages that a user with a token may send in a second over all nodes, on average; 5 times that at once.")
	f.IntVar(&l.UserConnections, "user-connections", 200, "Connections that a user with a token may have, over all nodes.")
	f.IntVar(&l.Messages, "message-rate", 50, "Messages that a connection may send in a second, on average.")
	f.IntVar(&l.MessageBurst, "message-burst", 500, "Messages that it may send at once.")
	f.IntVar(&l.Rooms, "connection-rooms", 500, "Rooms that a connection may be in.")

	f.StringVar(&c.Admin, "admin", "", "`ADDR` Address for operators only: pprof, and /metrics, which then leaves the public address.")
	f.StringVar(&c.LogFormat, "log-format", "text", "`FORMAT` Form of the log on standard error: text or json.")
	f.StringVar(&c.LogLevel, "log-level", "info", "`LEVEL` Least level that is logged: debug, info, warn or error.")

	f.BoolVar(&c.Check, "check", false, "Say what would be used and from where each value came, and exit: with 2 if a node could not start like that.")
}

// afterDrain is how long a shutdown may take on top of Drain.
const afterDrain = 10 * time.Second

// Run implements "parley serve": a node, until env.Ctx is done.
func (c *ServeCmd) Run(env *cli.Env) error {
	if c.Check {
		return report(env)
	}
	id := cmp.Or(c.NodeID, node.NewID())
	log := c.logger(env.Err).With("node", id)
	var cert *certificate
	if c.TLSCert != "" {
		var err error
		if cert, err = newCertificate(c.TLSCert, c.TLSKey, log); err != nil {
			return err
		}
	}

	version, from := build()
	reg := prometheus.NewRegistry()
	metrics.RegisterProcess(reg, id, version, from)
	observer := metrics.New(reg, map[string]error{
		"unavailable": bus.ErrUnavailable, "conflict": bus.ErrConflict, "closed": bus.ErrClosed,
	})

	auth, err := c.Access.authenticator(env.Ctx, log)
	if err != nil {
		return err
	}
	apps, err := c.Access.apps(log)
	if err != nil {
		return err
	}
	b, err := c.openBus(env.Ctx, observer, log)
	if err != nil {
		if env.Ctx.Err() != nil { // told to end while waiting for Redis
			return nil
		}
		return err
	}
	defer b.Close()

	listeners, err := c.listen(env.Ctx)
	if err != nil {
		return err
	}
	defer listeners.close()

	n := node.New(node.Config{
		Bus:           b,
		Observer:      observer,
		Log:           log,
		ID:            id,
		Version:       version,
		Origins:       c.Origins,
		Auth:          auth,
		Apps:          apps,
		TokenLife:     c.Access.Life,
		Guests:        c.Access.Guests,
		GuestRights:   c.Access.guestRights,
		Limits:        c.Limits,
		MaxText:       int(c.MaxText),
		QueueBytes:    int(c.Queue),
		PresenceLimit: c.PresenceLimit,
		PingInterval:  c.Ping,
		Drain:         c.Drain,
	})
	metrics.RegisterHealth(reg, n.Ready, b.HeartbeatAge)
	s := newServers(node.BehindProxies(c.TrustedProxies, n.Handler(), log), metrics.Handler(reg), n.Strangers(c.TrustedProxies), listeners, cert, log)
	failed := s.start()
	if listeners.admin != nil {
		log.Info("serving operators", "url", browserURL(listeners.admin.Addr(), false))
	}
	c.greet(env.Out, log, browserURL(listeners.public.Addr(), cert != nil))
	notify(log, daemon.SdNotifyReady)
	watched, unwatch := context.WithCancel(context.WithoutCancel(env.Ctx))
	var watchdog sync.WaitGroup
	watchdog.Go(func() { keepWatchdog(watched, log, n.Alive) })
	defer watchdog.Wait()
	defer unwatch()

	select {
	case err = <-failed:
	case <-env.Ctx.Done():
		log.Info("shutting down", "drain", c.Drain)
	}

	notify(log, fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, (c.Drain+2*afterDrain).Microseconds()))
	// The public address is served until the last client is gone: it tells load balancers to go elsewhere.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(env.Ctx), c.Drain+afterDrain)
	defer cancel()
	if shutErr := n.Shutdown(ctx); shutErr != nil && err == nil {
		err = fmt.Errorf("shut down: %w", shutErr)
	}
	s.stop(ctx)
	return err
}

func (c *ServeCmd) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		panic(err) // the flag's values are levels
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// greet says where to point a browser, in one line. Where programs read the log it says so there.
func (c *ServeCmd) greet(w io.Writer, log *slog.Logger, url string) {
	if c.LogFormat == "json" {
		log.Info("serving", "url", url)
		return
	}
	rooms := "rooms in memory, this node is alone"
	if c.Redis != "" {
		rooms = "rooms shared through Redis"
	}
	fmt.Fprintf(w, "Parley is at %s (%s)\n", url, rooms)
}
