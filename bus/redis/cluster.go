package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"parley/bus"
)

// A Cluster is a bus.Bus over a Redis Cluster: one node of ours. Each primary has a Bus, with links, a lease and a reaper of its own:
// what happens to one harms the rooms of its slots alone. The Cluster knows who has which slot, and moves rooms between them.
type Cluster struct {
	cfg     Config
	target  target
	dialRaw dialer
	topo    *redis.ClusterClient // asks for keys where they are while slots move
	wanted  chan struct{}        // capacity 1: the topology may have changed
	posts   posts

	mu     sync.RWMutex
	nodes  map[string]*redis.Client // guarded by mu; those to be asked for the topology, by address
	slots  []redis.ClusterSlot      // guarded by mu; as last seen
	owners [slotCount]*Bus          // guarded by mu; nil where no primary is known
	shards map[string]*Bus          // guarded by mu; by the primary's address
	tags   map[int]string           // guarded by mu; hash tags of slots, as they were needed
	closed bool                     // guarded by mu

	placesMu sync.Mutex
	places   map[string]*place // guarded by placesMu; of rooms in use

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

// IsCluster reports whether the URL is that of a Redis Cluster.
func (c Config) IsCluster() bool {
	t, err := parseURL(c.URL)
	return err == nil && t.kind == aCluster
}

// OpenCluster is Open for a Redis Cluster. Some primaries may be away.
func OpenCluster(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg = cfg.withDefaults()
	t, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	if t.kind != aCluster {
		return nil, misconfigured{errors.New("the Redis URL is none of a Cluster")}
	}
	c := &Cluster{
		cfg: cfg, target: t, dialRaw: rawDialer(cfg, t.options), wanted: make(chan struct{}, 1),
		tags: make(map[int]string), nodes: make(map[string]*redis.Client), shards: make(map[string]*Bus), places: make(map[string]*place),
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for _, addr := range t.addrs {
		c.nodes[addr] = c.nodeAt(addr)
	}
	o := connectionOptions(cfg, t)
	c.topo = redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: t.addrs, Username: o.Username, Password: o.Password, Protocol: 2, Dialer: c.dialRaw,
		DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout, PoolTimeout: cfg.Timeout,
		ContextTimeoutEnabled: true, DialerRetries: 1, DisableIdentity: true, PoolSize: 8,
		MaintNotificationsConfig: o.MaintNotificationsConfig,
		ClusterSlots:             func(context.Context) ([]redis.ClusterSlot, error) { return c.seen(), nil },
		OnConnect:                func(ctx context.Context, conn *redis.Conn) error { return sharded.loadPresence(ctx, conn) },
	})
	if err := c.begin(ctx); err != nil {
		_ = c.Close()
		if isPermanent(err) {
			err = misconfigured{err}
		}
		return nil, fmt.Errorf("redis cluster at %s: %w", t, err)
	}
	c.running.Go(c.lookLoop)
	return c, nil
}

// nodeAt makes a client to ask a node for the topology.
func (c *Cluster) nodeAt(addr string) *redis.Client {
	o := connectionOptions(c.cfg, c.target)
	o.Addr, o.Dialer, o.PoolSize = addr, c.dialRaw, 2
	return redis.NewClient(o)
}

func (c *Cluster) seen() []redis.ClusterSlot {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.slots
}

// begin looks for the primaries, and opens them. One at least must work.
func (c *Cluster) begin(ctx context.Context) error {
	slots, err := c.lookAround(ctx)
	if err != nil {
		return err
	}
	shards := c.apply(slots)
	errs := make(chan error, len(shards))
	for _, s := range shards {
		go func() { errs <- s.prepare(ctx) }()
	}
	var failed []error
	for range shards {
		if err := <-errs; err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		if err := worst(failed); len(failed) == len(shards) || isPermanent(err) {
			return err
		}
		c.cfg.Log.Warn("a part of the Redis Cluster is away", "err", failed[0])
	}
	c.warnOfCoverage(ctx)
	return nil
}

