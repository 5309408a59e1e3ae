package api_test

import (
	"context"
	"testing"
	"time"

	"parley/node"
	"parley/node/api"
	"parley/node/keys"
	"parley/node/nodetest"
	"parley/node/wire"
)

// issued is an Authenticator whose tokens say how long ago they were issued.
type issued struct{}

func (issued) Authenticate(_ context.Context, token string) (node.Grant, error) {
	ago, err := time.ParseDuration(token)
	return node.Grant{User: node.User{ID: "ada"}, Issued: time.Now().Add(-ago)}, err
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
		came := func(ago string) *nodetest.Peer {
			p := nodetest.Dial(t, n.URL("/"))
			p.Say(`{"op":"hello","token":%q}`, ago)
			p.Want("welcome")
			return p
		}
		old, young := came("2h"), came("30m")
		if err := c.Revoke(t.Context(), user, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		young.Say(`{"op":"ping"}`)
		young.Want("ok")
		old.WantClose(wire.StatusNoToken)
	}
}
