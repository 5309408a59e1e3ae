package bustest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"parley/bus"
)

// boardPromises are about what handles know in common beside rooms.
var boardPromises = []promise{
	{name: "rooms that have members are listed on every handle", test: roomsListed},
	{name: "what is posted is known on every handle, until the latest of its ends", test: posted},
	{name: "all handles draw from one bucket", test: drawn},
	{name: "a bucket stays drawn from, however many others there are", test: drawnAmongMany},
	{name: "what holders have is counted until their time is over", test: counted},
	{name: "a holder whose time is short ends no other's", test: countedApart},
}

func roomsListed(c *cluster) {
	a, b := c.open(), c.open()
	ctx := context.Background()
	const odd = "odd } é \x01"
	for _, name := range []string{"tea", odd} {
		sub, err := a.Subscribe(ctx, name, NewRecorder(c.t))
		must(c, err)
		sub.Enter(bus.Member{ID: "ann"})
		defer sub.Close()
	}
	empty, err := b.Subscribe(ctx, "empty", NewRecorder(c.t))
	must(c, err)
	defer empty.Close()
	until(c.t, "the rooms are listed", func() bool {
		rooms, err := b.Rooms(ctx)
		slices.Sort(rooms)
		return err == nil && slices.Equal(rooms, []string{odd, "tea"})
	})
}

func posted(c *cluster) {
	a, b := c.open(), c.open()
	ctx := context.Background()
	all := func(known string) ([]string, string) {
		texts, version, err := b.Posted(ctx, known)
		must(c, err)
		slices.Sort(texts)
		return texts, version
	}
	texts, v0 := all("")
	check(c.t, "texts at first", len(texts), 0)
	must(c, a.Post(ctx, "one\n\x00é", time.Now().Add(time.Hour)))
	must(c, a.Post(ctx, "over", time.Now().Add(-time.Second)))
	texts, v1 := all(v0)
	check(c.t, "texts", texts, []string{"one\n\x00é"})
	texts, again := all(v1)
	check(c.t, "texts that are known", len(texts), 0)
	check(c.t, "the version", again, v1)
	soon, late := time.Now().Add(100*time.Millisecond), time.Now().Add(time.Hour)
	must(c, a.Post(ctx, "two", late))
	must(c, b.Post(ctx, "two", soon))
	must(c, a.Post(ctx, "three", soon))
	must(c, b.Post(ctx, "three", late))
	texts, _ = all(v1)
	left := []string{"one\n\x00é", "three", "two"}
	check(c.t, "texts then", texts, left)
	must(c, a.Post(ctx, "soon over", soon.Add(200*time.Millisecond)))
	until(c.t, "a text is over", func() bool {
		texts, _ = all("")
		return !slices.Contains(texts, "soon over")
	})
	check(c.t, "texts in the end", texts, left)
}

func drawn(c *cluster) {
	a, b := c.open(), c.open()
	ctx := context.Background()
	draw := func(h bus.Board, bucket string, n int) int {
		got, err := h.Draw(ctx, bucket, n, 0.001, 10)
		must(c, err)
		return got
	}
	check(c.t, "drawn first", draw(a, "ann", 4), 4)
	check(c.t, "drawn by another", draw(b, "ann", 4), 4)
	check(c.t, "what is left", draw(a, "ann", 4), 2)
	check(c.t, "then", draw(b, "ann", 4), 0)
	check(c.t, "of another bucket", draw(b, "ann}", 4), 4)
	n := 0
	until(c.t, "more flows in", func() bool {
		got, err := a.Draw(ctx, "fast", 1000, 1000, 10)
		must(c, err)
		n += got
		return n > 30
	})
}

// drawnAmongMany: buckets that are full may be forgotten, and no others.
func drawnAmongMany(c *cluster) {
	a := c.open()
	draw := func(bucket string, n int) int {
		got, err := a.Draw(context.Background(), bucket, n, 0.001, 10)
		must(c, err)
		return got
	}
	check(c.t, "drawn first", draw("cay", 10), 10)
	for i := range 2000 {
		draw(fmt.Sprint("other", i), 1)
	}
	check(c.t, "drawn after others drew from theirs", draw("cay", 10), 0)
	check(c.t, "left in another's", draw("other0", 10), 9)
}

func must(c *cluster, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func counted(c *cluster) {
	a, b := c.open(), c.open()
	ctx := context.Background()
	count := func(h bus.Board, of, holder string, n int, life time.Duration) int {
		total, err := h.Count(ctx, of, holder, n, life)
		must(c, err)
		return total
	}
	check(c.t, "of one", count(a, "ann", "a", 2, time.Minute), 2)
	check(c.t, "of two", count(b, "ann", "b", 3, time.Minute), 5)
	check(c.t, "of somebody else", count(b, "bob}", "b", 1, time.Minute), 1)
	check(c.t, "fewer", count(a, "ann", "a", 1, time.Minute), 4)
	check(c.t, "none", count(a, "ann", "a", 0, time.Minute), 3)
	count(a, "ann", "gone", 7, time.Millisecond)
	until(c.t, "a holder's time is over", func() bool { return count(b, "ann", "b", 3, time.Minute) == 3 })
}

func countedApart(c *cluster) {
	a := c.open()
	count := func(holder string, n int, life time.Duration) int {
		total, err := a.Count(context.Background(), "cay", holder, n, life)
		must(c, err)
		return total
	}
	count("long", 2, time.Hour)
	count("short", 3, 10*time.Millisecond)
	until(c.t, "the short time to be over", func() bool { return count("nobody", 0, time.Hour) < 5 })
	check(c.t, "what is left", count("nobody", 0, time.Hour), 2)
}
