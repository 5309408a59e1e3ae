package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A subscriber receives the channels that are hashed to it, over one connection after the other. It calls the rooms, and
// they their sinks, from its only reader.
type subscriber struct {
	bus    *Redis
	number int
	beats  string        // the channel of our own heartbeats
	wake   chan struct{} // capacity 1: the writer has something to look at

	sessions atomic.Int32 // those that worked
	unheard  atomic.Int32 // heartbeats sent since anything arrived
	beaten   atomic.Int64 // when the last heartbeat arrived, as a time since epoch
	epoch    time.Time

	mu      sync.Mutex
	wanted  map[string]*redisRoom // guarded by mu; by channel
	changed map[string]struct{}   // guarded by mu; channels that the writer is to look at
	session *session              // guarded by mu; nil while there is none
}

// A session is one connection's life. Nothing reconnects it behind our back, so what was sent on it and not confirmed is
// known exactly.
type session struct {
	pubsub  *redis.PubSub
	client  *redis.Client
	conn    atomic.Pointer[net.Conn]
	sent    map[string]bool // owned by the writer: channels asked for
	pending map[string]int  // guarded by subscriber.mu: commands sent and not confirmed, by channel
}

var errOneConnection = errors.New("this subscription is over")

// yieldEvery is how many messages are received before others get their turn, however many there are.
const yieldEvery = 32

// subscribeChunk is the number of channels in one command.
const subscribeChunk = 500

func newSubscriber(r *Redis, number int) *subscriber {
	return &subscriber{
		bus: r, number: number, beats: "parley:beat:" + randomName(), wake: make(chan struct{}, 1), epoch: time.Now(),
		wanted: make(map[string]*redisRoom), changed: make(map[string]struct{}),
	}
}

func (s *subscriber) lastBeat() time.Time { return s.epoch.Add(time.Duration(s.beaten.Load())) }

// expectBeat is told before a heartbeat is sent. A connection on which nothing came since three heartbeats is given up.
func (s *subscriber) expectBeat() {
	if s.unheard.Add(1) > 3 {
		s.drop()
	}
}

// drop breaks the connection, if there is one.
func (s *subscriber) drop() {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session == nil {
		return
	}
	session.breakOff()
}

