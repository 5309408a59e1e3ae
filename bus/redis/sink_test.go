package redis_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/bus"
)

const patience = 30 * time.Second

// A listener is a sink that writes down what it is told, one line each.
type listener struct {
	t  testing.TB
	mu sync.Mutex
	// guarded by mu
	lines  []string
	breaks []bus.Message
	more   chan struct{} // closed, and replaced, with each line
}

func subscribe(t testing.TB, b bus.Bus, room string) (bus.Subscription, *listener) {
	t.Helper()
	l := &listener{t: t, more: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := b.Subscribe(ctx, room, l)
	if err != nil {
		t.Fatalf("subscribe to %s: %v", room, err)
	}
	return s, l
}

func (l *listener) Deliver(m bus.Message) {
	if m.Break {
		l.mu.Lock()
		again := len(l.breaks) > 0 && l.breaks[len(l.breaks)-1].Marker == m.Marker && m.ID == m.Marker
		if !again {
			l.breaks = append(l.breaks, m)
		}
		l.mu.Unlock()
		if again {
			return
		}
		l.say("break")
		return
	}
	l.say(string(m.Body))
}

// heard is what was told so far.
func (l *listener) heard() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// broken counts the breaks that were told.
func (l *listener) broken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.breaks)
}

func (l *listener) Signal(body []byte) { l.say("~" + string(body)) }

func (l *listener) Presence(c bus.Change) {
	l.say(fmt.Sprint(map[bus.ChangeKind]string{bus.Joined: "+", bus.Left: "-", bus.Synced: "*"}[c.Kind], c.Member.ID))
}

func (l *listener) say(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	close(l.more)
	l.more = make(chan struct{})
}

// until waits until ok holds of the lines, and gives them.
func (l *listener) until(what string, ok func(lines []string) bool) []string {
	l.t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		lines, more := slices.Clone(l.lines), l.more
		l.mu.Unlock()
		if ok(lines) {
			return lines
		}
		select {
		case <-more:
		case <-timeout:
			l.t.Fatalf("waited in vain for %s; told: %.1000s", what, strings.Join(lines, " "))
		}
	}
}

// expect waits for these lines, and no others.
func (l *listener) expect(want ...string) {
	l.t.Helper()
	got := l.until(fmt.Sprint(want), func(lines []string) bool { return len(lines) >= len(want) })
	if !slices.Equal(got, want) {
		l.t.Errorf("told %v, want %v", got, want)
	}
}

func (l *listener) change(kind bus.ChangeKind, user string) {
	l.t.Helper()
	line := map[bus.ChangeKind]string{bus.Joined: "+", bus.Left: "-"}[kind] + user
	l.until(line, func(lines []string) bool { return slices.Contains(lines, line) })
}

// appendTo publishes under a key, "" for none, and must succeed.
func appendTo(t testing.TB, b bus.Bus, room, body, key string) bus.ID {
	t.Helper()
	id, err := tryAppend(t, b, room, body, key)
	if err != nil {
		t.Fatalf("publish %q to %s: %v", body, room, err)
	}
	return id
}

func tryAppend(t testing.TB, b bus.Bus, room, body, key string) (bus.ID, error) {
	t.Helper()
	type outcome struct {
		id  bus.ID
		err error
	}
	done := make(chan outcome, 1)
	d := bus.Draft{Body: []byte(body), Sum: uint64(len(body))}
	if key != "" {
		d.Key = bus.KeyOf("u", key)
	}
	b.Publish(room, d, func(id bus.ID, err error) { done <- outcome{id, err} })
	select {
	case o := <-done:
		return o.id, o.err
	case <-time.After(patience):
		t.Fatalf("publish %q to %s: not settled", body, room)
		return bus.ID{}, nil
	}
}

// eventually asks again and again, for what no event tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
