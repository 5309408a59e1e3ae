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
		req, _ := http.NewRequest("GET", n.HTTP(path), nil)
		if path[1] != 'v' {
			for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
				req.Header.Set(name, value)
			}
		}
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
}
