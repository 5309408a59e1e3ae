package redis_test

import (
	"fmt"
	"slices"
	"testing"

	"parley/bus"
	"parley/bus/bustest"
	"parley/bus/redis"
)

// Many come at once to a large room, and each is given the list of its members: it is made anew only when that has changed.
func TestTheListOfALargeRoomIsMadeOnceForAChange(t *testing.T) {
	t.Parallel()
	const many = 150
	b := openRedis(t, redis.Config{URL: bustest.StartRedis(t).URL()})
	sub, told := subscribe(t, b, "lobby")
	for i := range many {
		sub.Enter(bus.Member{ID: fmt.Sprint(i), Name: "before"})
	}
	for i := range many {
		told.change(bus.Joined, fmt.Sprint(i))
	}
	first := sub.Roster()
	if len(first.Members) != many || first.Count != many {
		t.Fatalf("%d of %d are listed, want %d", len(first.Members), first.Count, many)
	}
	if again := sub.Roster(); &again.Members[0] != &first.Members[0] {
		t.Error("a list that has not changed is made anew")
	}
	listed := func(id, name string) bool {
		return slices.Contains(sub.Roster().Members, bus.Member{ID: id, Name: name})
	}
	sub.Enter(bus.Member{ID: "7", Name: "after"})
	told.change(bus.Renamed, "7")
	if !listed("7", "after") {
		t.Error("a new name is not listed")
	}
	sub.Leave("8")
	told.change(bus.Left, "8")
	if listed("8", "before") || sub.Roster().Count != many-1 {
		t.Error("who has left is listed")
	}
	sub.Enter(bus.Member{ID: "new", Name: "before"})
	told.change(bus.Joined, "new")
	if !listed("new", "before") {
		t.Error("who has come is not listed")
	}
	if !slices.Contains(first.Members, bus.Member{ID: "8", Name: "before"}) {
		t.Error("a list that was given has changed")
	}
}
