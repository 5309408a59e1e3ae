package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/bus/bustest"
	"parley/node/wire"
)

// An eventSource does as a browser's: it comes back with the last id after a stream that ended and after a network error, when it was
// told to, and gives up for good on any status but 200.
type eventSource struct {
	path   string
	server func() string // where it connects next
	last   string
	retry  time.Duration
	texts  map[string][]string // by room
	dead   string
}

func (es *eventSource) run(ctx context.Context, heard func()) {
	es.retry, es.texts = 100*time.Millisecond, map[string][]string{}
	for ctx.Err() == nil && es.dead == "" {
		es.listen(ctx, heard)
		select {
		case <-ctx.Done():
		case <-time.After(es.retry):
		}
	}
}

func (es *eventSource) listen(ctx context.Context, heard func()) {
	req, _ := http.NewRequestWithContext(ctx, "GET", es.server()+es.path, nil)
	if es.last != "" {
		req.Header.Set("Last-Event-ID", es.last)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		es.dead = resp.Status
		return
	}
	id, name, data := es.last, "", ""
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			data = value
		case "retry":
			ms, _ := strconv.Atoi(value)
			es.retry = time.Duration(ms) * time.Millisecond
		case "":
			es.last = id
			if f, err := wire.ParseFrame([]byte(data)); err == nil && name == "" {
				es.texts[f.Room] = append(es.texts[f.Room], f.Text)
				heard()
			}
			name, data = "", ""
		}
	}
}

// What EventSources and "curl --retry" live through while three nodes are restarted, one after the other: nothing is missing, and
// nothing comes twice.
func TestStreamsAndPostsOutliveARollingRestart(t *testing.T) {
	redis := bustest.StartRedis(t)
	var urls [3]atomic.Pointer[string]
	nodes := make([]*process, len(urls))
	start := func(i int) {
		nodes[i] = startNode(t, "--redis", redis.URL(), "--drain", "300ms")
		urls[i].Store(&nodes[i].url)
	}
	for i := range nodes {
		start(i)
	}
	var turn atomic.Int64
	next := func() string { return *urls[int(turn.Add(1))%len(urls)].Load() }
	rooms := []string{"a", "b"}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var heard atomic.Int64
	var sources []*eventSource
	var listening sync.WaitGroup
	for i := range 8 {
		es := &eventSource{path: "/v1/rooms/" + rooms[i%2] + "/events?since=0-0", server: next}
		if i >= 4 {
			es = &eventSource{path: "/v1/events?room=a&room=b&since=a%3D0-0%26b%3D0-0", server: next}
		}
		sources = append(sources, es)
		listening.Go(func() { es.run(ctx, func() { heard.Add(1) }) })
	}

	var b [16]byte
	rand.Read(b[:])
	session := base64.RawURLEncoding.EncodeToString(b[:])
	said := map[string][]string{}
	say := func(room string, i int) { // as curl --retry --retry-all-errors
		text := fmt.Sprint(room, i)
		for ctx.Err() == nil {
			req, _ := http.NewRequestWithContext(ctx, "POST", next()+"/v1/rooms/"+url.PathEscape(room)+"/messages", strings.NewReader(`{"text":"`+text+`"}`))
			req.Header.Set("Parley-Session", session)
			req.Header.Set("Idempotency-Key", text)
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode == 201 {
					said[room] = append(said[room], text)
					return
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		for i := range nodes {
			if err := nodes[i].terminate(); err != nil {
				t.Error(err)
			}
			p, err := startProcess(parley("--redis", redis.URL(), "--drain", "300ms"))
			if err != nil {
				t.Error(err)
				return
			}
			endAfter(t, p)
			nodes[i] = p
			urls[i].Store(&p.url)
		}
	}()
	for i, going := 0, true; going || i%2 == 1; i++ {
		select {
		case <-restarted:
			going = false
		default:
		}
		say(rooms[i%2], i)
		time.Sleep(10 * time.Millisecond)
	}
	want := int64(6*len(said["a"]) + 6*len(said["b"])) // two streams of each room, and four of both
	for heard.Load() < want && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	listening.Wait()
	t.Logf("%d messages, %d of %d deliveries", len(said["a"])+len(said["b"]), heard.Load(), want)
	for i, es := range sources {
		if es.dead != "" {
			t.Errorf("stream %d gave up: %s", i, es.dead)
		}
		for room, texts := range es.texts {
			if !slices.Equal(texts, said[room]) {
				t.Errorf("stream %d: of %d messages in %s it heard %d: %q", i, len(said[room]), room, len(texts), texts)
			}
		}
	}
}
