// Package redis is a bus over a Redis server, which many nodes share.
package redis

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"parley/bus"
	"parley/bus/redis/resp"
)

// Config says which Redis, and how a node uses it. Only URL is required.
type Config struct {
	URL string // redis://[user:password@]host[:port][/db], unix://[user:password@]/path, redis+sentinel:// or redis+cluster://; see README.md

	Password                  string // in place of the URL's
	CAFile, CertFile, KeyFile string // PEM: who vouches for servers, and what we show them; for rediss

	Retention bus.Retention // of every room's log; its fields say the defaults
	Observer  bus.Observer  // default NoObserver
	Log       *slog.Logger  // default slog.Default()

	Timeout           time.Duration // of a connection attempt, a write and an answer, each; default 2 s
	HeartbeatInterval time.Duration // default 2 s; after three that do not arrive a link is replaced
	LeaseTTL          time.Duration // a node silent for so long has left all rooms; default three heartbeats
	CompareInterval   time.Duration // how often a room is compared with Redis; default 2.5 s

	Replicas   int // that must have a message before it is acknowledged; default 0: only the primary
	Links      int // connections that publish and receive, each with a goroutine that calls the sinks; default 2, of one core 1
	QueueBytes int // what may wait to be published over one of them; default 16 MiB

	heldBytes int // what all rooms together hold until their logs are read; default 64 MiB

	wholeUsers int // of one room that are written at once; default 20,000

	// dial replaces the network in tests.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// presenceLife is how long what is said about presence outlives the last that was heard of a room or a node; default
	// 1 h. What an occupied room has is refreshed six times as often.
	presenceLife time.Duration
}

