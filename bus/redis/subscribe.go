package redis

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/bus/redis/resp"
)

// A subscriber is the receiving half of a link. The link's reader calls it, it calls the rooms, and they call their sinks.
type subscriber struct {
	link  *link
	beats atomic.Pointer[string] // the channel of our own heartbeats
	epoch time.Time

	connections atomic.Int32 // connections that worked
	unheard     atomic.Int32 // heartbeats sent since anything arrived
	beaten      atomic.Int64 // when the last heartbeat arrived, as a time since epoch

	mu      sync.Mutex
	wanted  map[string]*room    // guarded by mu; by channel
	changed map[string]struct{} // guarded by mu; channels that the writer is to look at
	alone   []string            // guarded by mu; channels to be asked for one by one
	denied  map[string]bool     // guarded by mu; channels that the server refused on this connection
	pending map[string]int      // guarded by mu; commands sent on this connection and not confirmed, by channel
	over    []string            // guarded by mu; channels whose subscriptions the server has ended
}

// subscribeChunk is the number of channels in one command.
const subscribeChunk = 500

func (s *subscriber) init(l *link) {
	s.link, s.epoch = l, time.Now()
	s.beatOn(beatOf(l.bus.tag()))
	s.wanted, s.changed = make(map[string]*room), make(map[string]struct{})
}

func beatOf(tag string) string { return "parley:beat:" + tag + randomName() }

// beatOn has the next connection use another channel for heartbeats.
func (s *subscriber) beatOn(channel string) { s.beats.Store(&channel) }

func (s *subscriber) lastBeat() time.Time { return s.epoch.Add(time.Duration(s.beaten.Load())) }

// expectBeat is called before a heartbeat is sent. It drops a connection on which nothing came since three heartbeats.
func (s *subscriber) expectBeat() {
	if s.unheard.Add(1) > 3 {
		s.link.drop()
	}
}

// want subscribes to a room's channel, on this connection and on those that follow. It calls the room's confirmed on each.
func (s *subscriber) want(rm *room) {
	s.mu.Lock()
	s.wanted[rm.keys.channel] = rm
	s.changed[rm.keys.channel] = struct{}{}
	s.mu.Unlock()
	wake(s.link.wake)
}

func (s *subscriber) unwant(rm *room) {
	s.mu.Lock()
	if s.wanted[rm.keys.channel] == rm {
		delete(s.wanted, rm.keys.channel)
		s.changed[rm.keys.channel] = struct{}{}
	}
	s.mu.Unlock()
	wake(s.link.wake)
}

func (s *subscriber) rooms() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.wanted)
}

// begin is called for a new connection, on which everything is to be subscribed to. It gives the rooms.
func (s *subscriber) begin() (rooms []*room) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.denied, s.alone, s.over = make(map[string]int), make(map[string]bool), nil, nil
	for channel, rm := range s.wanted {
		s.changed[channel] = struct{}{}
		rooms = append(rooms, rm)
	}
	s.changed[*s.beats.Load()] = struct{}{}
	s.unheard.Store(0)
	return rooms
}

// appendChanges appends the commands that subscribe to what is wanted and not asked for, and the other way round. A room that
// was closed and opened again meanwhile keeps the subscription that there is.
func (s *subscriber) appendChanges(out []byte, c *conn) ([]byte, []awaited) {
	subscribe, unsubscribe, kept := s.changes(c)
	for _, rm := range kept {
		rm.confirmed()
	}
	s.mu.Lock()
	alone := s.alone
	s.alone = nil
	s.mu.Unlock()
	if s.link.bus.cluster != nil {
		return appendSharded(out, subscribe, unsubscribe)
	}
	out, await := appendChannels(out, nil, "SUBSCRIBE", alone, 1)
	out, await = appendChannels(out, await, "SUBSCRIBE", subscribe, subscribeChunk)
	return appendChannels(out, await, "UNSUBSCRIBE", unsubscribe, subscribeChunk)
}

// appendSharded has one command for each channel: those of several slots can't share one.
func appendSharded(out []byte, subscribe, unsubscribe []string) ([]byte, []awaited) {
	out, await := appendChannels(out, nil, sharded.subscribe, subscribe, 1)
	for _, channel := range unsubscribe {
		out = resp.Append(out, sharded.unsubscribe, channel)
		out = resp.Append(out, "ECHO", "ended")
		await = append(await, awaited{ends: channel})
	}
	return out, await
}

