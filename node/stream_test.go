package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// untilRoom gives the next event of a name in a room.
func (s *stream) untilRoom(name, room string) (event, wire.Frame) {
	s.t.Helper()
	for {
		if e, f := s.until(name); f.Room == room {
			return e, f
		}
	}
}

func TestOneStreamCarriesSeveralRooms(t *testing.T) {
	for name, other := range map[string]int{"on its node": 0, "over another node": 1} {
		t.Run(name, func(t *testing.T) {
			c := nodetest.Start(t, 2)
			p := nodetest.Dial(t, c.Nodes[1].URL("/"))
			const a, b, third = "tea / é", "b&=;", "third"
			for _, room := range []string{a, b, third} {
				p.Join(room)
			}
			said := p.SendText(a, "first")
			s := listen(t, c.Nodes[0].HTTP("/v1/events?"+url.Values{"room": {a, b}, "limit": {"10"}}.Encode()))
			_, w := s.until("welcome")
			if _, m := s.until(""); m.ID != said {
				t.Errorf("the backlog has %s", nodetest.Show(m))
			}
			e, _ := s.untilRoom("live", b)
			if places, err := url.ParseQuery(e.id); err != nil || places.Get(a) != said.String() || places.Get(b) != "0-0" {
				t.Errorf("the cursor is %q, %v", e.id, err)
			}
			ask := func(body string) (int, map[string]any) {
				status, _, answer := call(t, "POST", c.Nodes[other].HTTP("/v1/events/"+w.Stream), body)
				return status, answer
			}
			if status, answer := ask(`{"op":"join","req":7,"room":"third","limit":0}`); status != 202 {
				t.Fatalf("%d %v", status, answer)
			}
			if _, ok := s.untilRoom("ok", third); string(ok.Req) != "7" || ok.Count != 2 {
				t.Errorf("joined with %s", nodetest.Show(ok))
			}
			inB, inThird := p.SendText(b, "in b"), p.SendText(third, "in third")
			for range 2 { // in either order: rooms are flushed each by itself
				s.until("")
			}
			ask(`{"op":"signal","room":"third","kind":"typing"}`)
			p.Until("signal")
			ask(fmt.Sprintf(`{"op":"leave","req":8,"room":%q}`, a))
			for {
				if e, _ = s.until("ok"); strings.Contains(e.data, `"req":8`) {
					break
				}
			}
			if places, _ := url.ParseQuery(e.id); len(places) != 2 || places.Get(b) != inB.String() || places.Get(third) != inThird.String() {
				t.Errorf("after leaving, the cursor is %q", e.id)
			}
			s.body.Close()

			p.SendText(a, "not here")
			p.SendText(b, "missed")
			p.SendText(third, "missed too")
			back := listen(t, c.Nodes[1].HTTP("/v1/events?"+url.Values{"room": {a, b}}.Encode()), "Last-Event-ID", e.id)
			var texts []string
			for range 2 {
				_, m := back.until("")
				texts = append(texts, m.Text)
			}
			if slices.Sort(texts); !slices.Equal(texts, []string{"missed", "missed too"}) {
				t.Errorf("come back, it heard %q", texts)
			}
			gone := 0
			for began := time.Now(); gone != 404 && time.Since(began) < time.Minute; { // its end is noticed soon
				gone, _ = ask(`{"op":"leave","room":"third"}`)
				if other != 0 {
					break // who passes a request on does not know
				}
			}
			if other == 0 && gone != 404 {
				t.Errorf("a request for the stream that has ended is answered %d", gone)
			}
			status, answer := ask(`{"op":"send","room":"third","text":"x"}`)
			if status != 400 {
				t.Errorf("a send is answered %d %v", status, answer)
			}
		})
	}
}

// Every event has the places of all rooms as they are by then, whichever room it is from.
func TestAStreamsCursorNeverGoesBack(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 2)
	rooms := []string{"0", "1", "2", "3"}
	const each = 100
	s := listen(t, c.Nodes[0].HTTP("/v1/events?limit=0&"+url.Values{"room": rooms}.Encode()))
	for range rooms {
		s.until("live")
	}
	for _, room := range rooms {
		p := nodetest.Dial(t, c.Nodes[1].URL("/"))
		p.Join(room)
		go func() {
			for i := range each {
				p.Say(`{"op":"send","room":%q,"text":"%d"}`, room, i)
			}
		}()
	}
	heard := map[string]string{}
	for range rooms {
		for range each {
			e, m := s.until("")
			heard[m.Room] = m.ID.String()
			places, err := url.ParseQuery(e.id)
			if err != nil {
				t.Fatal(err)
			}
			for room, id := range heard {
				if places.Get(room) != id {
					t.Fatalf("after %v the cursor is %s", heard, e.id)
				}
			}
		}
	}
}

