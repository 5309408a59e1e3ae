package token_test

import (
	"bytes"
	"crypto"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/node/token"
)

// served is a JWKS without a network.
type served struct{ text atomic.Pointer[string] }

func (s *served) serve(t *testing.T, keys map[string]any) {
	var b bytes.Buffer
	keysOf(t, keys)(answerTo{&b})
	text := b.String()
	s.text.Store(&text)
}

// RoundTrip implements http.RoundTripper.
func (s *served) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Request: r, Body: io.NopCloser(strings.NewReader(*s.text.Load()))}, nil
}

// A key that is taken out of the set is good until that is fetched again, and what was remembered of it a minute longer at most.
func TestAKeyThatIsTakenAwayIsNotGoodForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{}
		s.serve(t, map[string]any{"1": rsaKey.Public(), "2": edKey.Public()})
		v := verifier(t, token.Config{JWKS: "https://id/keys", Client: &http.Client{Transport: s}})
		tok := sign(t, jwt.SigningMethodRS256, rsaKey, claims(), "kid", "1")
		began := time.Now()
		if _, err := v.Authenticate(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		s.serve(t, map[string]any{"2": edKey.Public()})
		for {
			time.Sleep(10 * time.Second)
			if _, err := v.Authenticate(t.Context(), tok); err != nil {
				break
			}
			if after := time.Since(began); after > 7*time.Minute {
				t.Fatalf("after %v a token of a key that was taken away is good", after)
			}
		}
	})
}

// While the server of a set is away, tokens of a key that is at hand are taken.
func TestATokenOfAKeyAtHandIsTakenThoughTheKeySetIsAway(t *testing.T) {
	t.Parallel()
	s := serveKeys(t)
	s.serve(func(w http.ResponseWriter) { w.WriteHeader(503) })
	v := verifier(t, token.Config{JWKS: s.URL, Keys: []crypto.PublicKey{ecKey.Public()}})
	if _, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodES256, ecKey, claims())); err != nil {
		t.Error(err)
	}
	if _, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodES256, ecKey, claims(), "kid", "1")); err != nil {
		t.Errorf("with an id: %v", err)
	}
}

// Keys that are at hand and those of a set are good side by side, of one kind too, whichever a token names.
func TestATokenIsTakenByAKeyAtHandOrOneOfTheSet(t *testing.T) {
	t.Parallel()
	s := serveKeys(t)
	var set bytes.Buffer
	keysOf(t, map[string]any{"1": rsaKey.Public(), "2": edKey.Public()})(answerTo{&set})
	for what, text := range map[string]string{"a set": set.String(), "a set for signatures": strings.ReplaceAll(set.String(), `"kty"`, `"use":"sig","kty"`)} {
		s.serve(func(w http.ResponseWriter) { io.WriteString(w, text) })
		v := verifier(t, token.Config{JWKS: s.URL, Keys: []crypto.PublicKey{otherRSA.Public()}})
		for name, tok := range map[string]string{
			"at hand":              sign(t, jwt.SigningMethodRS256, otherRSA, claims()),
			"at hand, by an id":    sign(t, jwt.SigningMethodRS256, otherRSA, claims(), "kid", "1"),
			"of the set":           sign(t, jwt.SigningMethodRS256, rsaKey, claims()),
			"of the set, by an id": sign(t, jwt.SigningMethodRS256, rsaKey, claims(), "kid", "1"),
			"of the set alone":     sign(t, jwt.SigningMethodEdDSA, edKey, claims(), "kid", "2"),
		} {
			if _, err := v.Authenticate(t.Context(), tok); err != nil {
				t.Errorf("%s, a key %s: %v", what, name, err)
			}
		}
	}
}