// warnOfCoverage warns if all rooms would suffer from a primary that is away.
func (c *Cluster) warnOfCoverage(ctx context.Context) {
	const setting = "cluster-require-full-coverage"
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, s := range c.shards {
		if v, err := s.own.ConfigGet(ctx, setting).Result(); err == nil && v[setting] == "yes" { // CONFIG is often forbidden
			c.cfg.Log.Warn("a primary that is away will stop the whole Redis Cluster: set cluster-require-full-coverage to no")
			return
		}
	}
}

// look has the topology looked at soon.
func (c *Cluster) look() { wake(c.wanted) }

// lookLoop keeps up with the topology.
func (c *Cluster) lookLoop() {
	tick := time.NewTicker(c.cfg.HeartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.wanted:
		case <-c.ctx.Done():
			return
		}
		if slots, err := c.lookAround(c.ctx); err == nil {
			for _, s := range c.apply(slots) {
				c.running.Go(func() {
					if err := s.prepare(s.ctx); err != nil && s.ctx.Err() == nil {
						s.complain("begin with a primary", err)
					}
				})
			}
		} else if c.ctx.Err() == nil {
			c.cfg.Log.Debug("redis: look at the topology", "err", err)
		}
		select {
		case <-time.After(minBackoff):
		case <-c.ctx.Done():
		}
	}
}

// apply takes a topology: it opens primaries that are new, follows those that failed over, and moves rooms whose slots have moved.
func (c *Cluster) apply(slots []redis.ClusterSlot) (opened []*Bus) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.slots = slots
	c.meetLocked(slots)
	var at [slotCount]string
	lowest := make(map[string]int)
	for _, s := range slots {
		if len(s.Nodes) == 0 {
			continue
		}
		addr := s.Nodes[0].Addr
		for slot := s.Start; slot <= s.End && slot < slotCount; slot++ {
			at[slot] = addr
			if low, known := lowest[addr]; !known || slot < low {
				lowest[addr] = slot
			}
		}
	}
	// A primary that failed over is the same part of the Cluster, at another address.
	for addr, s := range c.shards {
		if _, has := lowest[addr]; has {
			continue
		}
		if to := at[slotOf(s.tag())]; to != "" && c.shards[to] == nil {
			delete(c.shards, addr)
			c.shards[to] = s
			s.addr.Store(&to)
			s.server.leave()
		}
	}
	for addr, low := range lowest {
		s := c.shards[addr]
		tag, known := c.tags[low]
		if !known {
			tag = tagOf(low)
			c.tags[low] = tag
		}
		if s == nil {
			s = c.shard(addr, tag)
			c.shards[addr] = s
			opened = append(opened, s)
			s.start()
		}
		s.lowTag.Store(&tag)
		if at[slotOf(s.tag())] != addr {
			s.retag(tag)
		}
	}
	for slot, addr := range at {
		if s := c.shards[addr]; s != nil {
			c.owners[slot] = s
		}
	}
	shards := maps.Clone(c.shards)
	c.mu.Unlock()

	for _, s := range shards { // always: what was acknowledged just after its slot had moved was noted where it was
		for _, tr := range s.trails.moved(func(k *roomKeys) bool { return c.ownerOf(slotOf(k.log)) == s }) {
			c.ownerOf(slotOf(tr.keys.log)).trails.merge(tr)
		}
	}
	inUse := c.moveRooms()
	for addr, s := range shards {
		if _, has := lowest[addr]; !has && !inUse[s] {
			c.retire(addr, s)
		}
	}
	return opened
}

