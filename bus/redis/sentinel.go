package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Sentinels are asked where the primary is: at each probe, when a connection is lost, and when one of them says that it has
// moved. Those that are not named are found by those that are. Connections are made to where it was last known to be: whoever is
// connected goes on while no sentinel answers.
type sentinels struct {
	name    string
	timeout time.Duration
	options redis.Options // of a connection, but for the address
	named   int           // how many the URL names
	met     chan struct{} // capacity 1: one was found

	mu     sync.Mutex
	known  []*sentinel // guarded by mu; those named, then those found
	closed bool        // guarded by mu
	addr   string      // guarded by mu; where the primary is
	epoch  int64       // guarded by mu; of the failover that made it primary
	count  int         // guarded by mu; the most sentinels that one has told of since they were set up
}

type sentinel struct {
	*redis.Client
	addr string
	id   string             // guarded by sentinels.mu; "" until it has told
	told int64              // guarded by sentinels.mu; the latest epoch that it has
	over context.Context    // done once it is known no more
	end  context.CancelFunc // of over
}

func newSentinels(t target, cfg Config, dial dialer) *sentinels {
	s := &sentinels{name: t.name, timeout: cfg.Timeout, named: len(t.addrs), met: make(chan struct{}, 1), options: redis.Options{
		Username: t.sentinelUsername, Password: t.sentinelPassword,
		Dialer: dial, DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout,
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true, PoolSize: 2, Protocol: 2,
	}}
	for _, addr := range t.addrs {
		s.known = append(s.known, s.at(addr, ""))
	}
	return s
}

func (s *sentinels) at(addr, id string) *sentinel {
	o := s.options
	o.Addr = addr
	c := &sentinel{Client: redis.NewClient(&o), addr: addr, id: id}
	c.over, c.end = context.WithCancel(context.Background())
	return c
}

func (c *sentinel) close() {
	c.end()
	_ = c.Close()
}

func (s *sentinels) all() []*sentinel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.known)
}

func (s *sentinels) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.known {
		c.close()
	}
}

// meet takes what a sentinel says of itself and the others: their addresses by their ids. One that is named may be known by another
// address; one that was found is where it was heard of last. It gives the latest epoch that the sentinel had told until then.
func (s *sentinels) meet(c *sentinel, got sighting, others map[string]string) (before int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.id, before, c.told = got.id, c.told, max(c.told, got.epoch)
	if s.closed {
		return before
	}
	for id, addr := range others {
		if id == "" || slices.ContainsFunc(s.known, func(k *sentinel) bool { return k.addr == addr }) {
			continue
		}
		switch i := slices.IndexFunc(s.known, func(k *sentinel) bool { return k.id == id }); {
		case i < 0:
			s.known = append(s.known, s.at(addr, id))
		case i < s.named:
			continue
		default:
			s.known[i].close()
			s.known[i] = s.at(addr, id)
		}
		wake(s.met)
	}
	return before
}

// A sighting is what a sentinel says of the primary.
type sighting struct {
	id     string // of the sentinel
	count  int    // of all sentinels
	addr   string
	epoch  int64
	before int64 // the latest epoch that the sentinel had told until then
	err    error
}

var errUnwatched = errors.New("they watch over no primary of that name")

// ask asks all that are known, and goes by the latest failover that more than half of all, or those that answer in time, know of. One
// that is cut off with an old primary still names that. Sentinels that are set up anew count from the beginning: where one has forgotten the
// latest failover, and nobody else who answers knows of it, more than half of all are believed.
func (s *sentinels) ask(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	s.mu.Lock()
	asked, latest := slices.Clone(s.known), s.epoch
	s.mu.Unlock()
	said := make(chan sighting, len(asked))
	for _, c := range asked {
		go func() { said <- s.see(ctx, c) }() // ends with ctx
	}
	var best sighting
	var errs []error
	answers, count, forgotten := make(map[string]bool), s.named, false
	for range asked {
		got := <-said
		if got.err != nil {
			errs = append(errs, got.err)
			continue
		}
		answers[got.id], count = true, max(count, got.count)
		forgotten = forgotten || got.epoch < latest && got.before >= latest
		if best.addr == "" || got.epoch > best.epoch {
			best = got
		}
		if len(answers) > count/2 && best.epoch >= latest {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(answers) == 0 {
		return s.addr, fmt.Errorf("no sentinel tells where %s is: %w", s.name, worst(errs))
	}
	s.count = max(s.count, count) // one that is set up anew knows of no others yet
	anew := forgotten && best.epoch < s.epoch && len(answers) > s.count/2
	if anew {
		s.count = count
		for _, c := range s.known {
			c.told = 0 // of epochs that are over
		}
	}
	if s.addr == "" || best.epoch >= s.epoch || anew {
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

// see asks a sentinel for the epoch and the address together. The one that leads a failover has the new epoch beside the old address
// in what it says of the primary until all replicas follow the new one; who went by that would go back to the old one.
func (s *sentinels) see(ctx context.Context, c *sentinel) (got sighting) {
	where := redis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", s.name)
	primary := redis.NewMapStringStringCmd(ctx, "sentinel", "master", s.name)
	myID := redis.NewStringCmd(ctx, "sentinel", "myid") // this and the next may be forbidden
	sentinels := redis.NewMapStringStringSliceCmd(ctx, "sentinel", "sentinels", s.name)
	_, _ = c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, cmd := range []redis.Cmder{where, primary, myID, sentinels} {
			_ = p.Process(ctx, cmd)
		}
		return nil
	})
	at, err := where.Val(), primary.Err()
	if err == nil && len(at) != 2 {
		err = cmp.Or(where.Err(), fmt.Errorf("it says that %s is at %q", s.name, at))
	}
	if err != nil {
		if isReply(err) && strings.Contains(err.Error(), "No such master") {
			err = misconfigured{errUnwatched}
		}
		return sighting{err: err}
	}
	got.addr = net.JoinHostPort(at[0], at[1])
	got.epoch, _ = strconv.ParseInt(primary.Val()["config-epoch"], 10, 64)
	others, _ := strconv.Atoi(primary.Val()["num-other-sentinels"])
	got.count = 1 + others
	if got.id = myID.Val(); got.id == "" {
		got.id = c.addr
	}
	found := make(map[string]string)
	for _, o := range sentinels.Val() {
		found[o["runid"]] = net.JoinHostPort(o["ip"], o["port"])
	}
	got.before = s.meet(c, got, found)
	return got
}

// listen calls moved whenever a sentinel says that the primary is another, until ctx ends.
func (s *sentinels) listen(ctx context.Context, moved func()) {
	var listening sync.WaitGroup
	defer listening.Wait()
	heard := make(map[*sentinel]bool)
	for {
		all := s.all()
		maps.DeleteFunc(heard, func(c *sentinel, _ bool) bool { return !slices.Contains(all, c) })
		for _, c := range all {
			if heard[c] {
				continue
			}
			heard[c] = true
			listening.Go(func() {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(c.over, cancel)()
				sub := c.Subscribe(ctx, "+switch-master") // it connects anew by itself
				defer sub.Close()                         // its channel may end before ctx: as the client is closed
				stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
				defer stop()
				for m := range sub.Channel() {
					if strings.HasPrefix(m.Payload, s.name+" ") {
						moved()
					}
				}
			})
		}
		select {
		case <-s.met:
		case <-ctx.Done():
			return
		}
	}
}
