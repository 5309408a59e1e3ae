package node

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/node/wire"
)

// Limits bound what clients may do, so that a script that misbehaves meets them, and many people behind one address do not. Zero is
// no limit. What is over one is answered rate_limited, or unavailable if another node may do it.
type Limits struct {
	Connections int // of all clients together

	// Of one address: that of an IPv4 client, or the /64 of an IPv6 client.
	AddressConnections int // open at a time
	AddressAttempts    int // to connect, a second; attemptBurst seconds' worth at once
	AddressRequests    int // over HTTP, a second; requestBurst seconds' worth at once
	AddressRooms       int // brought into being, a minute

	// Of one user with a token, over all nodes.
	UserMessages    int // a second; userBurst seconds' worth at once
	UserConnections int // open at a time

	// Of one connection.
	Messages     int // a second; of other requests as many as are as dear
	MessageBurst int // at once
	Rooms        int // that it is in; it may join so many at once, and a tenth of them each second
}

// How many seconds' worth an address may have at once: all who share it come back within the drain of the node that they were on.
const (
	attemptBurst = 25
	requestBurst = 10
)

// The names of the limits, as an Observer is told them.
const (
	limitConnections        = "connections"
	limitAddressConnections = "address_connections"
	limitAddressAttempts    = "address_attempts"
	limitAddressRequests    = "address_requests"
	limitAddressRooms       = "address_rooms"
	limitMessages           = "messages"
	limitJoins              = "joins"
	limitRooms              = "rooms"
	limitUserMessages       = "user_messages"
	limitUserConnections    = "user_connections"
)

// limited is what a request over a limit is answered.
func (s *Server) limited(limit string, code wire.Code, wait time.Duration, format string, args ...any) *wire.Error {
	s.cfg.Observer.Limited(limit)
	e := wire.Errorf(code, format, args...)
	e.RetryAfter = wait
	return e
}

// leastWait is the least that who went over a limit is told to wait. All that such a connection says meanwhile is refused, so that
// what it had sent before it knew does not overtake what it repeats.
const leastWait = time.Second

// take takes n from a bucket, or says how long to wait for them.
func take(l *rate.Limiter, now time.Time, n int) (wait time.Duration) {
	if l == nil {
		return 0
	}
	n = min(n, l.Burst())
	if l.AllowN(now, n) {
		return 0
	}
	r := l.ReserveN(now, n)
	defer r.CancelAt(now)
	return max(leastWait, r.DelayFrom(now))
}

// newBucket makes a bucket that n a second flow into; nil is none.
func newBucket(n float64, burst int) *rate.Limiter {
	if n <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(n), max(1, burst))
}

// A pace is that of one connection. Its reader owns it.
type pace struct {
	messages *rate.Limiter // nil before the first request
	joins    *rate.Limiter // nil before the first join
	until    time.Time     // nothing is done before
	ignored  int           // requests that came in spite of until, in a row
}

// maxIgnored is how often a client may go on in spite of being told to wait. It may have sent that much before it heard.
const maxIgnored = 256

// keepPace says whether a request has to wait. A client that ignores that again and again is closed. The reader calls it.
func (s *session) keepPace(op string) *wire.Error {
	l, p, now := &s.srv.cfg.Limits, &s.pace, time.Now()
	limit, wait := limitMessages, p.until.Sub(now)
	if wait > 0 {
		p.ignored++
	} else {
		p.ignored = 0
		if l.Messages > 0 {
			if p.messages == nil {
				p.messages = newBucket(float64(l.Messages*messageWeight), l.MessageBurst*messageWeight)
			}
			n := max(1, operations[op].weight)
			if op == "join" {
				n = 1 // which has a bucket of its own
			}
			wait = take(p.messages, now, n)
		}
		if wait <= 0 && op == "join" && l.Rooms > 0 {
			if p.joins == nil {
				p.joins = newBucket(max(1, float64(l.Rooms)/10), l.Rooms)
			}
			limit, wait = limitJoins, take(p.joins, now, 1)
		}
		if wait <= 0 && (op == "send" || op == "signal") {
			if wait = s.srv.spend(&s.identity); wait > 0 {
				limit = limitUserMessages
			}
		}
	}
	if wait <= 0 {
		return nil
	}
	p.until = now.Add(wait)
	if p.ignored > maxIgnored {
		s.end(closing{code: wire.StatusPolicy, reason: "too much, too fast, again and again"})
	}
	if limit == limitUserMessages {
		return s.srv.tooMuch(wait)
	}
	if limit == limitJoins {
		return s.srv.limited(limit, wire.RateLimited, wait, "too many joins: at most %d at once are allowed, and a tenth of that a second", l.Rooms)
	}
	return s.srv.limited(limit, wire.RateLimited, wait, "too many messages: at most %d a second are allowed, and %d at once", l.Messages, l.MessageBurst)
}

// tooMuch is what is said to a user that says more than it may over all nodes.
func (s *Server) tooMuch(wait time.Duration) *wire.Error {
	most := s.cfg.Limits.UserMessages
	return s.limited(limitUserMessages, wire.RateLimited, wait, "too many messages: at most %d a second are allowed over all that you have open, and %d at once", most, most*userBurst)
}

// messageWeight is how dear a message is.
var messageWeight = operations["send"].weight

// mayJoin says whether a caller may be in one more room, which may have to be brought into being.
func (s *Server) mayJoin(c *caller, room string) *wire.Error {
	if most := s.cfg.Limits.Rooms; most > 0 && len(c.rooms) >= most {
		return s.limited(limitRooms, wire.Forbidden, 0, "a connection may be in %d rooms at a time", most)
	}
	return s.mayOpen(c.addr, room)
}

