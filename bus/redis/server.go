package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"parley/bus/redis/resp"
)

// A server is what all connections of a node lead to: one process of Redis, a primary. Where an address leads may change, and a
// primary may become a replica, while connections stay open. A node that talked to two servers at once would take one for the
// other: it would miss what it had read, or note a loss where nobody reads it. So a connection that leads to another server than
// the others ends all of those.
type server struct {
	mu    sync.Mutex
	run   string               // guarded by mu; the id of the process's run; "" if none is known
	conns map[*serverConn]bool // guarded by mu; those that are open
	until map[string]time.Time // guarded by mu; when a link last heard a run, once its connection has ended
	term  atomic.Uint64        // counts the servers; changed with mu held
}

// A serverConn is a connection to the server.
type serverConn struct {
	net.Conn
	server *server
	run    string // the server's
}

// A serverSocket is a serverConn that can be looked at; see quietSocket.
type serverSocket struct{ *serverConn }

// SyscallConn implements syscall.Conn.
func (s serverSocket) SyscallConn() (syscall.RawConn, error) {
	return s.Conn.(syscall.Conn).SyscallConn()
}

func (c *serverConn) Close() error {
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	return c.Conn.Close()
}

// cut ends a connection at once. Under TLS it closes the TCP connection: TLS's goodbye could block.
func (c *serverConn) cut() {
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = c.Conn.Close()
}

var errMoved = errors.New("the connection led to another server than the others")

// adopt takes a connection in, made while the term was term, to the server of that run.
func (s *server) adopt(nc net.Conn, run string, term uint64) (*serverConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if run != s.run {
		if term != s.term.Load() { // it is older than the change
			return nil, errMoved
		}
		s.leaveLocked()
		s.run = run
	}
	c := &serverConn{Conn: nc, server: s, run: run}
	s.conns[c] = true
	return c, nil
}

// runNow is the id of the server's run, "" if none is known.
func (s *server) runNow() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// runLife is how long it is known until when a run was heard.
const runLife = 24 * time.Hour

// heard notes until when a run was.
func (s *server) heard(run string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.until, func(_ string, until time.Time) bool { return time.Since(until) > runLife })
	if s.until[run].Before(until) {
		s.until[run] = until
	}
}

// heardUntil is until when a run was heard, now if it may be heard still.
func (s *server) heardUntil(run string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, known := s.until[run]; known {
		return until
	}
	return time.Now()
}

// leave ends all connections: the server is none to talk to.
func (s *server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked()
}

func (s *server) leaveLocked() {
	s.run = ""
	s.term.Add(1)
	for c := range s.conns {
		c.cut()
	}
	clear(s.conns)
}

