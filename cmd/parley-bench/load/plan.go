package load

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// A Plan is what a run asks of the servers. Its zero value, with URLs, is usable once it went through WithDefaults.
type Plan struct {
	URLs  []string // of the nodes, ws:// or wss://; the members of each room are spread over all of them
	Codec string   // V1 or Text; default V1

	Rooms    int     // default 1
	RoomSize int     // connections in each room; default 1,000
	Senders  int     // of them that send; default half of them, 10 at most
	Rate     float64 // messages a second that are sent into all rooms together; default 25
	Size     int     // bytes of a message's text; default 120

	Warmup   time.Duration // sent like the rest, but not measured; default 2 s
	Duration time.Duration // default 10 s
	Settle   time.Duration // how long to wait, without any delivery, for what is still missing at the end; default 5 s

	ConnectRate float64 // connections opened a second; default as fast as they are accepted, 256 under way at a time
	Insecure    bool    // any certificate will do, for wss://

	Prefix string // of the rooms' names; default "bench-" and four random hexadecimal digits
}

// The codecs that a run can speak.
const (
	V1   = "parley.v1" // joins, sends with a key, and counts the answers
	Text = "text"      // plain text messages and ?room=, which most relays can be made to understand
)

// ErrPlatform is what this package answers on other systems.
var ErrPlatform = errors.New("parley-bench needs Linux: it waits on its connections with epoll")

func (p Plan) WithDefaults() (Plan, error) {
	p.Codec = cmp.Or(p.Codec, V1)
	p.Rooms = cmp.Or(p.Rooms, 1)
	p.RoomSize = cmp.Or(p.RoomSize, 1000)
	p.Senders = cmp.Or(p.Senders, max(1, min(10, p.RoomSize/2)))
	p.Rate = cmp.Or(p.Rate, 25)
	p.Size = cmp.Or(p.Size, 120)
	p.Duration = cmp.Or(p.Duration, 10*time.Second)
	p.Settle = cmp.Or(p.Settle, 5*time.Second)
	if p.Prefix == "" {
		var b [2]byte
		rand.Read(b[:])
		p.Prefix = "bench-" + hex.EncodeToString(b[:])
	}
	return p, p.validate()
}

func (p Plan) validate() error {
	switch {
	case len(p.URLs) == 0:
		return errors.New("no URL of a server is given")
	case p.Codec != V1 && p.Codec != Text:
		return fmt.Errorf("codec %q: there are %s and %s", p.Codec, V1, Text)
	case p.Rooms < 1 || p.RoomSize < 1 || p.Rooms > 1<<26/p.RoomSize:
		return fmt.Errorf("%d rooms of %d: at least one connection is needed, and %d at most", p.Rooms, p.RoomSize, 1<<26)
	case p.Senders < 1 || p.Senders > p.RoomSize:
		return fmt.Errorf("%d senders in rooms of %d", p.Senders, p.RoomSize)
	case p.Codec == Text && p.Senders > 1000:
		return fmt.Errorf("%d senders: with plain text a room may have 1,000 at most, to check what they get", p.Senders)
	case p.Rate < 0 || p.Rate > 1e7:
		return fmt.Errorf("a rate of %g messages/s", p.Rate)
	case p.Size < MinSize || p.Size > 32<<10:
		return fmt.Errorf("messages of %d bytes: the stamp that each carries takes %d, and 32 KiB is the most", p.Size, MinSize)
	case p.Duration < 0 || p.Warmup < 0:
		return errors.New("a negative duration")
	}
	for _, u := range p.URLs {
		if _, err := parseTarget(u); err != nil {
			return err
		}
	}
	return nil
}

// Connections counts them all.
func (p Plan) Connections() int { return p.Rooms * p.RoomSize }

// Connections have numbers: those of room r begin at r times RoomSize, and its first ones send.

func (p *Plan) roomOf(number int) int   { return number / p.RoomSize }
func (p *Plan) memberOf(number int) int { return number % p.RoomSize }
func (p *Plan) echo() bool              { return p.Codec == V1 }

func (p *Plan) roomName(room int) string { return fmt.Sprintf("%s-%d", p.Prefix, room) }

// targetOf spreads each room over all targets, and the rooms' first members too.
func (p *Plan) targetOf(number int) int {
	return (p.memberOf(number) + p.roomOf(number)) % len(p.URLs)
}

// portsPerSource bounds the connections from one source address to one target. The ephemeral ports are 28,232 by default.
const portsPerSource = 20_000

// sourceOf is the loopback address, 127.0.0.x, that a connection to a loopback target comes from. Rounds of reconnecting
// rotate it, so that ports in TIME-WAIT are out of the way.
func (p *Plan) sourceOf(number, round int) [4]byte {
	index := number / len(p.URLs)
	perRound := p.Connections()/len(p.URLs)/portsPerSource + 1
	return [4]byte{127, 0, 0, byte(1 + (index/portsPerSource+round*perRound)%250)}
}

// A target is a server's address and what to ask of it.
type target struct {
	url  *url.URL
	host string // with port
	tls  bool
}

func parseTarget(s string) (target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return target{}, fmt.Errorf("%q is not a URL", s)
	}
	t := target{url: u}
	port := ""
	switch u.Scheme {
	case "ws", "http":
		port = "80"
	case "wss", "https":
		port, t.tls = "443", true
	default:
		return target{}, fmt.Errorf("%q: a server's URL begins with ws:// or wss://", s)
	}
	if u.Hostname() == "" {
		return target{}, fmt.Errorf("%q names no host", s)
	}
	t.host = u.Hostname() + ":" + cmp.Or(u.Port(), port)
	if u.Path == "" {
		u.Path = "/"
	}
	return t, nil
}

// path is what the connections into a room ask for.
func (t target) path(codec, room string) string {
	u := *t.url
	if codec == Text {
		q := u.Query()
		q.Set("room", room)
		u.RawQuery = q.Encode()
	}
	return u.RequestURI()
}
