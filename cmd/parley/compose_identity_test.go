package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/node/token"
)

// handedOn are the variables that docker-compose.yml gives a node as they are.
func handedOn(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile(root + "/docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	node, _, _ := strings.Cut(string(text), "\n  lb:\n")
	for _, v := range regexp.MustCompile(`(?m)^      (PARLEY_[A-Z_]+):$`).FindAllStringSubmatch(node, -1) {
		names = append(names, v[1])
	}
	return names
}

// Each variable of who may do what, and of the files that hold such, is handed on by docker-compose.yml, and means something to a node
// that has no others.
func TestWhatComposeHandsOnSaysWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	secrets := t.TempDir() // stands for what the nodes have as /run/secrets
	file := func(name, text string) string {
		path := filepath.Join(secrets, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const secret, backend, reporter = "the secret of a cluster under test, of 32", "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	filePublic, fileKey, _ := ed25519.GenerateKey(nil)
	der, err := x509.MarshalPKIXPublicKey(filePublic)
	if err != nil {
		t.Fatal(err)
	}
	served, servedKey, _ := ed25519.GenerateKey(nil)
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":%q}]}`, base64.RawURLEncoding.EncodeToString(served))
	}))
	t.Cleanup(jwks.Close)
	values := map[string]string{
		"PARLEY_API_KEYS":          "backend " + backend,
		"PARLEY_API_KEYS_FILE":     file("keys", "reporter "+reporter+"\n"),
		"PARLEY_GUESTS":            "true",
		"PARLEY_GUEST_RIGHTS":      "lobby:read",
		"PARLEY_TOKEN_AUDIENCE":    "chat",
		"PARLEY_TOKEN_ISSUER":      "https://id.example",
		"PARLEY_TOKEN_JWKS":        jwks.URL,
		"PARLEY_TOKEN_KEY_FILE":    file("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))),
		"PARLEY_TOKEN_LIFE":        "2h",
		"PARLEY_TOKEN_SECRET":      secret,
		"PARLEY_TOKEN_SECRET_FILE": file("secret", secret+"\n"),
		"PARLEY_USER_RIGHTS":       "team:read",
	}

	// All that serve has are there: what a flag of who may do what is called, and a file with each secret.
	serve, _, err := newRoot().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	serve.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !regexp.MustCompile(`^(token-|api-keys|guest|user-rights)`).MatchString(f.Name) {
			return
		}
		for _, name := range []string{cli.Variable(f), "PARLEY_TOKEN_SECRET_FILE"} {
			if _, ok := values[name]; !ok || !slices.Contains(handedOn(t), name) {
				t.Errorf("%s, of --%s, is not handed on and tried here", name, f.Name)
			}
		}
	})

	sign := func(key any, change func(*token.Claims)) string {
		c := token.Claims{}
		c.Subject, c.Issuer, c.Audience = "ada", "https://id.example", jwt.ClaimStrings{"chat"}
		c.IssuedAt, c.ExpiresAt = jwt.NewNumericDate(time.Now()), jwt.NewNumericDate(time.Now().Add(time.Hour))
		change(&c)
		tok, err := token.Make(c, key)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	same := func(*token.Claims) {}
	hs := []byte(secret)
	for _, without := range []string{"PARLEY_TOKEN_SECRET", "PARLEY_TOKEN_SECRET_FILE"} { // one at a time
		cmd := parley()
		for _, name := range handedOn(t) {
			if value, set := values[name]; set && name != without {
				cmd.Env = append(cmd.Env, name+"="+value)
			}
		}
		p, err := startProcess(cmd)
		if err != nil {
			t.Fatal(err)
		}
		endAfter(t, p)
		const team, lobby, other = "/v1/rooms/team/messages", "/v1/rooms/lobby/messages", "/v1/rooms/other/messages"
		for name, c := range map[string]struct {
			path, bearer string
			want         int
		}{
			"the secret":          {team, sign(hs, same), 200},
			"the key in a file":   {team, sign(fileKey, same), 200},
			"the key set":         {team, sign(servedKey, same), 200},
			"the user's rights":   {other, sign(hs, same), 403},
			"the issuer":          {team, sign(hs, func(c *token.Claims) { c.Issuer = "https://evil.example" }), 401},
			"the audience":        {team, sign(hs, func(c *token.Claims) { c.Audience = jwt.ClaimStrings{"mail"} }), 401},
			"the life":            {team, sign(hs, func(c *token.Claims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(3 * time.Hour)) }), 401},
			"guests":              {lobby, "", 200},
			"the guests' rights":  {team, "", 403},
			"an API key":          {"/v1/rooms", backend, 200},
			"an API key, by file": {"/v1/rooms", reporter, 200},
			"an API key of none":  {"/v1/rooms", backend[1:] + "x", 401},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.bearer != "" {
				req.Header.Set("Authorization", "Bearer "+c.bearer)
			}
			for { // until the node knows what is revoked
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusServiceUnavailable && t.Context().Err() == nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				if resp.StatusCode != c.want {
					t.Errorf("without %s, %s: %s, want %d", without, name, resp.Status, c.want)
				}
				break
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
