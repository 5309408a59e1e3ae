package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// What a node keeps for a client, or takes from it, has a bound. These tests fill each to its bound and see that it holds, let
// go, see that everything comes that is owed, and fill it again.

// narrowWays are the ways with sockets that take little, so that what a node holds can be told by what it took.
var narrowWays = map[string]starter{
	"parked": nodetest.StartNarrow,
	"TLS":    nodetest.StartNarrowTLS,
}

// sockets is more than the two sockets of a narrow connection hold.
const sockets = 512 << 10

func eachNarrowWay(t *testing.T, test func(t *testing.T, start starter)) {
	t.Parallel()
	for name, start := range narrowWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start)
		})
	}
}

func TestAQueueHoldsNoMoreThanItsLimitAndFrees(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		const limit, piece, rooms = 1 << 20, 16 << 10, 4
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.QueueBytes = limit })
		slow, sender := nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[0].URL("/"))
		slow.Narrow()
		for i := range rooms {
			slow.Join(fmt.Sprint(i))
			sender.Join(fmt.Sprint(i))
		}
		data := `"data":"` + strings.Repeat("x", piece) + `"`
		owed, last := map[string]int{}, map[string]int{} // messages that were said in a room, the last that was heard
		unread, refused := 0, 0                          // bytes; refused are those that are in the log only
		hear := func() {
			m := slow.Until("message")
			if last[m.Room]++; m.Text != fmt.Sprint(last[m.Room]) {
				t.Fatalf("heard %s in room %s, want %d", m.Text, m.Room, last[m.Room])
			}
			unread -= piece
		}
		for round := range 2 {
			for i := range rooms { // in each the slow one is served by the fan-out until there is no space
				room := fmt.Sprint(i)
				w.overflow(t, func() {
					owed[room]++
					sender.SendText(room, fmt.Sprint(owed[room]), data)
					sender.Until("message") // the slow one was before it
					if unread += piece; unread-refused > limit+sockets {
						t.Fatalf("round %d, room %d: %d bytes were taken by one who reads nothing", round, i, unread-refused)
					}
				})
				refused += piece
				if i == 0 && unread < limit-piece {
					t.Errorf("round %d: the queue was full at %d bytes", round, unread)
				}
				for range 10 { // the socket takes the next piece of the queue
					hear()
				}
			}
			for unread > 0 {
				hear()
			}
			refused = 0
			w.wait(t, "caught up", w.count("overflowed"))
		}
		if w.count("gap") > 0 {
			t.Error("a gap was told")
		}
	})
}

func TestWhatIsSaidIsNotReadWhileTheAnswersDontFit(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		const limit, page, asks = 16 << 10, 50 << 10, 40
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.QueueBytes = limit })
		other := nodetest.Dial(t, c.Nodes[0].URL("/"))
		other.Join("lobby")
		for range 50 {
			other.SendText("lobby", strings.Repeat("x", page/50))
		}
		p := nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Narrow()
		for round := range 2 {
			before := w.count("received")
			for range asks { // 2 MB of answers
				p.Say(`{"op":"history","room":"lobby","limit":50}`)
			}
			if n := still(func() int { return w.count("received") }) - before; n > 2+(limit+sockets)/page {
				t.Errorf("round %d: %d requests of one who reads nothing were answered", round, n)
			}
			for range asks {
				if f := p.Until("ok"); len(f.Messages) != 50 {
					t.Fatalf("got %d messages", len(f.Messages))
				}
			}
		}
	})
}

func TestPingsAreNotReadWhileThePongsDontFit(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		c := start(t, 1, func(cfg *node.Config) { cfg.QueueBytes = 16 << 10 })
		p := dialRaw(t, c.Nodes[0])
		pings := bytes.Repeat(masked(wire.OpPing, strings.Repeat("x", 125)), 500)
		for round := range 2 {
			const times = 50 // 3 MB
			var wrote atomic.Int64
			done := make(chan error, 1)
			go func() {
				for range times {
					n, err := p.Write(pings)
					if wrote.Add(int64(n)); err != nil {
						done <- err
						return
					}
				}
				_, err := p.Write(masked(wire.OpText, `{"op":"ping","req":"after"}`))
				done <- err
			}()
			if n := still(func() int { return int(wrote.Load()) }); n == times*len(pings) {
				t.Errorf("round %d: %d bytes of pings were taken from one who reads no pongs", round, n)
			}
			p.SetReadDeadline(time.Now().Add(60 * time.Second))
			pongs := 0
			for {
				op, payload, err := p.next()
				if err != nil {
					t.Fatalf("after %d pongs: %v", pongs, err)
				}
				if op == wire.OpText && strings.Contains(string(payload), "after") {
					break
				}
				if op == wire.OpPong {
					pongs++
				}
			}
			if err := <-done; err != nil || pongs != 500*times {
				t.Errorf("round %d: %d pongs, %v", round, pongs, err)
			}
		}
	})
}

