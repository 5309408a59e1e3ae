package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"parley/node"
	"parley/node/api"
	"parley/node/keys"
	"parley/node/nodetest"
	"parley/node/wire"
)

// issued is an Authenticator whose tokens say for whom, and how long ago they were issued.
type issued struct{}

func (issued) Authenticate(_ context.Context, token string) (node.Grant, error) {
	user, since, _ := strings.Cut(token, " ")
	ago, err := time.ParseDuration(since)
	return node.Grant{User: node.User{ID: user}, Issued: time.Now().Add(-ago)}, err
}

// A revocation is of the tokens that were issued before its time, and of no others, for a user and for all.
func TestWhatWasIssuedBeforeATimeIsRevoked(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"ada", ""} {
		n := nodetest.Start(t, 1, func(cfg *node.Config) {
			cfg.Auth = issued{}
			cfg.Apps, _ = keys.Parse("backend " + key)
		}).Nodes[0]
		c, err := api.New(n.HTTP("/"), key, api.Options{})
		if err != nil {
			t.Fatal(err)
		}
		came := func(token string) *nodetest.Peer {
			p := nodetest.Dial(t, n.URL("/"))
			p.Say(`{"op":"hello","token":%q}`, token)
			p.Want("welcome")
			return p
		}
		old, young, other := came("ada 2h"), came("ada 30m"), came("bob 2h")
		if err := c.Revoke(t.Context(), user, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		young.Say(`{"op":"ping"}`)
		young.Want("ok")
		old.WantClose(wire.StatusNoToken)
		if user == "" {
			other.WantClose(wire.StatusNoToken)
			continue
		}
		other.Say(`{"op":"ping"}`)
		other.Want("ok")
	}
}
