package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"
)

// A keyServer is where the node under attack has the public keys of tokens from, as if it were in the attacker's hands.
type keyServer struct {
	*httptest.Server
	answer atomic.Pointer[func(http.ResponseWriter, *http.Request)]
	ours   ed25519.PrivateKey // of which the node knows the public half, since it started
	evil   ed25519.PrivateKey
	other  *httptest.Server // has the attacker's public key
}

func startKeyServer() *keyServer {
	k := &keyServer{}
	_, k.ours, _ = ed25519.GenerateKey(nil)
	_, k.evil, _ = ed25519.GenerateKey(nil)
	k.other = httptest.NewServer(http.HandlerFunc(keySet("2", k.evil)))
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*k.answer.Load())(w, r) }))
	k.serve(keySet("1", k.ours))
	return k
}

func (k *keyServer) serve(answer func(http.ResponseWriter, *http.Request)) { k.answer.Store(&answer) }

func (k *keyServer) stop() {
	k.CloseClientConnections()
	k.Close()
	k.other.Close()
}

// keySet serves a JWKS of one key (RFC 8037 section 2).
func keySet(id string, key ed25519.PrivateKey) func(http.ResponseWriter, *http.Request) {
	x := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, id, x)
	}
}

// attacks are those by the key server: tokens that it should have taken for good beside some that are, by the key that was known before.
func (k *keyServer) attacks() []accessAttack {
	const shared = "what the key server says is a secret"
	lies := []string{
		`<html>`, `{"keys":[]}`, `{"keys":null}`, `[]`, `{"keys":[{"kty":"OKP"}]}`,
		fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"2","k":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(shared))),
	}
	var told atomic.Int64
	forged := func(i int) string {
		if i%3 == 0 { // as if that were a secret
			return tokenOf(shared, jwt.SigningMethodHS256, nil, "kid", "2")
		}
		return signed(k.evil, jwt.SigningMethodEdDSA, nil, "kid", []string{"2", fmt.Sprint("made up ", i)}[i%3-1])
	}
	next := func(i int) request {
		if i%2 == 1 {
			one := signed(k.ours, jwt.SigningMethodEdDSA, map[string]any{"jti": fmt.Sprint(i)}, "kid", "1")
			return request{path: "/v1/rooms/open/members", token: one, must: http.StatusOK}
		}
		return request{path: "/v1/rooms/open/members", token: forged(i / 2)}
	}
	var list []accessAttack
	for _, a := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
	}{
		{"a JWKS server that is slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"a JWKS server that is huge", func(w http.ResponseWriter, _ *http.Request) {
			for _, err := io.WriteString(w, `{"keys":[`); err == nil; {
				_, err = io.WriteString(w, strings.Repeat(" ", 64<<10))
			}
		}},
		{"a JWKS server that lies", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, lies[int(told.Add(1))%len(lies)])
		}},
		{"a JWKS server that redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, k.other.URL, http.StatusFound)
		}},
	} {
		list = append(list, accessAttack{name: a.name, next: next, before: func(*node) error {
			k.serve(a.answer)
			return nil
		}})
	}
	return list
}

// stolenToken is what the attacker has of another user, who has it revoked.
func stolenToken() accessAttack {
	stolen := tokenOf(tokenSecret, jwt.SigningMethodHS256, map[string]any{"sub": "bob", "jti": "stolen"})
	use := request{path: "/v1/rooms/open/members", token: stolen}
	return accessAttack{name: "a stolen token that was revoked", next: func(int) request { return use }, before: func(n *node) error {
		if status, what, err := n.request(use); err != nil || status != http.StatusOK {
			return fmt.Errorf("before it is revoked it is answered %s, %w", what, err)
		}
		body, _ := json.Marshal(map[string]string{"token": "stolen"})
		status, what, err := n.request(request{path: "/v1/revoke", token: apiKey, text: string(body)})
		if err != nil || status != http.StatusAccepted {
			return fmt.Errorf("its revocation is answered %s, %w", what, err)
		}
		return nil
	}}
}
