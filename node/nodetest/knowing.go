package nodetest

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/node"
	"parley/node/api"
	"parley/node/keys"
	"parley/node/token"
)

const (
	tokenSecret = "the secret of a node under test, of 32"
	appKey      = "the-key-of-an-application-under-test"
)

// StartKnowing runs a node that takes tokens, API keys, and guests: who should be somebody could become one. each is as for Start.
func StartKnowing(t testing.TB, each ...func(*node.Config)) (*Node, *api.Client) {
	t.Helper()
	v, err := token.New(t.Context(), token.Config{Secret: []byte(tokenSecret), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Parse("backend " + appKey)
	if err != nil {
		t.Fatal(err)
	}
	each = append(each, func(cfg *node.Config) { cfg.Auth, cfg.Apps, cfg.Guests = v, ring, true })
	n := Start(t, 1, each...).Nodes[0]
	app, err := api.New(n.HTTP(""), appKey, api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return n, app
}

// AllRooms is the claim of a token for everything.
const AllRooms = `{"*":["*"]}`

// Token is one of ada's for a node of StartKnowing: issued so long from now, for so long, in rooms as the claim says.
func Token(t testing.TB, issued, life time.Duration, rooms string) string {
	t.Helper()
	at := time.Now().Add(issued)
	c := token.Claims{Name: "Ada", Rooms: json.RawMessage(rooms)}
	c.Subject, c.IssuedAt, c.ExpiresAt = "ada", jwt.NewNumericDate(at), jwt.NewNumericDate(at.Add(life))
	tok, err := token.Make(c, []byte(tokenSecret))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
