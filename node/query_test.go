package node_test

import (
	"net/http"
	"testing"

	"parley/node/nodetest"
)

// What a query means is not guessed: a room, a cursor or a token that is written wrongly is not none.
func TestAQueryThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	for _, path := range []string{
		"/?room=team;secret", "/ws?room=100%", "/?room=team&token=a;b", "/v1/rooms/r/messages?limit=1;", "/v1/rooms/r/events?since=%zz",
		"/v1/events?room=a;b", "/v1/rooms/r/members?session=a;b",
	} {
		var header []string
		if path[1] != 'v' {
			header = upgrade
		}
		if status, _, _ := call(t, "GET", n.HTTP(path), "", header...); status != http.StatusBadRequest {
			t.Errorf("%s: %d", path, status)
		}
	}
}
