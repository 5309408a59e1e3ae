package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/node/wire"
)

var dying = flag.Int("clients", 1000, "clients of the node that dies, in BenchmarkDeadNode")

// A returner is a client of a node that dies. It speaks the wire by hand: thousands of them are to cost less than the nodes.
type returner struct {
	room  string
	since string // the last id it has

	mu    sync.Mutex
	heard []string // guarded by mu; what was said while it was away, and after
	live  time.Time
	wrong error
}

// visit connects, joins, and reads until the connection ends. It calls live once the room is.
func (c *returner) visit(ctx context.Context, addr string, live func()) error {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: cGFybGV5IGJlbmNoIGtleQ==\r\nSec-WebSocket-Protocol: parley.v1\r\n\r\n", addr)
	r := bufio.NewReaderSize(nc, 512)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	for {
		op, payload, err := wire.ReadRaw(r)
		switch {
		case err != nil:
			return err
		case op != wire.OpText:
			continue
		}
		f, err := wire.ParseFrame(payload)
		if err != nil {
			return err
		}
		switch f.Op {
		case "welcome":
			join := `{"op":"join","req":1,"room":"` + c.room + `"`
			if c.since != "" {
				join += `,"since":"` + c.since + `"`
			}
			io.WriteString(nc, masked(join+"}"))
		case "ok":
			if c.since != "" && (f.Recovered == nil || !*f.Recovered) {
				return fmt.Errorf("not recovered: %s", payload)
			}
		case "message":
			c.since = f.ID.String()
			c.mu.Lock()
			c.heard = append(c.heard, f.Text)
			c.mu.Unlock()
		case "live":
			live()
		case "gap", "error":
			return fmt.Errorf("told: %s", payload)
		}
	}
}

// A return is what became of the clients of a node that died.
type returned struct {
	took  []time.Duration // until each was live on another node; sorted
	calls map[string]int  // commands of Redis from the death until then
}

// dieUnder has a node die under so many clients in so many rooms. Each comes back after 125 to 250 ms, as clients do, to one of two
// other nodes, where nobody is yet. It fails the test if one of them misses anything or hears it twice.
func dieUnder(t testing.TB, clients, rooms int) returned {
	redis := bustest.StartRedis(t)
	var nodes []*process
	for range 3 {
		nodes = append(nodes, startNode(t, "--redis", redis.URL(), "--max-connections", "0", "--address-connections", "0", "--address-attempts", "0",
			"--address-requests", "0", "--address-rooms", "0"))
	}
	name := func(i int) string { return fmt.Sprint("room-", i%rooms) }
	post := func(room, text string) {
		resp, err := http.Post(nodes[1].url+"/v1/rooms/"+room+"/messages", "application/json", strings.NewReader(`{"text":"`+text+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatal(resp.Status)
		}
	}
	for i := range rooms {
		post(name(i), "before")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	crowd := make([]*returner, clients)
	var visits, there, back sync.WaitGroup
	defer visits.Wait()
	defer cancel()
	died := make(chan struct{})
	there.Add(clients)
	back.Add(clients)
	dialing := make(chan struct{}, 64) // so that the backlog of the one node is not what is measured
	for i := range crowd {
		c := &returner{room: name(i)}
		crowd[i] = c
		visits.Go(func() {
			dialing <- struct{}{}
			err := c.visit(ctx, nodes[0].addr(), func() { there.Done(); <-dialing })
			select {
			case <-died:
			default:
				if ctx.Err() == nil {
					t.Error("lost before the node died: ", err)
				}
				return
			}
			c.mu.Lock()
			c.heard = nil
			c.mu.Unlock()
			for ctx.Err() == nil {
				time.Sleep(125*time.Millisecond + rand.N(125*time.Millisecond))
				err := c.visit(ctx, nodes[1+rand.N(2)].addr(), sync.OnceFunc(func() { c.live = time.Now(); back.Done() }))
				if !c.live.IsZero() || ctx.Err() != nil {
					return
				}
				c.wrong = errors.Join(c.wrong, err)
			}
		})
	}
	there.Wait()
	client := redis.Client()
	before := bustest.Calls(t, client)
	close(died)
	began := time.Now()
	nodes[0].kill()
	for i := range rooms {
		post(name(i), "meanwhile")
	}
	back.Wait()
	after := bustest.Calls(t, client)
	r := returned{calls: map[string]int{}}
	for command, n := range after {
		if n -= before[command]; n > 0 {
			r.calls[command] = n
		}
	}
	for i := range rooms {
		post(name(i), "after")
	}
	for i, c := range crowd {
		want := []string{"meanwhile", "after"}
		for ctx.Err() == nil {
			c.mu.Lock()
			heard := slices.Clone(c.heard)
			c.mu.Unlock()
			if len(heard) < len(want) {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			if !slices.Equal(heard, want) {
				t.Errorf("client %d heard %q, want %q", i, heard, want)
			}
			break
		}
		if c.wrong != nil {
			t.Errorf("client %d, on its way back: %v", i, c.wrong)
		}
		r.took = append(r.took, c.live.Sub(began))
	}
	if ctx.Err() != nil {
		t.Error("not everybody has come back, or heard all")
	}
	slices.Sort(r.took)
	return r
}

// BenchmarkDeadNode tells when the clients of a dead node are live on two others, and what they cost Redis. Each misses nothing.
func BenchmarkDeadNode(b *testing.B) {
	for _, rooms := range []int{1, max(1, *dying/10)} {
		b.Run(fmt.Sprintf("clients=%d/rooms=%d", *dying, rooms), func(b *testing.B) {
			for b.Loop() {
				r := dieUnder(b, *dying, rooms)
				b.ReportMetric(r.took[len(r.took)/2].Seconds(), "s-median")
				b.ReportMetric(r.took[len(r.took)*99/100].Seconds(), "s-p99")
				b.ReportMetric(r.took[len(r.took)-1].Seconds(), "s-last")
				b.ReportMetric(float64(r.calls["xrange"]+r.calls["xrevrange"]), "reads")
				var all []string
				for _, command := range slices.Sorted(maps.Keys(r.calls)) {
					all = append(all, fmt.Sprint(command, " ", r.calls[command]))
				}
				b.Log(strings.Join(all, ", "))
			}
		})
	}
}
