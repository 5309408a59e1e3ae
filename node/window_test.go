package node_test

import (
	"sync/atomic"
	"testing"
	"time"

	"parley/bus"
	"parley/node"
	"parley/node/nodetest"
	"parley/node/wire"
)

// flushes counts the writes that a room's members share.
type flushes struct {
	node.NoObserver
	n atomic.Int64
}

func (f *flushes) Delivered(string, int, int) { f.n.Add(1) }

// What is said fast shares its writes: between two of them are 2 ms at least, however much there is to say.
func TestWhatIsSaidFastSharesItsWrites(t *testing.T) {
	const said, window = 3000, 2 * time.Millisecond
	f := &flushes{}
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Observer = f })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	p.Join("tea", `"limit":0`)
	before, began := f.n.Load(), time.Now()
	body := wire.Said{Room: "tea", From: wire.Member{ID: "u"}, Text: "x"}.Body()
	for range said {
		c.Nodes[0].Bus.Publish("tea", bus.Draft{Body: body}, func(bus.ID, error) {})
	}
	for range said {
		p.Until("message")
	}
	if n, most := f.n.Load()-before, int64(time.Since(began)/window)+2; n > most {
		t.Errorf("%d writes in %v, want at most %d", n, time.Since(began), most)
	}
}

// In a large room the count is told at most once a second, however many come and go.
func TestTheCountOfALargeRoomIsNotToldAllTheTime(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.PresenceLimit = 1 })
	watcher, other, restless := nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[0].URL("/")), nodetest.Dial(t, c.Nodes[0].URL("/"))
	began := time.Now()
	watcher.Join("tea")
	other.Join("tea")
	for range 100 {
		restless.Join("tea")
		restless.Say(`{"op":"leave","room":"tea"}`)
		restless.Until("ok")
	}
	watcher.Say(`{"op":"ping"}`)
	told := 0
	for {
		f := watcher.Next()
		if f.Op == "ok" {
			break
		}
		if f.Op == "presence" && f.Event == wire.EventCount {
			told++
		}
	}
	if most := int(time.Since(began)/time.Second) + 2; told > most || told == 0 {
		t.Errorf("the count was told %d times in %v, want at most %d", told, time.Since(began), most)
	}
}

// A room that is left again stays for the whole linger again.
func TestTheLingerBeginsAnewWithEachReturn(t *testing.T) {
	t.Parallel()
	const linger = 2 * time.Second
	w := newWatch()
	c := nodetest.Start(t, 1, func(cfg *node.Config) { cfg.Observer = w; cfg.Linger = linger })
	p := nodetest.Dial(t, c.Nodes[0].URL("/"))
	var left time.Time
	for closed := -1; closed != w.count("room closed"); { // again, if the machine was too busy
		closed = w.count("room closed")
		for i := range 2 {
			if i > 0 {
				time.Sleep(linger * 3 / 4)
			}
			p.Join("tea")
			left = time.Now()
			p.Say(`{"op":"leave","room":"tea"}`)
			p.Until("ok")
		}
	}
	w.wait(t, "room closed", w.count("room closed")+1)
	if stayed := time.Since(left); stayed < linger {
		t.Errorf("the room stayed for %v, want %v", stayed, linger)
	}
}
