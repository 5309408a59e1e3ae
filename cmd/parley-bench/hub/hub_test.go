package hub

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley/bus/bustest"
)

// What one says goes to everyone else in the room, once, and not to who said it: on one hub, and on two that share a Redis.
func TestWhatOneSaysGoesToEveryoneElse(t *testing.T) {
	for _, hubs := range []int{1, 2} {
		t.Run(fmt.Sprint("hubs=", hubs), func(t *testing.T) {
			redis := ""
			if hubs > 1 {
				redis = bustest.StartRedisTCP(t).URL()
			}
			addrs := make([]string, hubs)
			for i := range addrs {
				addrs[i] = serve(t, redis)
			}
			stranger := enter(t, addrs[0], "elsewhere")
			clients := make([]*visitor, 4)
			for i := range clients {
				clients[i] = enter(t, addrs[i%hubs], "lobby")
			}
			for i, c := range clients {
				for k, o := range clients {
					if k != i {
						meets(t, c, o, fmt.Sprint(i, " for ", k))
					}
				}
			}
			for i, c := range clients {
				c.say(t, fmt.Sprint("the end of ", i))
			}
			for i, c := range clients {
				ends := make(map[string]bool)
				for len(ends) < len(clients)-1 {
					text := c.hears(t)
					if strings.HasPrefix(text, fmt.Sprint(i, " ")) || text == fmt.Sprint("the end of ", i) || ends[text] {
						t.Errorf("client %d heard %q", i, text)
					}
					if strings.HasPrefix(text, "the end") {
						ends[text] = true
					}
				}
			}
			if n := len(stranger.heard); n > 0 {
				t.Errorf("%d messages went to another room", n)
			}
		})
	}
}

// A visitor is a client of a hub.
type visitor struct {
	ws    *websocket.Conn
	heard chan string
}

func enter(t *testing.T, addr, room string) *visitor {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/?room="+room, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{ws, make(chan string, queue)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			_, text, err := ws.ReadMessage()
			if err != nil {
				return
			}
			v.heard <- string(text)
		}
	}()
	t.Cleanup(func() { ws.Close(); <-ended })
	return v
}

func (v *visitor) say(t *testing.T, text string) {
	t.Helper()
	if err := v.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (v *visitor) hears(t *testing.T) string {
	t.Helper()
	select {
	case text := <-v.heard:
		return text
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was heard")
		return ""
	}
}

// meets has one say something until another hears it, who may not be in the room yet.
func meets(t *testing.T, one, other *visitor, text string) {
	t.Helper()
	for range 200 {
		one.say(t, text)
		for again := time.After(100 * time.Millisecond); ; {
			select {
			case heard := <-other.heard:
				if heard == text {
					return
				}
				continue
			case <-again:
			}
			break
		}
	}
	t.Fatalf("%q was not heard", text)
}

// serve runs a hub, and gives its address.
func serve(t *testing.T, redis string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, redis) }()
	t.Cleanup(func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}