func (c Config) withDefaults() Config {
	c.Retention = c.Retention.WithDefaults()
	if c.Observer == nil {
		c.Observer = bus.NoObserver{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	fill := func(d *time.Duration, fallback time.Duration) {
		if *d == 0 {
			*d = fallback
		}
	}
	fill(&c.Timeout, 2*time.Second)
	fill(&c.HeartbeatInterval, 2*time.Second)
	fill(&c.LeaseTTL, 3*c.HeartbeatInterval)
	fill(&c.CompareInterval, 2500*time.Millisecond)
	fill(&c.presenceLife, time.Hour)
	if c.Links == 0 {
		c.Links = min(2, runtime.GOMAXPROCS(0))
	}
	if c.heldBytes == 0 {
		c.heldBytes = 64 << 20
	}
	if c.wholeUsers == 0 {
		c.wholeUsers = 20_000
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = 16 << 20
	}
	return c
}

// ErrMisconfigured is in those errors of Open that trying again does not help against: a URL that is none, a wrong
// password, missing rights. Without it the server may only be away.
var ErrMisconfigured = errors.New("not a matter of waiting")

// misconfigured makes an error one that is ErrMisconfigured.
type misconfigured struct{ error }

func (misconfigured) Is(target error) bool { return target == ErrMisconfigured }
func (m misconfigured) Unwrap() error      { return m.error }

// A Bus is a bus.Bus over a Redis server: one node of a cluster.
//
// What is said in a room is appended to the room's log by a script, which also publishes it to the room's channel
// (publisher). The node subscribes to the channels of the rooms that it has members in (subscriber); both are halves of one
// connection (link). Each room checks the chain of what arrives (room). What is missing is read from the log
// (repair.go). Who is in which room is kept under a lease (roster, lease).
type Bus struct {
	cfg     Config
	log     *slog.Logger
	options *redis.Options // of a connection; copied, never changed
	dialRaw dialer

	sentinels *sentinels             // nil for a server whose address is known
	addr      atomic.Pointer[string] // of the primary, as far as is known
	lost      chan struct{}          // capacity 1: it may be elsewhere

	db     int
	limits []byte // as append.lua takes them: entries, their age and the life of the last id in ms, bytes

	posts   *posts                 // static; of a Cluster, common to its parts
	cluster *Cluster               // of which this is the part that one primary has; nil for a server alone
	scripts *scripts               // static
	hashTag atomic.Pointer[string] // of a slot that the primary has; nil for a server alone
	lowTag  atomic.Pointer[string] // of the first one

	own   *redis.Client // of our own goroutines, with a connection for each: no caller is ever in their way
	reads *redis.Client // of callers

	server        server
	links         []*link
	trails        trails
	turns         turns
	held          heldBytes
	budget        budget
	repairs       workQueue[*room] // rooms whose logs are to be read
	rosterRepairs workQueue[*room] // rooms whose rosters are
	lease         lease
	reaper        reaper
	changes       workQueue[*roster] // rosters to be written
	writing       sync.Mutex         // held while rosters, and what names their rooms, are written
	leaving       chan struct{}      // closed when rosterLoop is to end
	left          chan struct{}      // closed when it has

	mu      sync.RWMutex
	rooms   map[string]*room   // guarded by mu; by name
	rosters map[string]*roster // guarded by mu; by name; of rooms that are subscribed to, or not yet left

	closed       atomic.Bool
	entering     sync.Mutex            // held while the server is asked to let the node in
	outside      atomic.Pointer[error] // why the server has not let the node in yet; nil once it has
	skew         atomic.Int64          // how far the server's clock is ahead of ours, in ns
	complained   sync.Map              // when something was last logged, a time.Time, by the first word of what was being done
	changeNumber atomic.Int64          // of the last change of a roster

	ctx     context.Context // ends when Close has said its goodbyes
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Open connects to the server and takes part from then on, or as soon as a server can be used that is full, loading, read-only or
// the like: until then the bus is not ready. The error names the host, never the password; see ErrMisconfigured. For a Cluster
// there is OpenCluster.
func Open(ctx context.Context, cfg Config) (*Bus, error) {
	cfg = cfg.withDefaults()
	t, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	if t.kind == aCluster {
		return nil, misconfigured{errors.New("the Redis URL is that of a Cluster")}
	}
	r := build(cfg, t, nil)
	if err := r.prepare(ctx); err != nil && !isForNow(err) {
		r.stop() // nothing is running yet
		r.closeClients()
		if isPermanent(err) {
			err = misconfigured{err}
		}
		return nil, fmt.Errorf("redis at %s: %w", t, err)
	}
	r.start()
	return r, nil
}

// build makes a Bus that does nothing yet. Of a Cluster it is the part that one primary has.
func build(cfg Config, t target, c *Cluster) *Bus {
	options := connectionOptions(cfg, t)
	r := &Bus{
		cfg: cfg, log: cfg.Log, options: options, db: options.DB, cluster: c, scripts: plain,
		lost: make(chan struct{}, 1), rooms: make(map[string]*room), rosters: make(map[string]*roster),
		repairs: newWorkQueue[*room](), rosterRepairs: newWorkQueue[*room](), changes: newWorkQueue[*roster](),
		leaving: make(chan struct{}), left: make(chan struct{}), posts: new(posts),
	}
	if c != nil {
		r.scripts, r.posts = sharded, &c.posts
	}
	r.budget.bytes.Store(budgetFirst)
	r.outside.Store(&errOutside)
	r.server.conns, r.server.until = make(map[*serverConn]bool), make(map[string]time.Time)
	r.trails.byRoom = make(map[string]*trail)
	r.dialRaw = rawDialer(cfg, t.options)
	options.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := r.connect(ctx, false)
		if err != nil {
			return nil, err
		}
		if _, ok := c.Conn.(syscall.Conn); ok {
			return serverSocket{c}, nil
		}
		return c, nil
	}
	for _, limit := range []int64{int64(cfg.Retention.Size), cfg.Retention.Age.Milliseconds(), r.lastLife().Milliseconds(), int64(cfg.Retention.Bytes)} {
		r.limits = resp.AppendInt(r.limits, limit)
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.addr.Store(&options.Addr)
	if t.kind == bySentinel {
		r.sentinels = newSentinels(t, cfg, r.dialRaw)
		r.addr.Store(new(string))
	}
	r.own = r.client(repairWorkers + rosterReaders + 5)
	r.reads = r.client(16)
	r.lease.init(r)
	r.reaper.init(r)
	return r
}

// connectionOptions are those of the connections that go-redis makes.
func connectionOptions(cfg Config, t target) *redis.Options {
	options := *t.options
	options.Protocol = 2    // pipelines check less
	options.MaxRetries = -1 // a publish must never be repeated behind our back
	options.DialerRetries = 1
	options.DialTimeout = cfg.Timeout
	options.ReadTimeout = cfg.Timeout
	options.WriteTimeout = cfg.Timeout
	options.PoolTimeout = cfg.Timeout
	options.ContextTimeoutEnabled = true
	options.PipelinePoolSize = -1 // all is pipelines here: one pool is enough
	options.ReadBufferSize = 64 << 10
	options.WriteBufferSize = 64 << 10
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return &options
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// rawDialer makes connections to whatever listens, within the time-out: a machine that is gone refuses nothing.
func rawDialer(cfg Config, o *redis.Options) dialer {
	dial := cfg.dial
	if dial == nil {
		within := *o
		within.DialTimeout = cfg.Timeout // under TLS it does not heed the context
		dial = redis.NewDialer(&within)
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return quiet(c), nil
	}
}

// client makes a client for commands. Each of its connections knows our script before it is used.
func (r *Bus) client(connections int) *redis.Client {
	o := *r.options
	o.PoolSize = connections
	o.OnConnect = func(ctx context.Context, c *redis.Conn) error { return r.scripts.loadPresence(ctx, c) }
	return redis.NewClient(&o)
}

// prepare finds out whether the server is one to work with, and enters.
func (r *Bus) prepare(ctx context.Context) error {
	if err := r.locate(ctx); err != nil {
		return err
	}
	return r.enter(ctx)
}

// start starts the loops. Those that act under a lease begin once the server has let the node in.
func (r *Bus) start() {
	for range r.cfg.Links {
		r.links = append(r.links, newLink(r))
	}
	for _, l := range r.links {
		r.running.Go(l.run)
	}
	for range repairWorkers {
		r.running.Go(r.repairLoop)
	}
	for range rosterReaders {
		r.running.Go(r.rosterRepairLoop)
	}
	r.running.Go(r.heartbeatLoop)
	r.running.Go(r.probeLoop)
	if r.sentinels != nil {
		r.running.Go(func() { r.sentinels.listen(r.ctx, func() { wake(r.lost) }) })
	}
	r.running.Go(r.rosterLoop)
	r.running.Go(r.enterLoop)
}

var errOutside = errors.New("the server has not been asked yet")

// enter does what comes before all else: it tries our rights, claims the layout and takes a lease. Until all is done the node
// publishes nothing, and is not ready.
func (r *Bus) enter(ctx context.Context) (err error) {
	r.entering.Lock()
	defer r.entering.Unlock()
	if r.notLetIn() == nil {
		return nil
	}
	defer func() {
		if err != nil {
			r.outside.Store(&err)
		} else {
			r.outside.Store(nil)
		}
	}()
	if err := r.tryRights(ctx); err != nil {
		return err
	}
	if err := r.claimLayout(ctx); err != nil {
		return err
	}
	if err := r.lease.take(ctx); err != nil {
		return err
	}
	r.warnOfEviction(ctx)
	return nil
}

// enterLoop tries to enter until it succeeds. What would have ended a start does not end a node: it says what is wrong.
func (r *Bus) enterLoop() {
	for r.notLetIn() != nil {
		if err := r.notLetIn(); err != nil && !errors.Is(err, errOutside) {
			r.complain("not ready", err)
		}
		select {
		case <-time.After(r.cfg.HeartbeatInterval / 2):
		case <-r.ctx.Done():
			return
		}
		_ = r.enter(r.ctx) // it is told above
	}
	r.takePart()
}

// takePart starts the loops of a node that was let in.
func (r *Bus) takePart() {
	r.running.Go(r.leaseLoop)
	r.running.Go(r.layoutLoop)
	r.running.Go(r.reaper.run)
	r.running.Go(r.reconcileLoop)
}

// notLetIn is why the node may do nothing yet, nil once it may.
func (r *Bus) notLetIn() error {
	if why := r.outside.Load(); why != nil {
		return *why
	}
	return nil
}

// warnOfEviction warns if the server may throw away what was acknowledged.
func (r *Bus) warnOfEviction(ctx context.Context) {
	v, err := r.own.ConfigGet(ctx, "maxmemory*").Result()
	if err != nil { // CONFIG is often forbidden
		return
	}
	if policy := v["maxmemory-policy"]; policy != "noeviction" && v["maxmemory"] != "0" {
		r.log.Warn("redis may evict messages that were acknowledged: set maxmemory-policy to noeviction", "policy", policy)
	}
}

// isForNow reports whether the server is there, and says that it can't do for now what it was asked.
func isForNow(err error) bool { return isReply(err) && !isPermanent(err) }

// isPermanent reports whether a failed start would fail again.
func isPermanent(err error) bool {
	if errors.Is(err, ErrMisconfigured) {
		return true
	}
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var said *net.OpError // an alert of TLS: our certificate is missing, or not taken
	if errors.As(err, &cert) || errors.As(err, &record) || errors.As(err, &said) && said.Op == "remote error" {
		return true
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	for _, transient := range []string{
		"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "ASK ", "MOVED ", "READONLY", "BUSY", "OOM", "MISCONF", "NOREPLICAS",
		"ERR max number of clients",
	} {
		if strings.HasPrefix(reply.Error(), transient) {
			return false
		}
	}
	return true
}

// Ready implements bus.Bus.
func (r *Bus) Ready() error {
	if r.closed.Load() {
		return bus.ErrClosed
	}
	if err := r.notLetIn(); err != nil {
		return fmt.Errorf("redis can't be used yet: %w", err)
	}
	limit := 3 * r.cfg.HeartbeatInterval
	if age := r.HeartbeatAge(); age > limit {
		return fmt.Errorf("the bus is deaf: nothing that it published arrived here for %v", age.Round(time.Second/10))
	}
	if age, cause := r.lease.age(); age > limit {
		return fmt.Errorf("redis has taken nothing for %v: %w", age.Round(time.Second/10), cause)
	}
	return nil
}

// now is the server's time, roughly.
func (r *Bus) now() time.Time { return r.onServer(time.Now()) }

// onServer is what the server's clock shows at a time of ours.
func (r *Bus) onServer(t time.Time) time.Time { return t.Add(time.Duration(r.skew.Load())) }

// HeartbeatAge implements bus.Bus.
func (r *Bus) HeartbeatAge() time.Duration {
	var oldest time.Duration
	for _, l := range r.links {
		oldest = max(oldest, time.Since(l.subscriber.lastBeat()))
	}
	return oldest
}

// heartbeatLoop sends a heartbeat over every link.
func (r *Bus) heartbeatLoop() {
	tick := time.NewTicker(r.cfg.HeartbeatInterval)
	defer tick.Stop()
	for {
		for _, l := range r.links {
			l.subscriber.expectBeat()
			l.sendBeat()
		}
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
	}
}

// silence is how long a node that closes waits for a server from which nothing comes.
const silence = 700 * time.Millisecond

// Close implements bus.Bus. It takes as long as the server needs to take what is left to say; twice the silence and little more if
// that is away.
func (r *Bus) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	for _, l := range r.links {
		l.publisher.finish()
	}
	answers := true
	for _, l := range r.links {
		answers = answers && l.publisher.awaitIdle()
	}
	r.mu.RLock()
	rooms := make([]*room, 0, len(r.rooms))
	for _, rm := range r.rooms {
		rooms = append(rooms, rm)
	}
	r.mu.RUnlock()
	for _, rm := range rooms {
		rm.Close()
	}
	close(r.leaving)
	if answers {
		r.leaveAll()
	}
	r.stop()
	r.server.leave() // nobody waits for an answer any more
	r.running.Wait()
	r.closeClients()
	return nil
}

func (r *Bus) closeClients() {
	_ = r.own.Close()
	_ = r.reads.Close()
	if r.sentinels != nil {
		r.sentinels.close()
	}
}

// unavailable wraps what went wrong between us and Redis.
func unavailable(cause error) error {
	return fmt.Errorf("%w: %w", bus.ErrUnavailable, cause)
}

// randomName gives 100 random bits in letters and digits.
func randomName() string { return rand.Text()[:20] }

// complain logs what is wrong with Redis, of each kind at most once in a few seconds.
func (r *Bus) complain(doing string, err error) {
	if r.closed.Load() {
		return
	}
	kind, _, _ := strings.Cut(doing, " ")
	now := time.Now()
	before, known := r.complained.Load(kind)
	if known && now.Sub(before.(time.Time)) < complainEvery {
		return
	}
	r.complained.Store(kind, now)
	r.log.Warn("redis: "+doing, "err", err)
}

const complainEvery = 5 * time.Second

// lastLife is how long the last id's key outlives the last use of its room: longer than the log.
func (r *Bus) lastLife() time.Duration { return r.cfg.Retention.Age + time.Hour }