// breakOff closes the connection at once. Over TLS that is the one below: a goodbye could block.
func (se *session) breakOff() {
	c := se.conn.Load()
	if c == nil {
		return
	}
	if t, ok := (*c).(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = (*c).Close()
}

// want subscribes to a room's channel; the room is told when that is confirmed, now and on every connection to come.
func (s *subscriber) want(rm *redisRoom) {
	s.mu.Lock()
	s.wanted[rm.keys.channel] = rm
	s.changed[rm.keys.channel] = struct{}{}
	s.mu.Unlock()
	wake(s.wake)
}

func (s *subscriber) unwant(rm *redisRoom) {
	s.mu.Lock()
	if s.wanted[rm.keys.channel] == rm {
		delete(s.wanted, rm.keys.channel)
		s.changed[rm.keys.channel] = struct{}{}
	}
	s.mu.Unlock()
	wake(s.wake)
}

func (s *subscriber) run() {
	for {
		err := s.serve()
		if s.bus.ctx.Err() != nil {
			return
		}
		s.bus.complain("subscription connection lost", err)
		select {
		case <-time.After(50*time.Millisecond + rand.N(200*time.Millisecond)):
		case <-s.bus.ctx.Done():
			return
		}
	}
}

// serve makes a connection and receives until it breaks.
func (s *subscriber) serve() error {
	se := s.newSession()
	ctx, cancel := context.WithCancel(s.bus.ctx)
	var writer sync.WaitGroup
	writer.Go(func() { s.write(ctx, se) })
	defer func() {
		s.mu.Lock()
		s.session = nil
		s.mu.Unlock()
		cancel()
		se.breakOff()
		_ = se.pubsub.Close()
		writer.Wait()
		_ = se.client.Close()
	}()
	for n := 1; ; n++ {
		if n%yieldEvery == 0 {
			runtime.Gosched() // see quietSocket
		}
		m, err := se.pubsub.Receive(ctx)
		if err != nil {
			return err
		}
		s.unheard.Store(0)
		switch m := m.(type) {
		case *redis.Message:
			s.receive(m)
		case *redis.Subscription:
			s.confirm(se, m)
		}
	}
}

func (s *subscriber) newSession() *session {
	se := &session{sent: make(map[string]bool), pending: make(map[string]int)}
	o := *s.bus.options
	o.ReadBufferSize = 256 << 10 // big gulps
	dial := o.Dialer
	var once error // owned by the PubSub, which holds a lock as it dials; why there is no second connection
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if once != nil {
			return nil, once
		}
		once = errOneConnection
		c, err := dial(ctx, network, addr)
		if err != nil {
			once = err
			return nil, err
		}
		se.conn.Store(&c)
		if s.bus.ctx.Err() != nil { // and drop may have come too early
			se.breakOff()
		}
		return c, nil
	}
	se.client = redis.NewClient(&o)
	se.pubsub = se.client.Subscribe(s.bus.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = se
	for channel := range s.wanted {
		s.changed[channel] = struct{}{}
	}
	s.changed[s.beats] = struct{}{}
	s.unheard.Store(0)
	return se
}

// write sends what subscriptions are to change, many at a time.
func (s *subscriber) write(ctx context.Context, se *session) {
	for {
		subscribe, unsubscribe, kept := s.changes(se)
		for _, rm := range kept {
			rm.confirmed()
		}
		if err := send(ctx, subscribe, se.pubsub.Subscribe); err != nil {
			s.drop()
			return
		}
		if err := send(ctx, unsubscribe, se.pubsub.Unsubscribe); err != nil {
			s.drop()
			return
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

func send(ctx context.Context, channels []string, command func(context.Context, ...string) error) error {
	for len(channels) > 0 {
		n := min(len(channels), subscribeChunk)
		if err := command(ctx, channels[:n]...); err != nil {
			return err
		}
		channels = channels[n:]
	}
	return nil
}

// changes compares what is wanted with what was sent, for the channels that changed. The rooms kept were closed and opened
// again in between: the old subscription will do.
func (s *subscriber) changes(se *session) (subscribe, unsubscribe []string, kept []*redisRoom) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for channel := range s.changed {
		wanted := channel == s.beats || s.wanted[channel] != nil
		switch {
		case wanted && !se.sent[channel]:
			se.sent[channel] = true
			se.pending[channel]++
			subscribe = append(subscribe, channel)
		case !wanted && se.sent[channel]:
			delete(se.sent, channel)
			se.pending[channel]++
			unsubscribe = append(unsubscribe, channel)
		case wanted && s.wanted[channel] != nil && se.pending[channel] == 0:
			kept = append(kept, s.wanted[channel])
		}
	}
	clear(s.changed)
	return subscribe, unsubscribe, kept
}

// confirm takes the server's word that a subscription begins or ended. Only the answer to the last command counts.
func (s *subscriber) confirm(se *session, m *redis.Subscription) {
	s.mu.Lock()
	rm := s.wanted[m.Channel]
	if se.pending[m.Channel]--; se.pending[m.Channel] > 0 {
		rm = nil
	} else {
		delete(se.pending, m.Channel)
	}
	s.mu.Unlock()
	switch {
	case m.Kind != "subscribe":
	case m.Channel == s.beats:
		if s.sessions.Add(1) > 1 {
			s.bus.cfg.Observer.Reconnected()
		}
		s.bus.sendBeat(s) // so that it is known at once that this one works
	case rm != nil:
		rm.confirmed()
	}
}

func (s *subscriber) receive(m *redis.Message) {
	if m.Channel == s.beats {
		s.beaten.Store(int64(time.Since(s.epoch)))
		return
	}
	s.mu.Lock()
	rm := s.wanted[m.Channel]
	s.mu.Unlock()
	if rm != nil {
		rm.receive(m.Payload)
	}
}