func TestAStreamHasAsManyRoomsAsItsCursorNames(t *testing.T) {
	c := nodetest.Start(t, 1)
	query := url.Values{}
	for i := range 9 {
		query.Add("room", fmt.Sprint(i, strings.Repeat("é", 63)))
	}
	s := listen(t, c.Nodes[0].HTTP("/v1/events?"+query.Encode()))
	_, w := s.until("welcome")
	for range 9 {
		if e, _ := s.until("live"); len(e.id) > 4000 {
			t.Errorf("a cursor of %d bytes", len(e.id))
		}
	}
	call(t, "POST", c.Nodes[0].HTTP("/v1/events/"+w.Stream), `{"op":"join","req":1,"room":`+nodetest.Quote(strings.Repeat("ü", 64))+`}`)
	if _, f := s.until("error"); f.Code != wire.TooLarge || string(f.Req) != "1" {
		t.Errorf("got %s", nodetest.Show(f))
	}
	query.Add("room", strings.Repeat("é", 64))
	if status, _, answer := call(t, "GET", c.Nodes[0].HTTP("/v1/events?"+query.Encode()), ""); status != 413 {
		t.Errorf("%d %v", status, answer)
	}
	for path, body := range map[string]string{
		"/v1/events/5e0c91d4TkqS1u8lC7hUX3kzvYyUo":             `{"op":"leave","room":"a"}`,
		"/v1/events/" + w.Stream[:8] + strings.Repeat("a", 22): `{"op":"leave","room":"a"}`,
	} {
		if status, _, answer := call(t, "POST", c.Nodes[0].HTTP(path), body); status != 404 {
			t.Errorf("%s: %d %v", path, status, answer)
		}
	}
}

// A stream may begin without rooms, and end up without: it comes back as it was.
func TestAStreamMayHaveNoRooms(t *testing.T) {
	c := nodetest.Start(t, 1)
	s := listen(t, c.Nodes[0].HTTP("/v1/events"))
	_, w := s.until("welcome")
	for i, op := range []string{"join", "leave"} {
		body, _ := json.Marshal(map[string]any{"op": op, "req": i, "room": "a"})
		call(t, "POST", c.Nodes[0].HTTP("/v1/events/"+w.Stream), string(body))
		e, _ := s.until("ok")
		if op == "leave" && e.id != "&" {
			t.Errorf("the cursor is %q", e.id)
		}
	}
	back := listen(t, c.Nodes[0].HTTP("/v1/events?room=a"), "Last-Event-ID", "&")
	_, w = back.until("welcome")
	call(t, "POST", c.Nodes[0].HTTP("/v1/events/"+w.Stream), `{"op":"join","req":"b","room":"b"}`)
	if _, f := back.until("ok"); f.Room != "b" {
		t.Errorf("got %s", nodetest.Show(f))
	}
}

// A stream that is opened anew goes on in each room from where its address says, is in each once, and joins none again that it is in.
func TestAStreamGoesOnFromWhereItsAddressSays(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	p := nodetest.Dial(t, n.URL("/"))
	p.Join("a")
	p.Join("b")
	since := p.SendText("a", "one")
	p.SendText("a", "two")
	p.SendText("b", "three")
	s := listen(t, n.HTTP("/v1/events?room=a&room=b&room=a&since=a%3D"+since.String()+"%26c%3D0-0"))
	_, w := s.until("welcome")
	want := []string{"ok a true", "message a two", "live a", "ok b", "message b three", "live b"}
	told := func(last string) (got []string) {
		for len(got) == 0 || got[len(got)-1] != last {
			f, err := wire.ParseFrame([]byte(s.next().data))
			if err != nil {
				t.Fatal(err)
			}
			what := strings.TrimSpace(f.Op + " " + f.Room + " " + f.Text)
			if f.Recovered != nil {
				what += fmt.Sprint(" ", *f.Recovered)
			}
			if f.Op != "presence" {
				got = append(got, what)
			}
		}
		return got
	}
	if got := told("live b"); !slices.Equal(got, want) {
		t.Errorf("it is told %q, want %q", got, want)
	}
	if status, _, answer := call(t, "POST", n.HTTP("/v1/events/"+w.Stream), `{"op":"join","room":"a"}`); status != 202 {
		t.Fatalf("%d %v", status, answer)
	}
	for _, want := range []string{"ok a", "message a four"} {
		if got := told(want); len(got) != 1 {
			t.Errorf("of a room that it is in, it is told %q, want %q", got, want)
		}
		p.SendText("a", "four")
	}
}

