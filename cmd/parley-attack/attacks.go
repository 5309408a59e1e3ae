package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley/node/wire"
)

// An attack is conducted over so many connections at a time.
type attack struct {
	name   string
	secure bool // over TLS
	conns  int
	again  bool // with another connection once one has ended

	// conduct ends with its connection, or soon after end.
	conduct func(n *node, end time.Time, hear func(string))
}

var attacks = slices.Concat(overWebSockets(false), overWebSockets(true), overHTTP)

// overWebSockets are those over WebSockets, of which some are made over TLS too, where each connection has a goroutine.
func overWebSockets(secure bool) (out []attack) {
	ping := frame(wire.OpPing, strings.Repeat("x", 125), true)
	var rooms atomic.Int64
	for _, a := range []struct {
		name  string
		conns int
		both  bool
		talk
	}{
		{"pings between fragments", 1, true, talk{reads: true, first: frame(wire.OpText, "a", false), then: again(ping)}},
		{"a crowd of empty fragments", 1, true, talk{reads: true, first: frame(wire.OpText, "a", false), then: again(frame(wire.OpContinuation, "", false))}},
		{"pings, and no pong is read", 1, true, talk{then: again(ping)}},
		{"six that only say ping", 6, true, talk{reads: true, then: again(frame(wire.OpText, `{"op":"ping"}`, true))}},
		{"requests, and no answer is read", 1, true, talk{then: again(frame(wire.OpText, `{"op":"members","room":"lobby"}`, true))}},
		{"rooms without end", 1, false, talk{reads: true, then: func() []byte {
			return frame(wire.OpText, fmt.Sprintf(`{"op":"join","room":"room %d"}`, rooms.Add(1)), true)
		}}},
		{"signals to 60 who read nothing", 60, false, talk{
			first: frame(wire.OpText, `{"op":"join","room":"pit"}`, true),
			then:  again(frame(wire.OpText, `{"op":"signal","room":"pit","kind":"k","data":"`+strings.Repeat("x", 4000)+`"}`, true)),
		}},
	} {
		name := a.name
		if secure {
			if !a.both {
				continue
			}
			name += ", over TLS"
		}
		out = append(out, attack{name: name, secure: secure, conns: a.conns, conduct: a.conduct})
	}
	return out
}

// A talk writes to its connection for as long as that takes it.
type talk struct {
	reads bool          // what is answered
	first []byte        // is sent once
	then  func() []byte // again and again
}

func (t talk) conduct(n *node, end time.Time, hear func(string)) {
	c, err := n.dial()
	if err != nil {
		hear("no connection")
		return
	}
	defer c.nc.Close()
	c.nc.SetDeadline(end)
	var reading sync.WaitGroup
	if t.reads {
		reading.Go(func() {
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
				hear(what)
			}
		})
	}
	c.nc.Write(t.first)
	for err := error(nil); err == nil; {
		_, err = c.nc.Write(t.then())
	}
	reading.Wait()
}

const post = "POST /v1/rooms/lobby/messages HTTP/1.1\r\nHost: parley\r\n"

// overHTTP are those that need no WebSocket.
var overHTTP = []attack{
	{name: "200 bodies that do not come", conns: 200, again: true, conduct: waits(post + "Content-Length: 60000\r\n\r\n{")},
	{name: "200 bodies, a byte at a time", conns: 200, again: true, conduct: drips(post + "Content-Length: 60000\r\n\r\n{")},
	{name: "200 heads, a byte at a time", conns: 200, again: true, conduct: drips("GET / HTTP/1.1\r\nHost: parley\r\nX: ")},
	{name: "heads without end", conns: 20, again: true, conduct: floods("GET / HTTP/1.1\r\nHost: parley\r\n", "X: "+strings.Repeat("x", 1000)+"\r\n")},
	{name: "bodies without end", conns: 20, again: true, conduct: floods(post+"Transfer-Encoding: chunked\r\n\r\n", "1000\r\n"+strings.Repeat("x", 4096)+"\r\n")},
	{name: "100 that ask for the page, and read no answer", conns: 100, again: true, conduct: floods("", strings.Repeat("GET /parley.js HTTP/1.1\r\nHost: parley\r\n\r\n", 20))},
	{name: "messages over HTTP", conns: 6, again: true, conduct: asks(post + "Content-Length: 12\r\n\r\n" + `{"text":"x"}`)},
	{name: "1,000 event streams that are not read", conns: 1000, conduct: waits("GET /v1/events?room=a&room=b HTTP/1.1\r\nHost: parley\r\n\r\n")},
	{name: "event streams that come and go", conns: 20, again: true, conduct: asks("GET /v1/rooms/lobby/events HTTP/1.1\r\nHost: parley\r\n\r\n")},
	{name: "requests for a stream that is not read", conns: 1, conduct: asksForAStream},
}

