// Parley-attack attacks a node as one hostile client could, and prints what that did to the node and to a bystander, as Markdown:
//
//	parley-attack --parley PATH
//
// It starts the node itself, on loopback, and ends it.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/node/wire"
)

func main() {
	parley := flag.String("parley", "parley", "the `program` to attack")
	only := flag.String("only", "", "only attacks with this in their name")
	length := flag.Duration("for", 5*time.Second, "how long an attack lasts")
	flag.Parse()
	fmt.Println("| attack | the attacker hears | bystander's p99, quiet | during | memory before | peak | after |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- |")
	for _, a := range attacks {
		if !strings.Contains(a.name, *only) {
			continue
		}
		if err := a.run(*parley, *length); err != nil {
			fmt.Fprintf(os.Stderr, "parley-attack: %s: %v\n", a.name, err)
			os.Exit(1)
		}
	}
}

// An attack writes to its connections for as long as they take it.
type attack struct {
	name  string
	conns int
	reads bool          // what is answered
	first []byte        // is sent once
	then  func() []byte // again and again
}

var attacks = []attack{
	{name: "pings between fragments", conns: 1, reads: true, first: frame(wire.OpText, "a", false), then: again(frame(wire.OpPing, strings.Repeat("x", 125), true))},
	{name: "a crowd of empty fragments", conns: 1, reads: true, first: frame(wire.OpText, "a", false), then: again(frame(wire.OpContinuation, "", false))},
	{name: "pings, and no pong is read", conns: 1, then: again(frame(wire.OpPing, strings.Repeat("x", 125), true))},
	{name: "six that only say ping", conns: 6, reads: true, then: again(frame(wire.OpText, `{"op":"ping"}`, true))},
	{name: "requests, and no answer is read", conns: 1, then: again(frame(wire.OpText, `{"op":"members","room":"lobby"}`, true))},
	{name: "rooms without end", conns: 1, reads: true, then: func() func() []byte {
		n := 0
		return func() []byte {
			n++
			return frame(wire.OpText, fmt.Sprintf(`{"op":"join","room":"room %d"}`, n), true)
		}
	}()},
	{
		name: "signals to those who read nothing", conns: 60, first: frame(wire.OpText, `{"op":"join","room":"pit"}`, true),
		then: again(frame(wire.OpText, `{"op":"signal","room":"pit","kind":"k","data":"`+strings.Repeat("x", 4000)+`"}`, true)),
	},
}

// again gives many of the same frame.
func again(f []byte) func() []byte {
	many := bytes.Repeat(f, max(1, 8<<10/len(f)))
	return func() []byte { return many }
}

// frame is a client's, with a mask of zeros.
func frame(op byte, payload string, fin bool) []byte {
	b := wire.AppendHeader(nil, op, len(payload))
	b[1] |= 0x80
	if !fin {
		b[0] = op
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

func (a attack) run(parley string, length time.Duration) error {
	n, err := start(parley)
	if err != nil {
		return err
	}
	defer n.stop()
	by, err := n.dial()
	if err != nil {
		return err
	}
	quiet, err := pace(by, time.Second)
	if err != nil {
		return err
	}
	before, peak := n.memory(), 0

	var attackers sync.WaitGroup
	var mu sync.Mutex
	heard := map[string]bool{}
	for range a.conns {
		c, err := n.dial()
		if err != nil {
			return err
		}
		defer c.nc.Close()
		c.nc.SetDeadline(time.Now().Add(length))
		attackers.Go(func() {
			c.nc.Write(a.first)
			for err := error(nil); err == nil; {
				_, err = c.nc.Write(a.then())
			}
		})
		if a.reads {
			attackers.Go(func() {
				for {
					op, payload, err := c.next()
					if err != nil {
						return
					}
					what := map[byte]string{wire.OpPong: "pong", wire.OpClose: "close"}[op]
					if f, err := wire.ParseFrame(payload); op == wire.OpText && err == nil {
						if what = f.Op; f.Op == "error" {
							what = string(f.Code)
						}
					}
					mu.Lock()
					heard[what] = true
					mu.Unlock()
				}
			})
		}
	}
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				peak = max(peak, n.memory())
			}
		}
	}()
	during, err := pace(by, length)
	attackers.Wait()
	close(done)
	<-watched
	if err != nil {
		return fmt.Errorf("the bystander: %w", err)
	}
	var words []string
	for w := range heard {
		words = append(words, w)
	}
	slices.Sort(words)
	time.Sleep(time.Second)
	fmt.Printf("| %s | %s | %.1f ms | %.1f ms | %d MB | %d MB | %d MB |\n", a.name, strings.Join(words, ", "), ms(quiet), ms(during), before>>20, peak>>20, n.memory()>>20)
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A node is a process.
type node struct {
	cmd  *exec.Cmd
	addr string
}

func start(parley string) (*node, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &node{addr: l.Addr().String()}
	l.Close()
	n.cmd = exec.Command(parley, "--listen", n.addr)
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if c, err := net.Dial("tcp", n.addr); err == nil {
			c.Close()
			return n, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	n.stop()
	return nil, fmt.Errorf("%s does not listen on %s", parley, n.addr)
}

func (n *node) stop() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
}

// memory is what the node has resident, in bytes (proc(5)).
func (n *node) memory() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.cmd.Process.Pid))
	var size, resident int
	fmt.Sscan(string(b), &size, &resident)
	return resident * os.Getpagesize()
}

// A client has only its socket.
type client struct {
	nc net.Conn
	r  *bufio.Reader
}

func (n *node) dial() (*client, error) {
	nc, err := net.Dial("tcp", n.addr)
	if err != nil {
		return nil, err
	}
	c := &client{nc, bufio.NewReader(nc)}
	io.WriteString(nc, "GET / HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "+wire.Subprotocol+"\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("the handshake is answered %s", resp.Status)
	}
	return c, err
}

func (c *client) next() (op byte, payload []byte, err error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(c.r, head[:2]); err != nil {
		return 0, nil, err
	}
	size, more := int(head[1]), 0
	if size == 126 {
		more = 2
	} else if size == 127 {
		more = 8
	}
	if more > 0 {
		size = 0
		if _, err := io.ReadFull(c.r, head[2:2+more]); err != nil {
			return 0, nil, err
		}
		for _, b := range head[2 : 2+more] {
			size = size<<8 | int(b)
		}
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(c.r, payload)
	return head[0] & 0x0f, payload, err
}

// pace says ping for a while, now and then, and gives the time within which 99 % are answered.
func pace(c *client, d time.Duration) (time.Duration, error) {
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		began := time.Now()
		c.nc.SetDeadline(began.Add(30 * time.Second))
		if _, err := c.nc.Write(frame(wire.OpText, `{"op":"ping"}`, true)); err != nil {
			return 0, err
		}
		for {
			op, payload, err := c.next()
			if err != nil {
				return 0, err
			}
			if op == wire.OpText && bytes.Contains(payload, []byte(`"ok"`)) {
				break
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}