// manyRooms are as many as a cursor names, which is as large as it may be.
func manyRooms() (rooms []string) {
	for i := range 9 {
		rooms = append(rooms, fmt.Sprint(i, strings.Repeat("é", 63)))
	}
	return rooms
}

// deaf opens an event stream and reads nothing until it is told to.
func deaf(t *testing.T, n *nodetest.Node, path string) (read func() *stream) {
	t.Helper()
	nc, err := net.Dial("tcp", n.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.(*net.TCPConn).SetReadBuffer(64 << 10)
	fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: parley\r\n\r\n", path)
	return func() *stream {
		nc.SetReadDeadline(time.Now().Add(2 * time.Minute))
		r := bufio.NewReader(nc)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		return &stream{t, nc, bufio.NewReader(resp.Body)}
	}
}

// fullQueue is how many bytes wait for one who reads nothing, once no more come.
func fullQueue(n *nodetest.Node) int {
	waits := func() int { return node.MostThatWaits(n.Server) }
	for began := time.Now(); waits() == 0 && time.Since(began) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	return still(waits)
}

// Each id is a cursor of all rooms: a short message may be an event of 4 KB. What waits is bounded all the same.
func TestAStreamThatIsNotReadStaysWithinTheQueue(t *testing.T) {
	t.Parallel()
	const limit, said = 64 << 10, 100
	c := nodetest.StartNarrow(t, 1, func(cfg *node.Config) { cfg.QueueBytes = limit })
	n := c.Nodes[0]
	rooms := manyRooms()
	p := nodetest.Dial(t, n.URL("/"))
	for _, room := range rooms {
		p.Join(room)
		for i := range said {
			p.SendText(room, fmt.Sprint(i))
		}
	}
	read := deaf(t, n, "/v1/events?"+url.Values{"room": rooms, "limit": {"200"}}.Encode())
	most := fullQueue(n)
	if most > limit || most == 0 {
		t.Errorf("%d bytes wait in a queue of %d", most, limit)
	}
	s := read()
	heard := map[string]int{}
	for live := 0; live < len(rooms); {
		switch e := s.next(); e.name {
		case "live":
			live++
		case "":
			m, _ := wire.ParseFrame([]byte(e.data))
			if m.Text != fmt.Sprint(heard[m.Room]) {
				t.Fatalf("heard %q, want %d", m.Text, heard[m.Room])
			}
			heard[m.Room]++
			most = max(most, node.MostThatWaits(n.Server))
		}
	}
	for _, room := range rooms {
		if heard[room] != said {
			t.Errorf("heard %d messages of a room", heard[room])
		}
	}
	if most > limit {
		t.Errorf("%d bytes waited in a queue of %d", most, limit)
	}
}

// What connecting joins is answered as what is asked for later is: the next room once the answer of the last has space.
func TestTheRoomsOfAStreamAreJoinedAsItsReaderTakesTheirAnswers(t *testing.T) {
	t.Parallel()
	const limit, members = 64 << 10, 200
	c := nodetest.StartNarrow(t, 2, func(cfg *node.Config) { cfg.QueueBytes = limit })
	var rooms []string
	for i := range 60 { // whose answers have 27 KB each
		rooms = append(rooms, fmt.Sprint(i))
		enters(t, c.Nodes[1].Bus, rooms[i], members)
	}
	n := c.Nodes[0]
	read := deaf(t, n, "/v1/events?"+url.Values{"room": rooms}.Encode())
	if most := fullQueue(n); most > limit || most == 0 {
		t.Errorf("%d bytes wait in a queue of %d", most, limit)
	}
	s := read()
	for range rooms {
		if _, f := s.until("ok"); f.Count != members+1 {
			t.Errorf("%s has %d members", f.Room, f.Count)
		}
	}
}

// Requests for a stream come over other connections: who does not read the answers is not given more of them.
func TestRequestsForAStreamThatIsNotReadWait(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	c := nodetest.StartNarrow(t, 1, func(cfg *node.Config) { cfg.QueueBytes = limit })
	n := c.Nodes[0]
	rooms := manyRooms()
	s := listen(t, n.HTTP("/v1/events?"+url.Values{"room": rooms}.Encode()))
	_, w := s.until("welcome")
	asked := 0
	ask := func(body string) int {
		asked++
		status, _, _ := call(t, "POST", n.HTTP("/v1/events/"+w.Stream), body)
		return status
	}
	for range 2 {
		status := 202
		for status == 202 && asked < 5000 {
			status = ask(fmt.Sprintf(`{"op":"leave","req":%d,"room":%q}`, asked+1, rooms[asked%len(rooms)]))
			if status == 202 {
				status = ask(fmt.Sprintf(`{"op":"join","req":%d,"room":%q,"limit":0}`, asked+1, rooms[(asked-1)%len(rooms)]))
			}
		}
		if waits := node.MostThatWaits(n.Server); status != 429 || waits > limit {
			t.Fatalf("after %d requests: %d, and %d bytes wait", asked, status, waits)
		}
		last := fmt.Sprintf(`"req":%d`, asked-1) // that was taken
		for e := s.next(); !strings.Contains(e.data, last); {
			e = s.next()
		}
		if status := ask(`{"op":"signal","room":"` + rooms[0] + `","kind":"k"}`); status != 202 {
			t.Errorf("then a request is answered %d", status)
		}
	}
}

func TestARoomThatAStreamMayNotHaveIsNotInItsCursor(t *testing.T) {
	t.Parallel()
	n, _ := within(t, node.Limits{Rooms: 1})
	if status, _, answer := call(t, "GET", n.HTTP("/v1/events?room=a&room=b"), ""); status != 403 {
		t.Errorf("a stream of one room too many is answered %d %v", status, answer)
	}
	s := listen(t, n.HTTP("/v1/events?room=a"))
	_, w := s.until("welcome")
	s.until("live")
	call(t, "POST", n.HTTP("/v1/events/"+w.Stream), `{"op":"join","room":"b"}`)
	if _, f := s.until("error"); f.Code != wire.Forbidden {
		t.Errorf("got %s", nodetest.Show(f))
	}
	if status, _, _ := call(t, "POST", n.HTTP("/v1/rooms/a/messages"), `{"text":"x"}`); status != 201 {
		t.Fatal(status)
	}
	e, _ := s.until("")
	if places, err := url.ParseQuery(e.id); err != nil || len(places) != 1 || !places.Has("a") {
		t.Errorf("the cursor is %q, %v", e.id, err)
	}
}

// A heldRoom is a bus on which one room is subscribed to only once it may be.
type heldRoom struct {
	bus.Bus
	room       string
	asked, may chan struct{}
}

func (b *heldRoom) Subscribe(ctx context.Context, room string, sink bus.Sink) (bus.Subscription, error) {
	if room == b.room {
		close(b.asked)
		<-b.may
	}
	return b.Bus.Subscribe(ctx, room, sink)
}

// A stream that ends while it joins a room is no member of it afterwards.
func TestAStreamThatEndsInTheMidstOfAJoinLeavesNobodyBehind(t *testing.T) {
	t.Parallel()
	w, b := newWatch(), &heldRoom{room: "late", asked: make(chan struct{}), may: make(chan struct{})}
	c := nodetest.Start(t, 1, func(cfg *node.Config) {
		b.Bus = cfg.Bus
		cfg.Bus, cfg.Observer, cfg.Linger, cfg.Grace = b, w, time.Millisecond, 1
	})
	n := c.Nodes[0]
	s := listen(t, n.HTTP("/v1/events?room=lobby"))
	_, welcome := s.until("welcome")
	s.until("live")
	ask := func(body string) int {
		status, _, _ := call(t, "POST", n.HTTP("/v1/events/"+welcome.Stream), body)
		return status
	}
	if status := ask(`{"op":"join","room":"late"}`); status != 202 {
		t.Fatalf("a join is answered %d", status)
	}
	<-b.asked
	s.body.Close()
	for began := time.Now(); ask(`{"op":"leave","room":"lobby"}`) != 404; { // its end is noticed soon
		if time.Since(began) > time.Minute {
			t.Fatal("the end of the stream is not noticed")
		}
	}
	close(b.may)
	w.wait(t, "room opened", 2)
	w.wait(t, "room closed", 2)
}