// connect is a connection for HTTP, which ends at the end.
func connect(n *node, end time.Time, hear func(string)) net.Conn {
	nc, err := n.connect()
	if err != nil {
		hear("no connection")
		time.Sleep(10 * time.Millisecond)
		return nil
	}
	nc.SetDeadline(end)
	return nc
}

// status hears what a request is answered with.
func status(r *bufio.Reader, hear func(string)) (*http.Response, error) {
	resp, err := http.ReadResponse(r, nil)
	if err == nil {
		hear(fmt.Sprint(resp.StatusCode))
	}
	return resp, err
}

// waits says something and nothing more.
func waits(head string) func(*node, time.Time, func(string)) {
	return func(n *node, end time.Time, hear func(string)) {
		if nc := connect(n, end, hear); nc != nil {
			defer nc.Close()
			io.WriteString(nc, head)
			if resp, err := status(bufio.NewReaderSize(nc, 512), hear); err == nil && resp.StatusCode == 200 {
				time.Sleep(time.Until(end)) // it is not read
			}
		}
	}
}

// drips says something, and then a byte now and then.
func drips(head string) func(*node, time.Time, func(string)) {
	return func(n *node, end time.Time, hear func(string)) {
		nc := connect(n, end, hear)
		if nc == nil {
			return
		}
		defer nc.Close()
		io.WriteString(nc, head)
		go status(bufio.NewReaderSize(nc, 512), hear) // ends with the connection
		for {
			if _, err := io.WriteString(nc, "x"); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// floods says something, and then more of the same for as long as it is taken.
func floods(head, more string) func(*node, time.Time, func(string)) {
	return func(n *node, end time.Time, hear func(string)) {
		nc := connect(n, end, hear)
		if nc == nil {
			return
		}
		defer nc.Close()
		io.WriteString(nc, head)
		for many, err := strings.Repeat(more, max(1, 8<<10/len(more))), error(nil); err == nil; {
			_, err = io.WriteString(nc, many)
		}
		if head != "" {
			status(bufio.NewReader(nc), hear)
		}
	}
}

// asks asks the same again and again, and hears what it is answered with.
func asks(request string) func(*node, time.Time, func(string)) {
	return func(n *node, end time.Time, hear func(string)) {
		nc := connect(n, end, hear)
		if nc == nil {
			return
		}
		defer nc.Close()
		for r := bufio.NewReader(nc); ; {
			if _, err := io.WriteString(nc, request); err != nil {
				return
			}
			resp, err := status(r, hear)
			if err != nil || resp.Header.Get("Content-Type") == "text/event-stream" {
				return
			}
			io.Copy(io.Discard, resp.Body)
		}
	}
}

// asksForAStream opens an event stream, reads its name and nothing more, and has it join and leave.
func asksForAStream(n *node, end time.Time, hear func(string)) {
	nc := connect(n, end, hear)
	if nc == nil {
		return
	}
	defer nc.Close()
	room := strings.Repeat("%C3%A9", 64)
	fmt.Fprintf(nc, "GET /v1/events?room=a&room=%s HTTP/1.1\r\nHost: parley\r\n\r\n", room)
	r := bufio.NewReader(nc)
	for line, err := []byte(nil), error(nil); err == nil; line, err = r.ReadBytes('\n') {
		_, rest, ok := bytes.Cut(line, []byte(`"stream":"`))
		name, _, _ := bytes.Cut(rest, []byte(`"`))
		if !ok {
			continue
		}
		var asking sync.WaitGroup
		for _, op := range []string{"join", "leave"} {
			body := fmt.Sprintf(`{"op":%q,"room":"b"}`, op)
			ask := asks(fmt.Sprintf("POST /v1/events/%s HTTP/1.1\r\nHost: parley\r\nContent-Length: %d\r\n\r\n%s", name, len(body), body))
			asking.Go(func() { ask(n, end, hear) })
		}
		asking.Wait()
		break
	}
}