// ended is told that a primary of a Cluster has ended a subscription, as it does when a slot moves away. Where the room stays,
// because the slot came back, it is asked for again.
func (s *subscriber) ended(channel string) {
	s.mu.Lock()
	s.over = append(s.over, channel)
	s.denied[channel] = true
	s.mu.Unlock()
	s.link.bus.cluster.look()
}

func appendChannels(out []byte, await []awaited, command string, channels []string, most int) ([]byte, []awaited) {
	for some := range slices.Chunk(channels, most) {
		out = resp.AppendArg(resp.AppendCommand(out, 1+len(some)), command)
		for _, c := range some {
			out = resp.AppendArg(out, c)
		}
		await = append(await, awaited{channels: some})
	}
	return out, await
}

// changes compares what is wanted with what was asked for, channel by channel of those that changed.
func (s *subscriber) changes(c *conn) (subscribe, unsubscribe []string, kept []*room) {
	s.mu.Lock()
	defer s.mu.Unlock()
	beats := *s.beats.Load()
	for _, channel := range s.over {
		delete(c.asked, channel)
	}
	s.over = nil
	for channel := range s.changed {
		wanted := channel == beats || s.wanted[channel] != nil
		switch {
		case wanted && (!c.asked[channel] || s.denied[channel]):
			c.asked[channel] = true
			delete(s.denied, channel)
			s.pending[channel]++
			subscribe = append(subscribe, channel)
		case !wanted && !c.asked[channel]:
			delete(s.denied, channel)
		case !wanted:
			delete(c.asked, channel)
			s.pending[channel]++
			unsubscribe = append(unsubscribe, channel)
		case wanted && s.wanted[channel] != nil && s.pending[channel] == 0:
			kept = append(kept, s.wanted[channel])
		}
	}
	clear(s.changed)
	return subscribe, unsubscribe, kept
}

// confirm takes the server's confirmation that a subscription begins or has ended. Only that of the last command counts.
func (s *subscriber) confirm(channel string, begins bool) {
	s.mu.Lock()
	rm := s.wanted[channel]
	if s.pending[channel]--; s.pending[channel] > 0 {
		rm = nil
	} else {
		delete(s.pending, channel)
	}
	s.mu.Unlock()
	switch {
	case !begins:
	case channel == *s.beats.Load():
		s.unheard.Store(0)
		if s.connections.Add(1) > 1 {
			s.link.bus.cfg.Observer.Reconnected()
		}
		s.link.sendBeat() // so that it is known at once that this one works
	case rm != nil:
		rm.confirmed()
	}
}

// refused takes the server's refusal of a subscription to channels. One that is forbidden has the server refuse the others with it:
// so they are asked for one by one.
func (s *subscriber) refused(channels []string, why error) {
	s.mu.Lock()
	if len(channels) > 1 {
		s.alone = append(s.alone, channels...)
		s.mu.Unlock()
		wake(s.link.wake)
		return
	}
	channel := channels[0]
	s.denied[channel] = true
	if c := s.link.bus.cluster; c != nil && isRedirect(why.Error()) { // the room moves, and is no less readable
		if s.pending[channel]--; s.pending[channel] <= 0 {
			delete(s.pending, channel)
		}
		s.mu.Unlock()
		c.look()
		return
	}
	if s.pending[channel]--; s.pending[channel] <= 0 {
		delete(s.pending, channel)
	}
	rm := s.wanted[channel]
	s.mu.Unlock()
	if rm != nil {
		s.link.bus.complain("subscribe to "+rm.name, why)
		rm.refused(why)
	}
}

// askAgain asks for the channels that the server refused.
func (s *subscriber) askAgain() {
	s.mu.Lock()
	for channel := range s.denied {
		s.changed[channel] = struct{}{}
	}
	n := len(s.denied)
	s.mu.Unlock()
	if n > 0 {
		wake(s.link.wake)
	}
}

// receive takes what was published on a channel. It does not keep the slices.
func (s *subscriber) receive(channel, payload []byte) {
	s.unheard.Store(0)
	if string(channel) == *s.beats.Load() {
		s.beaten.Store(int64(time.Since(s.epoch)))
		return
	}
	s.mu.Lock()
	rm := s.wanted[string(channel)]
	s.mu.Unlock()
	if rm != nil {
		rm.receive(string(payload))
	}
}
