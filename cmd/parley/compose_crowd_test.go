package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/node/client"
)

// A crowd talks in one room until it is hushed. Each member has a client of its own, and writes down what it hears.
type crowd struct {
	t       *testing.T
	url     string
	members []*talker
	ctx     context.Context // done when nothing more is to be said
	hush    context.CancelFunc
	talking sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond            // of what follows, and of the members
	said    map[string]client.ID // acknowledged, by text
	unsaid  []error              // what was refused for good
	pending int                  // sends that have no answer yet
	refused int                  // attempts to come back that failed
}

// A talker is a member of a crowd. Its crowd's mu guards it.
type talker struct {
	*client.Client
	room   *client.Room
	node   string // "" without a connection
	heard  []heard
	gaps   []gap
	away   []absence
	paused time.Time // since when there is no connection
}

type heard struct {
	id   client.ID
	text string
}

type gap struct {
	after client.ID
	at    int // heard before
}

type absence struct{ from, to time.Time }

// gather makes a crowd that is silent yet.
func gather(t *testing.T, n int, url string) *crowd {
	t.Helper()
	c := &crowd{t: t, url: url, said: make(map[string]client.ID)}
	c.changed.L = &c.mu
	c.ctx, c.hush = context.WithCancel(context.Background())
	t.Cleanup(c.disperse)
	c.join(n)
	return c
}

// join lets n more in.
func (c *crowd) join(n int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range n {
		m := new(talker)
		var err error
		m.Client, err = client.Dial(ctx, c.url, client.Options{Status: func(s client.Status) { c.note(m, s) }, MaxBackoff: time.Second})
		if err == nil {
			c.members = append(c.members, m)
			m.room, err = m.Join(ctx, "crowd", client.JoinOptions{Limit: new(int), Handle: func(e client.Event) { c.hear(m, e) }})
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *crowd) note(m *talker, s client.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.node = s.Node
	switch {
	case s.Up && !m.paused.IsZero():
		m.away = append(m.away, absence{m.paused, time.Now()})
		m.paused = time.Time{}
	case !s.Up && m.paused.IsZero():
		m.paused = time.Now()
	case !s.Up:
		c.refused++
	}
	c.changed.Broadcast()
}

func (c *crowd) hear(m *talker, e client.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := e.(type) {
	case client.Message:
		m.heard = append(m.heard, heard{e.ID, e.Text})
		c.changed.Broadcast()
	case client.Gap:
		m.gaps = append(m.gaps, gap{e.After, len(m.heard)})
	}
}

// talk makes every member say something now and then.
func (c *crowd) talk(every time.Duration) {
	for i, m := range c.members {
		c.talking.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for n := 0; ; n++ {
				c.say(m, fmt.Sprintf("%d/%d", i, n))
				select {
				case <-tick.C:
				case <-c.ctx.Done():
					return
				}
			}
		})
	}
}

func (c *crowd) say(m *talker, text string) {
	c.mu.Lock()
	c.pending++
	c.mu.Unlock()
	m.room.SendAsync(client.Draft{Text: text}, func(id client.ID, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pending--
		if err != nil {
			c.unsaid = append(c.unsaid, err)
		} else {
			c.said[text] = id
		}
		c.changed.Broadcast()
	})
}

// await waits for what is so under the lock.
func (c *crowd) await(what string, so func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock() // await waits, or has not looked at ctx yet
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !so() {
		if ctx.Err() != nil {
			c.t.Errorf("%s: not within %s", what, patience)
			return
		}
		c.changed.Wait()
	}
}

// nodesLocked are the nodes that members are connected to, each with how many; "" stands for none.
func (c *crowd) nodesLocked() map[string]int {
	nodes := make(map[string]int)
	for _, m := range c.members {
		nodes[m.node]++
	}
	return nodes
}

func (c *crowd) nodes() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodesLocked()
}

// awaitNodes waits until all members are connected, over so many nodes.
func (c *crowd) awaitNodes(n int) {
	c.t.Helper()
	c.await(fmt.Sprintf("members on %d nodes", n), func() bool {
		nodes := c.nodesLocked()
		return len(nodes) == n && nodes[""] == 0
	})
}

// awaitTalk waits until something said from now on is acknowledged to every member: all is well again.
func (c *crowd) awaitTalk() {
	c.t.Helper()
	for i, m := range c.members {
		text := fmt.Sprintf("%d at %d", i, time.Now().UnixNano())
		c.say(m, text)
		c.await(text, func() bool { _, ok := c.said[text]; return ok })
	}
}

// settle ends the talk and compares what was said with what everyone heard: nothing acknowledged is missing without a told
// gap, nothing came twice or out of order.
func (c *crowd) settle() {
	c.t.Helper()
	c.hush()
	c.talking.Wait()
	c.await("answers", func() bool { return c.pending == 0 })
	c.await("everyone hears the last", func() bool {
		for _, m := range c.members {
			if len(m.gaps) == 0 && len(m.heard) < len(c.said) {
				return false
			}
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	var missing, doubled, disordered, gaps int
	for _, m := range c.members {
		texts := make(map[string]bool)
		for i, h := range m.heard {
			if texts[h.text] {
				doubled++
			}
			texts[h.text] = true
			told := slices.ContainsFunc(m.gaps, func(g gap) bool { return g.at == i })
			if i > 0 && !told && !m.heard[i-1].id.Less(h.id) {
				disordered++
			}
		}
		for text, id := range c.said {
			if !texts[text] && !m.toldOf(id) {
				missing++
			}
		}
		gaps += len(m.gaps)
	}
	c.t.Logf("%d messages acknowledged, heard by %d: %d missing, %d twice, %d out of order; %d gaps told",
		len(c.said), len(c.members), missing, doubled, disordered, gaps)
	if missing+doubled+disordered > 0 || len(c.said) == 0 {
		c.t.Error("that is not what was promised")
	}
	if len(c.unsaid) > 0 {
		c.t.Errorf("%d messages were refused: %v", len(c.unsaid), c.unsaid[0])
	}
}

// toldOf is whether a gap was told that a message is in.
func (m *talker) toldOf(id client.ID) bool {
	return slices.ContainsFunc(m.gaps, func(g gap) bool {
		return g.after.Less(id) && (g.at == len(m.heard) || id.Less(m.heard[g.at].id))
	})
}

// returns describes how members came back that were away since a time.
func (c *crowd) returns(since time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first, last time.Time
	var took []time.Duration
	for _, m := range c.members {
		for _, a := range m.away {
			if a.from.Before(since) {
				continue
			}
			took = append(took, a.to.Sub(a.from))
			if first.IsZero() || a.to.Before(first) {
				first = a.to
			}
			if a.to.After(last) {
				last = a.to
			}
		}
	}
	if len(took) == 0 {
		return "nobody had to come back"
	}
	slices.Sort(took)
	return fmt.Sprintf("%d came back, after %d attempts that failed, spread over %s; away for %s in the middle, %s at most",
		len(took), c.refused, last.Sub(first).Round(100*time.Millisecond), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// absences counts how often members lost their connections.
func (c *crowd) absences() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, m := range c.members {
		n += len(m.away)
		if !m.paused.IsZero() {
			n++
		}
	}
	return n
}

func (c *crowd) disperse() {
	c.hush()
	c.talking.Wait()
	var errs []error
	for _, m := range c.members {
		errs = append(errs, m.Close())
	}
	if err := errors.Join(errs...); err != nil && !strings.Contains(err.Error(), "closed") {
		c.t.Error(err)
	}
}
