package node_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// slack is what a machine that is busy may add to a time.
const slack = 15 * time.Second

func TestADeadClientIsDroppedAndLeavesAfterTwoPings(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		const ping = 2 * time.Second
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.PingInterval = ping; cfg.Grace = 100 * time.Millisecond })
		watcher := nodetest.Dial(t, c.Nodes[0].URL("/"))
		watcher.Join("lobby")
		began := time.Now()
		dead := nodetest.Dial(t, c.Nodes[0].URL("/"))
		dead.Join("lobby") // and reads no more, so that it answers no pings
		for {
			f := watcher.Until("presence") // which answers pings meanwhile
			if f.Event == wire.EventLeave && f.User.ID == dead.Welcome.User.ID {
				break
			}
		}
		if took := time.Since(began); took < ping*3/2 || took > 3*ping+slack {
			t.Errorf("it left after %v, with a ping each %v", took, ping)
		}
		w.wait(t, "closed 1006", 1)
	})
}

func TestAMessageOnceBegunHasToBeFinished(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		const wait = 2 * time.Second
		c := start(t, 1, func(cfg *node.Config) { cfg.MessageWait = wait })
		whole := masked(wire.OpText, `{"op":"ping","req":"`+strings.Repeat("x", 100)+`"}`)
		fragment := append([]byte{wire.OpText}, masked(0, "x")[1:]...)
		for how, begin := range map[string][]byte{
			"the header":         whole[:1],
			"the text":           whole[:20],
			"fragments":          fragment,
			"with the handshake": fragment,
			"with pings":         fragment,
		} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				var p *raw
				if how == "with the handshake" {
					p = dialRaw(t, c.Nodes[0], begin...)
				} else {
					p = dialRaw(t, c.Nodes[0])
					for range 3 { // in time, each
						p.Write(whole[:30])
						time.Sleep(wait / 3)
						p.Write(whole[30:])
						p.want(wire.OpText, `"ok"`)
					}
					p.Write(whole) // and one whole, with another behind it that never ends
					began = time.Now()
					p.Write(begin)
					p.want(wire.OpText, `"ok"`)
				}
				trickle := func(b []byte) {
					for i := range 600 {
						if _, err := p.Write(b[i%len(b):][:1]); err != nil {
							return
						}
						time.Sleep(wait / 10)
					}
				}
				switch how {
				case "the text": // it comes, a byte at a time
					go trickle(whole[20:25])
				case "with pings":
					go trickle(masked(wire.OpPing, ""))
				}
				p.SetReadDeadline(began.Add(time.Minute))
				_, err := io.Copy(io.Discard, p.r)
				if took := time.Since(began); took < wait || took > wait+slack {
					t.Errorf("it was ended after %v (%v), want %v", took, err, wait)
				}
			})
		}
	})
}

// The time is that of one message: who always has another under way says as much as anyone.
func TestWhoIsAlwaysInTheMiddleOfAMessageStays(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		const wait = 2 * time.Second
		c := start(t, 1, func(cfg *node.Config) { cfg.MessageWait = wait })
		p := dialRaw(t, c.Nodes[0])
		whole := masked(wire.OpText, `{"op":"ping"}`)
		half := len(whole) / 2
		p.Write(whole[:half])
		for began := time.Now(); time.Since(began) < 2*wait; {
			p.Write(whole[half:])
			p.Write(whole[:half])
			p.want(wire.OpText, `"ok"`)
			time.Sleep(wait / 10)
		}
	})
}

