package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"parley/cmd/internal/cli"
	"parley/node"
	"parley/node/wire"
)

// What makes sense, where that is not plain.
const (
	leastQueue = wire.MaxFrame
	mostText   = wire.MaxFrame / 2 // JSON may escape it
	mostQueue  = 64 << 20          // for each of many clients
	mostPing   = 10 * time.Minute  // no proxy waits for longer
	mostDrain  = 24 * time.Hour
	mostLog    = 1_000_000
	mostAge    = 100 * 365 * 24 * time.Hour // twice that is a Duration still
)

// Validate refuses what a node can't run with, and what would silently mean nothing. It normalises the origins.
func (c *ServeCmd) Validate() error {
	switch l := c.Limits; {
	case c.HistorySize < 1 || c.HistorySize > mostLog:
		return fmt.Errorf("--history-size must be at least 1 and at most %d", mostLog)
	case c.HistoryBytes < wire.MaxFrame:
		return fmt.Errorf("--history-bytes must be at least %d KiB", wire.MaxFrame>>10)
	case c.MaxText < 1 || c.MaxText > mostText:
		return fmt.Errorf("--max-text must be from 1 to %d KiB", mostText>>10)
	case c.Queue < leastQueue || c.Queue > mostQueue:
		return fmt.Errorf("--queue must be at least %d KiB and at most %d MiB", leastQueue>>10, mostQueue>>20)
	case c.PresenceLimit < 1:
		return errors.New("--presence-limit must be at least 1")
	case c.HistoryTTL < time.Second || c.HistoryTTL > mostAge:
		return fmt.Errorf("--history-ttl must be at least 1s and at most %s", mostAge)
	case c.Ping < time.Second || c.Ping > mostPing:
		return fmt.Errorf("--ping must be at least 1s and at most %s", mostPing)
	case c.Drain <= 0 || c.Drain > mostDrain:
		return fmt.Errorf("--drain must be more than 0s and at most %s", mostDrain)
	case c.RedisReplicas < 0 || c.RedisReplicas > 16:
		return errors.New("--redis-replicas must be at least 0 and at most 16")
	case c.RedisWaitStart < 0:
		return errors.New("--redis-wait-start must be at least 0s")
	case l.Messages > 0 && l.MessageBurst < 1:
		return errors.New("--message-burst must be at least 1 where there is a --message-rate")
	case min(l.Connections, l.AddressConnections, l.AddressAttempts, l.AddressRequests, l.AddressRooms, l.Messages, l.MessageBurst, l.Rooms, l.UserMessages, l.UserConnections) < 0:
		return errors.New("a limit must be at least 0, which is none")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case (c.RedisCert == "") != (c.RedisKey == ""):
		return errors.New("--redis-cert and --redis-key go together")
	case c.Redis == "" && c.RedisPassword+c.RedisCA+c.RedisCert != "":
		return errors.New("--redis-password, --redis-ca and --redis-cert mean nothing without --redis")
	case c.ProxyProtocol && len(c.TrustedProxies) == 0:
		return errors.New("--proxy-protocol needs --trusted-proxies: from nobody else it is believed")
	}
	if bad := wire.CheckName(c.NodeID); bad != nil {
		return fmt.Errorf("--node-id: %s", bad.Message)
	}
	if err := c.Access.validate(); err != nil {
		return err
	}
	for i, pattern := range c.Origins {
		normal, err := node.NormalizeOrigin(pattern)
		if err != nil {
			return fmt.Errorf("--origins: %q can never match: %w", pattern, err)
		}
		c.Origins[i] = normal
	}
	err := cmp.Or(
		cli.OneOf("--log-format", c.LogFormat, "text", "json"),
		cli.OneOf("--log-level", c.LogLevel, "debug", "info", "warn", "error"),
	)
	if err == nil && c.Check {
		err = c.checkOutside()
	}
	return err
}

// checkOutside looks at what a start would find out by itself: addresses, files and the form of the Redis URL. It connects to nothing.
func (c *ServeCmd) checkOutside() error {
	if _, err := net.ResolveTCPAddr("tcp", c.Listen); err != nil {
		return fmt.Errorf("--listen %s: %w", c.Listen, err)
	}
	if c.Admin != "" {
		if _, err := net.ResolveTCPAddr("tcp", c.Admin); err != nil {
			return fmt.Errorf("--admin %s: %w", c.Admin, err)
		}
		if c.Admin == c.Listen && !strings.HasSuffix(c.Admin, ":0") {
			return fmt.Errorf("--admin and --listen are the same address, %s", c.Admin)
		}
	}
	if c.Redis != "" {
		if err := c.redisConfig().Check(); err != nil {
			return fmt.Errorf("--redis: %w", err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	if c.TLSCert != "" {
		if _, err := newCertificate(c.TLSCert, c.TLSKey, log); err != nil {
			return err
		}
	}
	over, cancel := context.WithCancel(context.Background())
	cancel() // so that no keys are fetched
	if _, err := c.Access.authenticator(over, log); err != nil {
		return err
	}
	_, err := c.Access.apps(log)
	return err
}

// report says what would be used, a flag a line, without secrets. Variables that look like one of ours and are none are told too.
func report(env *cli.Env) error {
	w := tabwriter.NewWriter(env.Out, 0, 0, 2, ' ', 0)
	var variables []string
	for _, s := range env.Settings {
		name := "PARLEY_" + strings.ToUpper(strings.ReplaceAll(s.Flag, "-", "_"))
		variables = append(variables, name, name+"_FILE")
		switch s.Flag {
		case "check", "help", "version":
			continue
		case "redis":
			s.Value = withoutSecrets(s.Value)
		case "redis-password":
			if s.Value != "" {
				s.Value = hidden
			}
		}
		fmt.Fprintf(w, "--%s\t%s\t%s\n", s.Flag, cmp.Or(s.Value, "-"), s.From)
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "PARLEY_") && !slices.Contains(variables, strings.TrimSuffix(name, "_FILE")) {
			fmt.Fprintf(env.Err, "$%s sets no flag of parley serve\n", name)
		}
	}
	return w.Flush()
}

const hidden = "xxxxx" // in place of a secret

// withoutSecrets is a URL that may be shown. Several hosts, as of sentinels, are no URL for net/url.
func withoutSecrets(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	rest, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if !ok || err != nil {
		return "(not shown)"
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user, _, secret := strings.Cut(rest[:at], ":")
		if secret {
			user += ":" + hidden
		}
		rest = user + rest[at:]
	}
	for name := range values {
		if strings.Contains(strings.ToLower(name), "password") {
			values.Set(name, hidden)
		}
	}
	if query != "" {
		rest += "?" + values.Encode()
	}
	return scheme + "://" + rest
}
