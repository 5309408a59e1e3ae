package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"parley/node/token"
)

// What "parley admin" is told reaches a node, whose users feel it: each deed those whom it names, and no others.
func TestAdminDoesWhatItIsTold(t *testing.T) {
	const secret, key = "the secret of a node under test, of 32", "0123456789abcdef0123456789abcdef"
	node := parley()
	node.Env = append(node.Env, "PARLEY_TOKEN_SECRET="+secret, "PARLEY_API_KEYS=backend "+key)
	n, err := startProcess(node)
	if err != nil {
		t.Fatal(err)
	}
	endAfter(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	t.Setenv("PARLEY_API_URL", n.url)
	t.Setenv("PARLEY_API_KEY", key)
	admin := func(args ...string) string {
		t.Helper()
		var out, errw strings.Builder
		if err := run(ctx, append([]string{"admin"}, args...), nil, &out, &errw); err != nil {
			t.Fatalf("parley admin %s: %v, %s", strings.Join(args, " "), err, errw.String())
		}
		return out.String()
	}
	made := func(user, id string, ago time.Duration) string {
		var c token.Claims
		c.Subject, c.ID = user, id
		if user == "ada" {
			c.Name = "Ada"
		}
		c.IssuedAt, c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-ago)), jwt.NewNumericDate(time.Now().Add(time.Hour))
		tok, err := token.Make(c, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	tokens := map[string]string{
		"ada's first": made("ada", "a1", 2*time.Hour), "ada's second": made("ada", "a2", time.Minute), "ada's third": made("ada", "a3", time.Minute),
		"bob's": made("bob", "b1", time.Minute),
	}
	wantGood := func(after string, want ...string) {
		t.Helper()
		for name, tok := range tokens {
			req, _ := http.NewRequestWithContext(ctx, "GET", n.url+"/v1/rooms/lobby/members", nil)
			req.Header.Set("Authorization", "Bearer "+tok)
			for { // until the node knows what is revoked
				resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusServiceUnavailable {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				if (resp.StatusCode == http.StatusOK) != slices.Contains(want, name) {
					t.Errorf("after %s, with %s: %s", after, name, resp.Status)
				}
				break
			}
		}
	}
	enter := func(tok string) *websocket.Conn {
		c := dial(t, ctx, n, "/", "parley.v1")
		say(t, ctx, c, fmt.Sprintf(`{"op":"hello","req":1,"token":%q}`, tok))
		join(t, ctx, c)
		return c
	}

	wantGood("the start", "ada's first", "ada's second", "ada's third", "bob's")
	ada, bob := enter(tokens["ada's third"]), enter(tokens["bob's"])
	if got := slices.Sorted(strings.Lines(admin("members", "lobby"))); !slices.Equal(got, []string{"ada\tAda\n", "bob\t\n"}) {
		t.Errorf("the members are %q", got)
	}
	if got := admin("rooms"); got != "lobby\n" {
		t.Errorf("the rooms are %q", got)
	}
	for _, text := range []string{"one", "two", "three"} {
		admin("publish", "lobby", text)
	}
	if got := admin("history", "lobby", "--limit", "2"); strings.Count(got, "\n") != 2 || strings.Contains(got, "one") || strings.Index(got, "two") > strings.Index(got, "three") {
		t.Errorf("the two newest messages are %q", got)
	}
	admin("disconnect", "ada")
	for {
		if _, _, err := ada.Read(ctx); err != nil {
			if code := websocket.CloseStatus(err); code != 4403 {
				t.Errorf("ada was closed with %d, %v", code, err)
			}
			break
		}
	}
	hear(t, ctx, bob, "three") // he is still there
	wantGood("a disconnect", "ada's first", "ada's second", "ada's third", "bob's")
	admin("revoke", "ada", "--before", "1h")
	wantGood("what was revoked before", "ada's second", "ada's third", "bob's")
	admin("revoke-token", "a2")
	wantGood("a token that was revoked", "ada's third", "bob's")
	admin("revoke", "ada")
	wantGood("a user that was revoked", "bob's")
	if err := run(ctx, []string{"admin", "revoke", ""}, nil, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "everyone") {
		t.Errorf("revoking nobody: %v", err)
	}
	wantGood("nobody was revoked", "bob's")
	admin("revoke", "*")
	wantGood("all were revoked")
}
