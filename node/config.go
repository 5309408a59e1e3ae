package node

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"parley/bus"
	"parley/node/rights"
)

// Config is what a Server is made of. Its zero value, with a Bus, is usable.
type Config struct {
	Bus bus.Bus // required; the Server does not close it

	Observer Observer      // default NoObserver
	Auth     Authenticator // default nil: everyone is a guest, and tokens are refused
	Log      *slog.Logger  // default slog.Default()

	ID      string // the node's name, told in welcome; default NewID
	Version string // told in welcome; default "dev"

	// Origins that may open a WebSocket or use HTTP from a page, as patterns of path.Match over the origin's host or, with a
	// scheme, over "scheme://host"; what NormalizeOrigin refuses matches nothing. The node's own page may in any case.
	// Default: any origin, since credentials are never ambient.
	Origins []string

	Apps        Apps           // default nil: there are no API keys
	TokenLife   time.Duration  // how long a token may be good, so how long a revocation is kept; default 30 days
	Guests      bool           // whether guests are welcome where there is an Auth
	GuestRights *rights.Rights // default: what users may do, in every room

	Limits Limits // default none

	MaxText       int           // bytes of a message's text; default 4 KiB
	QueueBytes    int           // bytes that wait for one client, replies included; default 256 KiB
	PresenceLimit int           // members past which single joins and leaves are not told; default 200
	PingInterval  time.Duration // default 25 s, give or take a tenth
	StallTimeout  time.Duration // a client that takes nothing for so long is dropped; default 30 s
	HelloWait     time.Duration // where guests are not welcome, a client has so long to say hello with a token; default 10 s
	MessageWait   time.Duration // a client may take so long over one message, once begun; default 30 s
	Grace         time.Duration // a drop shorter than this is no leave; default 3 s
	Linger        time.Duration // how long a room without members stays subscribed; default 10 s
	Drain         time.Duration // over how long a shutdown spreads the goodbyes; default 10 s
}

// An Observer is told what the node does. Its methods are called often, from many goroutines, and must be cheap.
// codec is "plain", "json" or "sse".
type Observer interface {
	Connected(codec string)
	Closed(codec string, code int) // the WebSocket close code that was sent or received; 1006 for none
	RoomOpened()                   // a room got its first member here
	RoomClosed()                   // and is not subscribed any more

	Received(codec string, bytes int)            // a message came from a client
	Delivered(codec string, messages, bytes int) // so many messages were written or queued, to all clients of a flush together
	DeliveryDelay(d time.Duration)               // from a message's id to its flush on this node, once per message; below 0 if the bus's clock is ahead
	Overflowed()                                 // a client's queue was full: it is served from the log from here on
	CaughtUp()                                   // and is live again
	GapTold()                                    // a client was told of a gap
	Rejected(code string)                        // a request was answered with an error of that code
	Limited(limit string)                        // what a client wanted was over a limit, one of the names in limits.go
}

// NoObserver ignores what it is told.
type NoObserver struct{}

func (NoObserver) Connected(string)            {}
func (NoObserver) Closed(string, int)          {}
func (NoObserver) RoomOpened()                 {}
func (NoObserver) RoomClosed()                 {}
func (NoObserver) Received(string, int)        {}
func (NoObserver) Delivered(string, int, int)  {}
func (NoObserver) DeliveryDelay(time.Duration) {}
func (NoObserver) Overflowed()                 {}
func (NoObserver) CaughtUp()                   {}
func (NoObserver) GapTold()                    {}
func (NoObserver) Rejected(string)             {}
func (NoObserver) Limited(string)              {}

// NewID makes a name for a node: the host's, and a random suffix.
func NewID() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s-%04x", cmp.Or(host, "node"), rand.N(1<<16))
}

func (c Config) withDefaults() Config {
	if c.Observer == nil {
		c.Observer = NoObserver{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.ID == "" {
		c.ID = NewID()
	}
	c.Version = cmp.Or(c.Version, "dev")
	c.Origins = slices.Clone(c.Origins)
	for i, pattern := range c.Origins {
		if normal, err := NormalizeOrigin(pattern); err == nil {
			c.Origins[i] = normal
		}
	}
	c.MaxText = cmp.Or(c.MaxText, 4<<10)
	c.QueueBytes = cmp.Or(c.QueueBytes, 256<<10)
	c.PresenceLimit = cmp.Or(c.PresenceLimit, 200)
	c.PingInterval = cmp.Or(c.PingInterval, 25*time.Second)
	c.StallTimeout = cmp.Or(c.StallTimeout, 30*time.Second)
	c.TokenLife = cmp.Or(c.TokenLife, 30*24*time.Hour)
	c.HelloWait = cmp.Or(c.HelloWait, 10*time.Second)
	c.MessageWait = cmp.Or(c.MessageWait, 30*time.Second)
	c.Grace = cmp.Or(c.Grace, 3*time.Second)
	c.Linger = cmp.Or(c.Linger, 10*time.Second)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	return c
}
