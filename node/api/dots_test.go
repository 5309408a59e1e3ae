package api_test

import (
	"context"
	"testing"
	"time"

	"parley/node/api"
	"parley/node/nodetest"
)

// A room or a user called "." or ".." is one like another, and no step in a path: or all users would be revoked for one.
func TestANameOfDotsIsAName(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, app := nodetest.StartKnowing(t)
	ada := nodetest.Dial(t, n.URL("/"))
	ada.Say(`{"op":"hello","token":%q}`, nodetest.Token(t, -time.Minute, time.Hour, nodetest.AllRooms))
	ada.Until("welcome")
	for _, name := range []string{".", ".."} {
		if err := app.Revoke(ctx, name, time.Time{}); err != nil {
			t.Errorf("revoke %s: %v", name, err)
		}
		if err := app.Disconnect(ctx, name); err != nil {
			t.Errorf("disconnect %s: %v", name, err)
		}
		id, err := app.Publish(ctx, name, api.Draft{Text: "x"})
		if list, _, bad := app.History(ctx, name, nil, 1); err != nil || bad != nil || len(list) != 1 || list[0].ID != id {
			t.Errorf("publish to %s, and read it: %v, %v, %v", name, err, list, bad)
		}
		if _, _, err := app.Members(ctx, name); err != nil {
			t.Errorf("members of %s: %v", name, err)
		}
		ada.Join(name) // as she is not revoked
	}
}