// meetLocked has those asked for the topology that are in it, and those that the URL names. Others are forgotten: where machines come and
// go, each look would wait for all that ever were.
func (c *Cluster) meetLocked(slots []redis.ClusterSlot) {
	here := make(map[string]bool)
	for _, addr := range c.target.addrs {
		here[addr] = true
	}
	for _, s := range slots {
		for _, n := range s.Nodes {
			if here[n.Addr] = true; c.nodes[n.Addr] == nil {
				c.nodes[n.Addr] = c.nodeAt(n.Addr)
			}
		}
	}
	for addr, node := range c.nodes {
		if !here[addr] {
			delete(c.nodes, addr)
			_ = node.Close()
		}
	}
}

// shard makes the part that the primary at addr has.
func (c *Cluster) shard(addr, tag string) *Bus {
	cfg := c.cfg
	cfg.Log = cfg.Log.With("primary", addr)
	t := c.target
	o := *t.options
	o.Addr = addr
	t.options = &o
	s := build(cfg, t, c)
	s.hashTag.Store(&tag)
	return s
}

// retire closes a part that has no slots any more.
func (c *Cluster) retire(addr string, s *Bus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.shards[addr] != s || slices.Contains(c.owners[:], s) {
		return
	}
	delete(c.shards, addr)
	c.running.Go(func() { _ = s.Close() })
}

func (c *Cluster) ownerOf(slot int) *Bus {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.owners[slot]
}

// tag is a hash tag of one of the primary's slots, "" for a server alone.
func (r *Bus) tag() string {
	if tag := r.hashTag.Load(); tag != nil {
		return *tag
	}
	return ""
}

// tags are those under which incarnations are listed: by all nodes under that of the primary's first slot, as they know it.
func (r *Bus) tags() []string {
	tags := []string{r.tag()}
	if low := r.lowTag.Load(); low != nil && *low != tags[0] {
		tags = append(tags, *low)
	}
	return tags
}

// retag is called when the slot of the tag has moved away: the node needs another lease here, and another channel for heartbeats.
func (r *Bus) retag(tag string) {
	r.hashTag.Store(&tag)
	inc, _ := r.lease.current()
	r.lease.distrust(inc)
	for _, l := range r.links {
		l.subscriber.beatOn(beatOf(tag))
		l.drop()
	}
}

// follow asks for what the commands were refused, because other nodes have the keys, where they are.
func (c *Cluster) follow(ctx context.Context, cmds []redis.Cmder) error {
	var elsewhere []redis.Cmder
	var rosters []*redis.Cmd
	for _, cmd := range cmds {
		err := cmd.Err()
		if err == nil || !isRedirect(err.Error()) {
			continue
		}
		if roster, ok := cmd.(*redis.Cmd); ok && roster.Args()[1] == rosterSHA {
			rosters = append(rosters, roster)
		} else if strings.HasPrefix(err.Error(), "MOVED ") || strings.HasPrefix(err.Error(), "ASK ") {
			elsewhere = append(elsewhere, cmd)
		}
	}
	if elsewhere != nil || rosters != nil {
		c.look()
	}
	if elsewhere != nil {
		load := func() error {
			return c.topo.ForEachMaster(ctx, func(ctx context.Context, m *redis.Client) error { return sharded.loadPresence(ctx, m) })
		}
		if err := execKnown(ctx, c.topo, elsewhere, load); err != nil {
			return err
		}
	}
	for _, cmd := range rosters {
		readApart(ctx, cmd, c.rosterApart)
	}
	for _, cmd := range cmds {
		if err := cmd.Err(); err == nil || !strings.HasPrefix(err.Error(), "TRYAGAIN") {
			continue
		}
		if cmd, ok := cmd.(*redis.Cmd); ok && cmd.Args()[1] == readSHA {
			readApart(ctx, cmd, c.logApart)
		}
	}
	return nil
}

// readApart has a command hold what its script answers, read key by key: while a slot moves, its keys are on both primaries, and no script
// has all.
func readApart(ctx context.Context, cmd *redis.Cmd, read func(context.Context, []any) ([]any, error)) {
	answer, err := read(ctx, cmd.Args())
	if cmd.SetErr(err); err == nil {
		cmd.SetVal(answer)
	}
}