func TestABodyOnceBegunHasToBeFinished(t *testing.T) {
	t.Parallel()
	const wait = 500 * time.Millisecond
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.MessageWait = wait })
	nc, err := net.Dial("tcp", c.Nodes[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	began := time.Now()
	fmt.Fprintf(nc, "POST /v1/rooms/lobby/messages HTTP/1.1\r\nHost: parley\r\nContent-Length: 100\r\n\r\n{")
	nc.SetReadDeadline(began.Add(time.Minute))
	answer, err := io.ReadAll(nc)
	if took := time.Since(began); err != nil || took < wait || took > wait+slack {
		t.Errorf("it was ended after %v (%v), want %v", took, err, wait)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("it was answered %.100q", answer)
	}
}

func TestABodyThatDoesNotComeDelaysNoShutdown(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	nc, err := net.Dial("tcp", c.Nodes[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "POST /v1/rooms/lobby/messages HTTP/1.1\r\nHost: parley\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
	if _, err := io.ReadFull(nc, make([]byte, len("HTTP/1.1 100 Continue"))); err != nil {
		t.Fatal(err) // the body is being read
	}
	began := time.Now()
	go c.Nodes[0].Shutdown(t.Context())
	nc.SetReadDeadline(began.Add(time.Minute))
	if _, err := io.ReadAll(nc); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second+slack {
		t.Errorf("it was ended %v after the shutdown began", took)
	}
}

// A body that begins once the node drains is not waited for any longer than one that was on its way.
func TestABodyThatBeginsDuringADrainIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	if err := c.Nodes[0].Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", c.Nodes[0].Addr) // which is served until the last client is gone
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "POST /v1/rooms/lobby/messages HTTP/1.1\r\nHost: parley\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
	if _, err := io.ReadFull(nc, make([]byte, len("HTTP/1.1 100 Continue"))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	nc.SetReadDeadline(began.Add(time.Minute))
	if _, err := io.ReadAll(nc); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second+slack {
		t.Errorf("it was ended after %v", took)
	}
}

func TestAnAnswerThatIsNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	const wait = 200 * time.Millisecond
	c := nodetest.StartNarrow(t, 1, func(cfg *node.Config) { cfg.MessageWait, cfg.StallTimeout = wait, wait })
	nc, err := net.Dial("tcp", c.Nodes[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	for range 200 { // pipelined: 200 times the page's script
		fmt.Fprintf(nc, "GET /parley.js HTTP/1.1\r\nHost: parley\r\n\r\n")
	}
	began := time.Now()
	time.Sleep(5*time.Second + 4*wait) // the bus's time for a request is among it
	nc.SetReadDeadline(began.Add(time.Minute))
	n, _ := io.Copy(io.Discard, nc)
	if whole := int64(200 * 5000); n >= whole {
		t.Errorf("all %d bytes came", n)
	}
}

func TestWhoDoesNotAnswerACloseIsCutOff(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		for _, c := range []struct {
			said        []byte
			code        int
			least, most time.Duration
		}{
			{masked(wire.OpBinary, "binary"), wire.StatusUnsupported, time.Second, 5*time.Second + time.Second + slack},
			{wire.AppendHeader(nil, wire.OpText, 5), wire.StatusProtocol, 0, 4 * time.Second}, // its answer would not be understood
		} {
			t.Run(fmt.Sprint(c.code), func(t *testing.T) {
				t.Parallel()
				w := newWatch()
				n := start(t, 1, func(cfg *node.Config) { cfg.Observer = w })
				p := dialRaw(t, n.Nodes[0])
				began := time.Now()
				p.Write(c.said)
				p.want(wire.OpClose, "")
				p.SetReadDeadline(began.Add(time.Minute))
				_, err := io.Copy(io.Discard, p.r)
				if took := time.Since(began); took < c.least || took > c.most {
					t.Errorf("it was cut off after %v (%v), want %v to %v", took, err, c.least, c.most)
				}
				w.wait(t, fmt.Sprint("closed ", c.code), 1)
			})
		}
	})
}

func TestEventStreamsAreKeptAlive(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1, func(cfg *node.Config) { cfg.PingInterval = 200 * time.Millisecond })
		s := listen(t, c.Nodes[0].HTTP("/v1/rooms/lobby/events"))
		s.until("live")
		for comments := 0; comments < 3; {
			line, err := s.lines.ReadString('\n')
			if err != nil {
				t.Fatalf("after %d comments: %v", comments, err)
			}
			if strings.HasPrefix(line, ":") {
				comments++
			}
		}
	})
}

