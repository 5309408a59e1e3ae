package node_test

import (
	"slices"
	"testing"

	"parley/node/nodetest"
	"parley/node/wire"
)

// The list of a large room is kept for those who come next, until somebody else is in the room: here over another node, so
// that nobody has asked for it meanwhile.
func TestTheListOfALargeRoomNamesWhoIsThere(t *testing.T) {
	t.Parallel()
	const many = 70
	c, _ := onRedis(t, 2)
	n, other := c.Nodes[0], c.Nodes[1]
	watcher := nodetest.Dial(t, n.URL("/"))
	watcher.Join("lobby")
	goes := nodetest.Dial(t, other.URL("/"))
	goes.Join("lobby")
	for range many {
		nodetest.Dial(t, n.URL("/")).Join("lobby")
	}
	lists := func(user string) bool {
		watcher.Say(`{"op":"members","req":"list","room":"lobby"}`)
		f := watcher.Until("ok")
		return slices.ContainsFunc(f.Members, func(m wire.Member) bool { return m.ID == user })
	}
	for watcher.Until("presence").Count < many+2 {
	}
	if !lists(goes.Welcome.User.ID) {
		t.Fatal("a member is not listed")
	}
	goes.Say(`{"op":"leave","room":"lobby"}`)
	goes.Until("ok")
	comes := nodetest.Dial(t, other.URL("/"))
	comes.Join("lobby")
	for left, came := false, false; !left || !came; {
		f := watcher.Until("presence")
		left = left || f.Event == wire.EventLeave
		came = came || f.Event == wire.EventJoin && f.User.ID == comes.Welcome.User.ID
	}
	if lists(goes.Welcome.User.ID) || !lists(comes.Welcome.User.ID) {
		t.Error("the list is that of before")
	}
}