// rosterApart reads what roster.lua does. A primary that is asked for it may take keys that have not come yet for empty.
func (c *Cluster) rosterApart(ctx context.Context, args []any) (answer []any, err error) {
	incarnations, usersBase, most := args[3], args[4].(string), args[5].(int) // evalsha sha 1 incarnations users most inc number ...
	known := make(map[string]uint64)
	for i := 6; i+1 < len(args); i += 2 {
		known[args[i].(string)] = args[i+1].(uint64)
	}
	read, err := c.topo.Do(ctx, "hgetall", incarnations).Slice()
	if err != nil {
		return nil, err
	}
	answer = []any{read}
	_, numbers, _ := parseIncarnations(read)
	for inc, number := range numbers {
		if had, is := known[inc]; is && had == number {
			continue
		}
		users, err := c.topo.Do(ctx, "hgetall", usersBase+inc).Slice()
		if err != nil {
			return nil, err
		}
		count := len(users) / 2
		if most > 0 {
			users = users[:2*min(most, count)]
		}
		answer = append(answer, []any{inc, int64(count), users})
	}
	return answer, nil
}

// logApart reads what read.lua does.
func (c *Cluster) logApart(ctx context.Context, args []any) (answer []any, err error) {
	const entries = 32
	// evalsha sha 3 log last break command from to limit bytes
	log, last, lastBreak, command, from, to := args[3], args[4], args[5], args[6], args[7], args[8]
	limit, ok := args[9].(int)
	if !ok || limit > entries {
		limit = entries
	}
	answer = []any{nil, nil, int64(0)}
	for i, key := range []any{last, lastBreak} { // before the entries, as there
		v, err := c.topo.Do(ctx, "get", key).Result()
		if err != nil && err != redis.Nil {
			return nil, err
		}
		answer[i] = v
	}
	read, err := c.topo.Do(ctx, command, log, from, to, "count", limit+1).Slice()
	if err != nil {
		return nil, err
	}
	if len(read) > limit {
		read, answer[2] = read[:limit], int64(1)
	}
	return append(answer, read...), nil
}

// readHead reads a room's newest id where it is.
func (c *Cluster) readHead(rm *room, h *head) {
	ctx, cancel := context.WithTimeout(rm.bus.ctx, c.cfg.Timeout)
	defer cancel()
	cmd := redis.NewCmd(ctx, "get", rm.keys.last)
	if err := c.topo.Process(ctx, cmd); err == nil || err == redis.Nil {
		h.id, h.err = idOf(cmd), nil
	}
	close(h.done)
}

// Ready implements bus.Bus: as long as one part works, clients do not fare better elsewhere. Away says what does not.
func (c *Cluster) Ready() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return bus.ErrClosed
	}
	var err error
	for _, s := range c.shards {
		if err = s.Ready(); err == nil {
			return nil
		}
	}
	return err
}

// Away says which primaries can't be relied on now.
func (c *Cluster) Away() (away []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for addr, s := range c.shards {
		if err := s.Ready(); err != nil {
			away = append(away, fmt.Sprintf("%s: %v", addr, err))
		}
	}
	slices.Sort(away)
	return away
}

// HeartbeatAge implements bus.Bus: that of the part that is worst off.
func (c *Cluster) HeartbeatAge() (oldest time.Duration) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, s := range c.shards {
		oldest = max(oldest, s.HeartbeatAge())
	}
	return oldest
}

// Close implements bus.Bus.
func (c *Cluster) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	shards := slices.Collect(maps.Values(c.shards))
	nodes := slices.Collect(maps.Values(c.nodes))
	c.mu.Unlock()
	c.stop()
	for _, s := range shards {
		c.running.Go(func() { _ = s.Close() })
	}
	c.running.Wait()
	for _, n := range nodes {
		_ = n.Close()
	}
	return c.topo.Close()
}
