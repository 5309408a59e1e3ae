package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"

	"parley/bus"
	"parley/bus/memory"
	"parley/node/wire"
)

// roomOf makes a room with n live members, whose clients take everything.
func roomOf(tb testing.TB, n int) *room {
	b := memory.New(bus.Retention{}).Open(bus.NoObserver{})
	s := New(Config{Bus: b, Log: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r, err := s.enter(context.Background(), "lobby")
	if err != nil {
		tb.Fatal(err)
	}
	var ends []net.Conn
	for range n {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			tb.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			tb.Fatal(err)
		}
		go io.Copy(io.Discard, client)
		ends = append(ends, client, server)
		sess := s.newSession(jsonV1, s.sockets.Stream(server, nil), identity{})
		m := newMember(sess, r)
		m.live = true
		r.members = append(r.members, m)
		r.speak[jsonV1]++
	}
	tb.Cleanup(func() {
		for _, c := range ends {
			c.Close()
		}
		l.Close()
		r.release()
		s.Shutdown(context.Background())
		b.Close()
	})
	return r
}

func flushOne(r *room, b *batch, m bus.Message) {
	r.inbox.mu.Lock()
	r.inbox.items = append(r.inbox.items, item{kind: itemMessage, msg: m})
	r.inbox.state = inboxQueued
	r.inbox.mu.Unlock()
	r.flush(b)
}

func aMessage(i uint64) bus.Message {
	said := wire.Said{Room: "lobby", From: wire.Member{ID: "guest-aaaaaaaaaaaaaaaa", Name: "Ann"}, Text: string(make([]byte, 120)), Key: "k"}
	return bus.Message{ID: bus.ID{Ms: i + 1}, Prev: bus.ID{Ms: i}, Body: said.Body()}
}

func TestADeliveryAllocatesNothing(t *testing.T) {
	perFlush := func(members int) float64 {
		r := roomOf(t, members)
		var b batch
		i := uint64(0)
		m := aMessage(0)
		return testing.AllocsPerRun(200, func() {
			i++
			m.ID.Ms, m.Prev.Ms = i+1, i
			flushOne(r, &b, m)
		})
	}
	one, many := perFlush(1), perFlush(101)
	if perDelivery := (many - one) / 100; perDelivery > 0.01 {
		t.Errorf("a flush to one member allocates %v times, to 101 %v times", one, many)
	}
}

func BenchmarkFlush(b *testing.B) {
	for _, members := range []int{10, 1000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			r := roomOf(b, members)
			var bt batch
			m := aMessage(0)
			b.ReportAllocs()
			for i := uint64(1); b.Loop(); i++ {
				m.ID.Ms, m.Prev.Ms = i+1, i
				flushOne(r, &bt, m)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members), "ns/delivery")
		})
	}
}
