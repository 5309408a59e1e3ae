package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Sentinels are asked where the primary is: at each probe, when a connection is lost, and when one of them says that it has
// moved. Connections are made to where it was last known to be: whoever is connected goes on while no sentinel answers.
type sentinels struct {
	name    string
	timeout time.Duration
	clients []*redis.Client

	mu    sync.Mutex
	addr  string // guarded by mu; where the primary is
	epoch int64  // guarded by mu; of the failover that made it primary
}

func newSentinels(t target, cfg Config, dial dialer) *sentinels {
	s := &sentinels{name: t.name, timeout: cfg.Timeout}
	for _, addr := range t.addrs {
		s.clients = append(s.clients, redis.NewClient(&redis.Options{
			Addr: addr, Username: t.sentinelUsername, Password: t.sentinelPassword,
			Dialer: dial, DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout,
			MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true, PoolSize: 2, Protocol: 2,
		}))
	}
	return s
}

func (s *sentinels) close() {
	for _, c := range s.clients {
		_ = c.Close()
	}
}

// A sighting is what a sentinel says of the primary.
type sighting struct {
	addr  string
	epoch int64
	err   error
}

var errUnwatched = errors.New("they watch over no primary of that name")

// ask asks all of them, and goes by the latest failover that more than half of them, or those that answer in time, know of. One that
// is cut off with an old primary still names that.
func (s *sentinels) ask(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	said := make(chan sighting, len(s.clients))
	for _, c := range s.clients {
		go func() { said <- s.see(ctx, c) }() // ends with ctx
	}
	var best sighting
	var errs []error
	answers := 0
	for range s.clients {
		got := <-said
		if got.err != nil {
			errs = append(errs, got.err)
			continue
		}
		if answers++; best.addr == "" || got.epoch > best.epoch {
			best = got
		}
		if answers > len(s.clients)/2 {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if answers == 0 {
		return s.addr, fmt.Errorf("no sentinel tells where %s is: %w", s.name, worst(errs))
	}
	if s.addr == "" || best.epoch >= s.epoch {
		s.addr, s.epoch = best.addr, best.epoch
	}
	return s.addr, nil
}

// worst is the error that waiting helps least against.
func worst(errs []error) error {
	return slices.MaxFunc(errs, func(a, b error) int {
		rank := func(err error) int {
			if isPermanent(err) {
				return 1
			}
			return 0
		}
		return cmp.Compare(rank(a), rank(b))
	})
}

// see asks for the epoch and the address together. The sentinel that leads a failover has the new epoch beside the old address in
// what it says of the primary until all replicas follow the new one; who went by that would go back to the old one.
func (s *sentinels) see(ctx context.Context, c *redis.Client) (got sighting) {
	var where *redis.StringSliceCmd
	var what *redis.MapStringStringCmd
	_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		where = redis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", s.name)
		what = redis.NewMapStringStringCmd(ctx, "sentinel", "master", s.name)
		_, _ = p.Process(ctx, where), p.Process(ctx, what)
		return nil
	})
	if err == redis.Nil { // the address of what it does not watch over
		err = what.Err()
	}
	if err != nil {
		if isReply(err) && strings.Contains(err.Error(), "No such master") {
			err = misconfigured{errUnwatched}
		}
		return sighting{err: err}
	}
	at := where.Val()
	if len(at) != 2 {
		return sighting{err: fmt.Errorf("it answers %q to where %s is", at, s.name)}
	}
	got.addr = net.JoinHostPort(at[0], at[1])
	got.epoch, _ = strconv.ParseInt(what.Val()["config-epoch"], 10, 64)
	return got
}

// listen calls moved whenever a sentinel says that the primary is another, until ctx ends.
func (s *sentinels) listen(ctx context.Context, moved func()) {
	var listening sync.WaitGroup
	defer listening.Wait()
	for _, c := range s.clients {
		listening.Go(func() {
			sub := c.Subscribe(ctx, "+switch-master") // it connects anew by itself
			stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
			defer stop()
			for m := range sub.Channel() {
				if strings.HasPrefix(m.Payload, s.name+" ") {
					moved()
				}
			}
		})
	}
}