// mayOpen says whether an address may use a room, which it may have to bring into being.
func (s *Server) mayOpen(addr, room string) *wire.Error {
	if s.cfg.Limits.AddressRooms <= 0 {
		return nil
	}
	s.roomsMu.Lock()
	_, open := s.rooms[room]
	s.roomsMu.Unlock()
	if open {
		return nil
	}
	if wait := s.addresses.spend(addr, func(a *address) *rate.Limiter { return a.rooms }); wait > 0 {
		return s.limited(limitAddressRooms, wire.RateLimited, wait, "your address may bring %d rooms into being in a minute", s.cfg.Limits.AddressRooms)
	}
	return nil
}

// mayRequest says whether an address may make one more request over HTTP.
func (s *Server) mayRequest(addr string) *wire.Error {
	if wait := s.addresses.spend(addr, func(a *address) *rate.Limiter { return a.requests }); wait > 0 {
		return s.limited(limitAddressRequests, wire.RateLimited, wait, "your address may make %d requests a second", s.cfg.Limits.AddressRequests)
	}
	return nil
}

// arrive lets a client connect, or says why not. Without an error the caller has to see to one depart.
func (s *Server) arrive(r *http.Request) *wire.Error {
	l := &s.cfg.Limits
	if n := s.connections.Add(1); l.Connections > 0 && n > int64(l.Connections) {
		s.connections.Add(-1)
		return s.limited(limitConnections, wire.Unavailable, s.retryAfter(), "this node has as many clients as it may: connect to another")
	}
	limit, wait := s.addresses.arrive(r.RemoteAddr)
	if limit == "" {
		return nil
	}
	s.connections.Add(-1)
	if limit == limitAddressConnections {
		return s.limited(limit, wire.RateLimited, wait, "your address may have %d connections open at a time", l.AddressConnections)
	}
	return s.limited(limit, wire.RateLimited, wait, "your address may connect %d times a second", l.AddressAttempts)
}

// depart undoes arrive.
func (s *Server) depart(addr string) {
	s.connections.Add(-1)
	s.addresses.depart(addr)
}

// addresses are what is known of the addresses that clients come from. It is forgotten when it says nothing any more.
type addresses struct {
	limits *Limits // static

	mu    sync.Mutex
	known map[netip.Prefix]*address // guarded by mu; those without connections are at most maxIdleAddresses
	idle  int                       // guarded by mu; how many have no connection
}

// An address is one that clients come from. Guarded by addresses.mu.
type address struct {
	connections               int
	used                      time.Time
	attempts, requests, rooms *rate.Limiter // nil without a limit
}

const (
	addressLife      = time.Minute // after which every bucket is full again
	maxIdleAddresses = 1 << 14
)

// keyOf is what of an address counts: nobody chooses their IPv4 address, and everybody may choose in a /64 (RFC 6177).
func keyOf(addr string) (netip.Prefix, bool) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Prefix{}, false
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // which every address of the kind has
	return p, true
}

// atLocked finds an address, or begins to know it. It needs mu.
func (as *addresses) atLocked(addr string, now time.Time) *address {
	key, ok := keyOf(addr)
	if !ok {
		return nil
	}
	a := as.known[key]
	if a == nil {
		if as.idle >= maxIdleAddresses {
			as.forgetOneLocked()
		}
		l := as.limits
		a = &address{
			attempts: newBucket(float64(l.AddressAttempts), l.AddressAttempts*attemptBurst),
			requests: newBucket(float64(l.AddressRequests), l.AddressRequests*requestBurst),
			rooms:    newBucket(float64(l.AddressRooms)/60, l.AddressRooms),
		}
		if as.known == nil {
			as.known = make(map[netip.Prefix]*address)
		}
		as.known[key] = a
		as.idle++
	}
	a.used = now
	return a
}

// forgetOneLocked forgets one of the idle addresses, whichever the map gives first. It needs mu.
func (as *addresses) forgetOneLocked() {
	for key, a := range as.known {
		if a.connections == 0 {
			delete(as.known, key)
			as.idle--
			return
		}
	}
}

// arrive counts a connection, or says what limit is in the way.
func (as *addresses) arrive(addr string) (limit string, wait time.Duration) {
	as.mu.Lock()
	defer as.mu.Unlock()
	now := time.Now()
	a := as.atLocked(addr, now)
	if a == nil {
		return "", 0
	}
	if wait := take(a.attempts, now, 1); wait > 0 {
		return limitAddressAttempts, wait
	}
	if most := as.limits.AddressConnections; most > 0 && a.connections >= most {
		return limitAddressConnections, leastWait
	}
	if a.connections++; a.connections == 1 {
		as.idle--
	}
	return "", 0
}

func (as *addresses) depart(addr string) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if a := as.atLocked(addr, time.Now()); a != nil {
		if a.connections--; a.connections == 0 {
			as.idle++
		}
	}
}

// spend takes one from a bucket of an address, or says how long to wait.
func (as *addresses) spend(addr string, bucket func(*address) *rate.Limiter) (wait time.Duration) {
	as.mu.Lock()
	defer as.mu.Unlock()
	now := time.Now()
	a := as.atLocked(addr, now)
	if a == nil {
		return 0
	}
	return take(bucket(a), now, 1)
}

// forget forgets the addresses that nothing has come from for a while.
func (as *addresses) forget(now time.Time) {
	as.mu.Lock()
	defer as.mu.Unlock()
	for key, a := range as.known {
		if a.connections == 0 && now.Sub(a.used) > addressLife {
			delete(as.known, key)
			as.idle--
		}
	}
}