func TestOpenSendsAreBoundedAndFree(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		const most, says = 64, 200
		w := newWatch()
		var g *gate
		c := start(t, 1, func(cfg *node.Config) { g = &gate{Bus: cfg.Bus, w: w}; cfg.Bus = g })
		p, other := nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[0].URL("/"))
		p.Join("lobby")
		other.Join("tea")
		for round := range 3 {
			g.close()
			before := w.count("held")
			for i := range says {
				p.Say(`{"op":"send","req":%d,"room":"lobby","text":"m"}`, i)
			}
			w.wait(t, "held", before+most)
			if n := still(func() int { return w.count("held") }) - before; n != most {
				t.Errorf("round %d: %d sends are open, want %d", round, n, most)
			}
			other.Say(`{"op":"ping"}`) // harms nobody else
			other.Until("ok")
			g.open()
			for i := range says {
				if f := p.Until("ok"); string(f.Req) != fmt.Sprint(i) {
					t.Fatalf("round %d: the answer to %s came, want that to %d", round, f.Req, i)
				}
			}
		}
	})
}

// The answers to sends are nowhere else than in the queue: they are given beyond its limit too.
func TestWhoReadsSlowlyGetsTheAnswersToItsSends(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		w := newWatch()
		hold := make(chan struct{}) // the bus answers nothing: the answers come with the messages
		defer close(hold)
		var g *gate
		c := start(t, 1, func(cfg *node.Config) {
			g = &gate{Bus: slowBus{cfg.Bus, hold}, w: w, room: "own"}
			cfg.Bus, cfg.Observer, cfg.QueueBytes = g, w, 64<<10
		})
		slow, other := nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[0].URL("/"))
		slow.Narrow()
		slow.Join("own")
		slow.Join("busy")
		other.Join("busy")
		for round := range 3 {
			g.close()
			slow.Say(`{"op":"send","req":%d,"room":"own","text":%q}`, round, strings.Repeat("x", 4000))
			w.wait(t, "held", round+1)
			overflows := w.count("overflowed")
			w.overflow(t, func() { other.SendText("busy", strings.Repeat("x", 2000)) })
			g.open()
			w.wait(t, "overflowed", overflows+2)
			for answered := false; ; {
				f := slow.Next()
				answered = answered || f.Op == "ok" && string(f.Req) == fmt.Sprint(round)
				if f.Op == "message" && f.Room == "own" {
					if !answered {
						t.Fatalf("round %d: the message came without an answer to its send", round)
					}
					break
				}
			}
			w.wait(t, "caught up", w.count("overflowed"))
		}
	})
}