// A doubtful send without a key is repeated without one: it can't be told from the next.
func TestASendWithoutAKeyDoesNotOvertakeARefusedOne(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Bus = &onceAway{Bus: cfg.Bus} })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("tea", `"limit":0`)
	p.Say(`{"op":"send","req":1,"room":"tea","text":"one"}`)
	p.Say(`{"op":"send","req":2,"room":"tea","text":"two"}`)
	p.Say(`{"op":"send","req":3,"room":"tea","text":"three","key":"3"}`)
	var wait time.Duration
	for range 3 {
		wait = max(wait, p.WantError(wire.Unavailable).RetryAfter)
	}
	if wait == 0 || wait > 5*time.Second {
		t.Fatalf("it may repeat after %v", wait)
	}
	time.Sleep(wait) // as it was told
	for i, text := range []string{"one", "two", "three"} {
		p.Say(`{"op":"send","req":%d,"room":"tea","text":%q}`, i, text)
	}
	for _, text := range []string{"one", "two", "three"} {
		if m := p.Until("message"); m.Text != text {
			t.Errorf("heard %q, want %q", m.Text, text)
		}
	}
}

// Nothing is done for whoever the node has closed, though it was sent before he heard of it.
func TestWhatIsSaidBehindWhatEndsAConnectionIsNotHeard(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		c := start(t, 1, func(*node.Config) {})
		other := nodetest.Dial(t, c.Nodes[0].URL("/"))
		other.Join("lobby")
		say := masked(wire.OpText, `{"op":"send","room":"lobby","text":"in spite of all"}`)
		for name, ends := range map[string][]byte{
			"binary":      masked(wire.OpBinary, "x"),
			"not UTF-8":   masked(wire.OpText, "{\"op\":\"\xff\"}"),
			"not masked":  {0x80 | wire.OpText, 0},
			"its own bye": masked(wire.OpClose, "\x03\xe8"),
		} {
			p := dialRaw(t, c.Nodes[0])
			p.Write(masked(wire.OpText, `{"op":"join","room":"lobby"}`))
			p.want(wire.OpText, `"live"`)
			p.Write(slices.Concat(ends, say, say))
			p.want(wire.OpClose, "")
			other.SendText("lobby", "after "+name)
			if m := other.Until("message"); m.Text != "after "+name {
				t.Errorf("%s: heard %q", name, m.Text)
			}
		}
	})
}

// Who goes on talking after the node has closed does not put its end off: neither by what it begins nor by what it finishes.
func TestWhoTalksOnAfterACloseIsCutOff(t *testing.T) {
	eachWay(t, func(t *testing.T, start starter) {
		w := newWatch()
		c := start(t, 1, func(cfg *node.Config) { cfg.Observer = w })
		p := dialRaw(t, c.Nodes[0])
		began := time.Now()
		p.Write(masked(2, "binary"))
		p.want(wire.OpClose, "")
		whole := masked(wire.OpText, `{"op":"ping"}`)
		for talked := 0; ; talked++ {
			_, err := p.Write(whole[:8])
			time.Sleep(20 * time.Millisecond) // the node has the half
			if _, err2 := p.Write(whole[8:]); err != nil || err2 != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
			if took := time.Since(began); took > 5*time.Second+time.Second+slack {
				t.Fatalf("after %d messages in %v it is still heard", talked, took)
			}
		}
		w.wait(t, fmt.Sprint("closed ", wire.StatusUnsupported), 1)
	})
}

// Who closes, and does not take what it was still owed, is not waited for as long as one who stays.
func TestWhoClosesAndTakesNothingIsCutOff(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]starter{"parked": nodetest.StartNarrow, "TLS": nodetest.StartNarrowTLS} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWatch()
			c := start(t, 1, func(cfg *node.Config) { cfg.Observer, cfg.QueueBytes = w, 4<<20 })
			says := nodetest.Dial(t, c.Nodes[0].URL("/"))
			says.Join("lobby")
			p := dialRaw(t, c.Nodes[0])
			p.Write(masked(wire.OpText, `{"op":"join","room":"lobby"}`))
			p.want(wire.OpText, `"live"`)
			pad := strings.Repeat("x", 4000)
			for node.MostThatWaits(c.Nodes[0].Server) < 256<<10 { // it is far from full, and what comes is read
				says.SendText("lobby", pad)
			}
			began := time.Now()
			p.Write(masked(wire.OpClose, "\x03\xe8"))
			w.wait(t, "closed 1000", 1)
			for {
				if _, err := p.Write(masked(wire.OpPing, "")); err != nil {
					break // its socket is closed
				}
				time.Sleep(20 * time.Millisecond)
				if took := time.Since(began); took > 10*time.Second+slack {
					t.Fatalf("after %v its socket is still open", took)
				}
			}
		})
	}
}
