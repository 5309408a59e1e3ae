package node

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"parley/bus"
	"parley/node/wire"
)

// Who joins as its queue is full is served what it is owed later, and nothing of it twice.
func TestWhoJoinsAsItsQueueIsFullLacksNothing(t *testing.T) {
	r := roomOf(t, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	var b batch
	var want []string
	for i := range uint64(5) {
		flushOne(r, &b, aMessage(i))
		want = append(want, "message "+bus.ID{Ms: i + 1}.String())
	}
	want = append(append([]string{"ok"}, want...), "live")

	conn := r.srv.sockets.Stream(server, nil)
	const unread = 16 << 20 // more than two sockets hold
	filler := wire.AppendHeader(nil, wire.OpBinary, unread)
	conn.Put(append(filler, make([]byte, unread)...))
	m := newMember(r.srv.newSession(jsonV1, conn, identity{user: User{ID: "ada"}}), r)
	m.admit(&wire.Request{Op: "join", Room: "lobby"}, nil)
	defer func() { r.holders++; r.dismiss(m, false) }()

	client.SetReadDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(client)
	var got []string
	for len(got) == 0 || got[len(got)-1] != "live" {
		op, payload, err := wire.ReadRaw(in)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		if op == wire.OpBinary {
			continue
		}
		f, err := wire.ParseFrame(payload)
		if err != nil {
			t.Fatal(err)
		}
		what := f.Op
		if what == "message" {
			what = fmt.Sprint(what, " ", f.ID)
		}
		if what != "presence" {
			got = append(got, what)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("it was told %v, want %v", got, want)
	}
}