// Signals and presence come in bursts: what is still to be written of one is no more than a queue may hold.
func TestABurstOfSignalsIsBounded(t *testing.T) {
	eachNarrowWay(t, func(t *testing.T, start starter) {
		const limit, kind, signals = 64 << 10, 1 << 10, 8 << 10
		b := &burstBus{subscribed: make(chan bus.Sink, 1)}
		c := start(t, 1, func(cfg *node.Config) { b.Bus = cfg.Bus; cfg.Bus = b; cfg.QueueBytes = limit })
		p := dialRaw(t, c.Nodes[0])
		p.Write(masked(wire.OpText, `{"op":"join","room":"lobby"}`))
		p.want(wire.OpText, "live")
		body := wire.Signalled{Room: "lobby", Kind: "k", Data: json.RawMessage(`"` + strings.Repeat("x", kind) + `"`)}.Body()
		sink := <-b.subscribed
		for round := range 2 {
			for range signals { // 8 MB, faster than they are flushed
				sink.Signal(body)
			}
			c.Nodes[0].Bus.Signal("lobby", wire.Signalled{Room: "lobby", Kind: "last"}.Body(), func(error) {})
			time.Sleep(300 * time.Millisecond) // it is being flushed
			p.Write(masked(wire.OpText, fmt.Sprintf(`{"op":"ping","req":"after %d"}`, round)))
			heard := 0
			for {
				p.SetReadDeadline(time.Now().Add(20 * time.Second))
				_, payload, err := p.next()
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(payload, []byte(`"signal"`)) {
					heard++
				}
				if bytes.Contains(payload, []byte(fmt.Sprint("after ", round))) {
					break
				}
			}
			if bytes := heard * kind; bytes > 3*limit+sockets {
				t.Errorf("round %d: %d bytes of signals waited for one who did not read", round, bytes)
			}
			if heard == 0 {
				t.Errorf("round %d: no signal was heard", round)
			}
		}
	})
}

// burstBus gives the sinks of its rooms away.
type burstBus struct {
	bus.Bus
	subscribed chan bus.Sink
}

func (b *burstBus) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	b.subscribed <- sink
	return b.Bus.Subscribe(ctx, room, sink)
}

func TestABodyWithoutEndIsCutOff(t *testing.T) {
	t.Parallel()
	c := nodetest.StartNarrow(t, 1)
	for range 5 {
		nc, err := net.Dial("tcp", c.Nodes[0].Addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(nc, "POST /v1/rooms/lobby/messages HTTP/1.1\r\nHost: parley\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 16<<10, strings.Repeat("x", 16<<10))
		sent := 0
		for err == nil && sent < 16<<20 {
			var n int
			n, err = io.WriteString(nc, chunk)
			sent += n
		}
		if err == nil {
			t.Errorf("a body of %d bytes was taken", sent)
		}
		nc.Close()
		if status, _, _ := call(t, "POST", c.Nodes[0].HTTP("/v1/rooms/lobby/messages"), `{"text":"hello"}`); status != 201 {
			t.Errorf("the next one is answered %d", status)
		}
	}
}

// A room is subscribed to while somebody is in it, or something is being said in it, and a while longer.
func TestRoomsAreLetGo(t *testing.T) {
	t.Parallel()
	for how, use := range map[string]func(t *testing.T, n *nodetest.Node, room string){
		"after a message over HTTP": func(t *testing.T, n *nodetest.Node, room string) {
			if status, _, _ := call(t, "POST", n.HTTP("/v1/rooms/"+room+"/messages"), `{"text":"hello"}`); status != 201 {
				t.Errorf("posting is answered %d", status)
			}
		},
		"after a message over HTTP that is refused": func(t *testing.T, n *nodetest.Node, room string) {
			for _, text := range []string{"one", "another"} {
				call(t, "POST", n.HTTP("/v1/rooms/"+room+"/messages"), `{"text":"`+text+`"}`, "Idempotency-Key", "k",
					"Parley-Session", "AAAAAAAAAAAAAAAAAAAAAA")
			}
		},
		"after a leave": func(t *testing.T, n *nodetest.Node, room string) {
			p := nodetest.Dial(t, n.URL("/"))
			p.Join(room)
			p.Say(`{"op":"join","room":%q}`, room) // again
			p.Until("ok")
			p.Say(`{"op":"leave","room":%q}`, room)
			p.Until("ok")
		},
		"after a drop": func(t *testing.T, n *nodetest.Node, room string) {
			p := nodetest.Dial(t, n.URL("/"))
			p.Join(room)
			p.Cut()
		},
		"after an event stream": func(t *testing.T, n *nodetest.Node, room string) {
			s := listen(t, n.HTTP("/v1/rooms/"+room+"/events"))
			s.until("live")
			s.body.Close()
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWatch()
			c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.Linger = time.Millisecond; cfg.Grace = 1 })
			for i := range 10 {
				use(t, c.Nodes[0], fmt.Sprint("room-", i))
			}
			w.wait(t, "room opened", 10)
			w.wait(t, "room closed", w.count("room opened"))
		})
	}
}