// elsewhere are the answers of a server that is none to talk to, or not now.
var elsewhere = []string{"READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "CLUSTERDOWN", "MOVED"}

func isElsewhere(said string) bool {
	for _, s := range elsewhere {
		if strings.HasPrefix(said, s) {
			return true
		}
	}
	return false
}

// locate finds out where the primary is.
func (r *Bus) locate(ctx context.Context) error {
	if r.sentinels == nil {
		return nil
	}
	addr, err := r.sentinels.ask(ctx)
	if addr != "" {
		r.addr.Store(&addr)
	}
	return err
}

// connect is dial, to where the primary was last known to be.
func (r *Bus) connect(ctx context.Context, link bool) (*serverConn, error) {
	c, err := r.dial(ctx, r.options.Network, *r.addr.Load(), link)
	if err != nil {
		wake(r.lost)
	}
	return c, err
}

// dial makes a connection to the server, which is a primary and speaks version 3 of the protocol. As a link's it is given our
// scripts too.
func (r *Bus) dial(ctx context.Context, network, addr string, link bool) (*serverConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)() // go-redis dials in a context of its own
	term := r.server.term.Load()
	nc, err := r.dialRaw(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = nc.SetDeadline(time.Now().Add(r.cfg.Timeout))
	run, err := r.greet(nc, link)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	var c *serverConn
	if err == nil {
		c, err = r.server.adopt(nc, run, term)
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

// greet logs in, chooses the database, and finds out which server this is.
func (r *Bus) greet(nc net.Conn, link bool) (run string, err error) {
	o := r.options
	hello := []string{"HELLO", "3"}
	if o.Password != "" {
		user := o.Username
		if user == "" {
			user = "default"
		}
		hello = append(hello, "AUTH", user, o.Password)
	}
	out := resp.Append(nil, hello...)
	out = resp.AppendInt(resp.AppendArg(resp.AppendCommand(out, 2), "SELECT"), int64(r.db))
	out = resp.Append(out, "INFO", "server")
	want := 3
	if link {
		out = r.scripts.appendLoad(out)
		want += loads
	}
	if _, err := nc.Write(out); err != nil {
		return "", err
	}
	var parser resp.Parser
	var got []byte
	for answers := 0; answers < want; {
		v, size, err := parser.Parse(got)
		if err != nil {
			return "", err
		}
		if size == 0 {
			var buf [4096]byte
			n, err := nc.Read(buf[:])
			if err != nil {
				return "", err
			}
			got = append(got, buf[:n]...)
			continue
		}
		switch {
		case answers == 0 && r.cluster != nil && field(v, "mode") != "cluster":
			return "", misconfigured{errNoCluster}
		case answers == 0 && r.cluster == nil && field(v, "mode") == "cluster":
			return "", misconfigured{errors.New("it is a node of a Redis Cluster, whose URL begins with redis+cluster:// or rediss+cluster://")}
		case answers == 0 && field(v, "mode") == "sentinel":
			return "", misconfigured{errors.New("it is a sentinel: say redis+sentinel://host:port[,host:port...]/name, or rediss+sentinel://")}
		case v.Kind == resp.Error && answers == 0 && isUnknownHello(string(v.Text)):
			return "", tooOld("older")
		case v.Kind == resp.Error:
			return "", refusal(v.Text)
		case answers == 0 && field(v, "role") != "master":
			return "", refusal("READONLY this server is a replica")
		case answers == 2:
			run = lineOf(string(v.Text), "run_id:")
			version := lineOf(string(v.Text), "redis_version:")
			if major, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0]); err == nil && major < needsMajor {
				return "", tooOld(version)
			}
		}
		got = got[size:]
		answers++
	}
	if run == "" {
		return "", errors.New("the server does not say which run of it this is")
	}
	return run, nil
}

// needsMajor is the oldest version of Redis whose scripts have flags.
const needsMajor = 7

func tooOld(version string) error {
	return misconfigured{fmt.Errorf("needs Redis %d.0 or newer, and this server is %s", needsMajor, version)}
}

// isUnknownHello reports whether a server knows no HELLO, or not that of version 3 of the protocol.
func isUnknownHello(said string) bool {
	return strings.HasPrefix(said, "ERR unknown command") || strings.HasPrefix(said, "NOPROTO")
}

// field is a field of a map.
func field(v resp.Value, name string) string {
	for i := 0; i+1 < len(v.Elems); i += 2 {
		if string(v.Elems[i].Text) == name {
			return string(v.Elems[i+1].Text)
		}
	}
	return ""
}

// lineOf is the rest of the line that begins with prefix.
func lineOf(text, prefix string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// probeLoop makes a connection now and then, and when there may be need: where the address leads to another server by now, or
// sentinels name another, the open ones do not show it.
func (r *Bus) probeLoop() {
	tick := time.NewTicker(r.cfg.HeartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.relocate():
			tick.Reset(r.cfg.HeartbeatInterval)
		case <-r.ctx.Done():
			return
		}
		if err := r.locate(r.ctx); err != nil && r.ctx.Err() == nil {
			r.complain("ask sentinels", err)
			select { // all who fail to connect want it asked
			case <-time.After(minBackoff):
			case <-r.ctx.Done():
			}
		}
		c, err := r.dial(r.ctx, r.options.Network, *r.addr.Load(), false)
		if err == nil {
			_ = c.Close()
		}
	}
}

// relocate says when to ask anew where the primary is; never where that is known.
func (r *Bus) relocate() <-chan struct{} {
	if r.sentinels == nil {
		return nil
	}
	return r.lost
}
