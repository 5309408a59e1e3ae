package token_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"parley/bus"
	"parley/node"
	"parley/node/rights"
	"parley/node/token"
	"parley/node/wire"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// claims are good ones, changed.
func claims(change ...func(jwt.MapClaims)) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "ada", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "iss": "https://id", "aud": "chat"}
	for _, f := range change {
		f(c)
	}
	return c
}

func set(name string, value any) func(jwt.MapClaims) {
	return func(c jwt.MapClaims) {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
}

func sign(t testing.TB, method jwt.SigningMethod, key any, c jwt.MapClaims, header ...string) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, c)
	for i := 0; i < len(header); i += 2 {
		tok.Header[header[i]] = header[i+1]
	}
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t testing.TB, cfg token.Config) *token.Verifier {
	t.Helper()
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	v, err := token.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Keys of all kinds, made once.
var (
	rsaKey, _      = rsa.GenerateKey(rand.Reader, 2048)
	ecKey, _       = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ec384Key, _    = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, edKey, _    = ed25519.GenerateKey(rand.Reader)
	otherRSA, _    = rsa.GenerateKey(rand.Reader, 2048)
	_, otherEd, _  = ed25519.GenerateKey(rand.Reader)
	publicKeys     = []crypto.PublicKey{rsaKey.Public(), ecKey.Public(), ec384Key.Public(), edKey.Public()}
	signedByPublic = map[string]struct {
		method jwt.SigningMethod
		key    any
	}{
		"RS256": {jwt.SigningMethodRS256, rsaKey}, "PS512": {jwt.SigningMethodPS512, rsaKey}, "ES256": {jwt.SigningMethodES256, ecKey},
		"ES384": {jwt.SigningMethodES384, ec384Key}, "EdDSA": {jwt.SigningMethodEdDSA, edKey},
	}
)

func publicPEM(t testing.TB, keys ...crypto.PublicKey) (text []byte) {
	t.Helper()
	for _, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	return text
}

func TestEveryKindOfKeyIsTaken(t *testing.T) {
	list, err := token.ParseKeys(publicPEM(t, publicKeys...))
	if err != nil || len(list) != 4 {
		t.Fatalf("%d keys, %v", len(list), err)
	}
	v := verifier(t, token.Config{Secret: secret, Keys: list, Issuer: "https://id", Audience: "chat"})
	tokens := map[string]string{"HS256": sign(t, jwt.SigningMethodHS256, secret, claims()), "HS512": sign(t, jwt.SigningMethodHS512, secret, claims())}
	for name, s := range signedByPublic {
		tokens[name] = sign(t, s.method, s.key, claims())
	}
	for name, tok := range tokens {
		for range 2 { // the second time it is known
			g, err := v.Authenticate(t.Context(), tok)
			if err != nil || g.User != (node.User{ID: "ada"}) || time.Until(g.Expires) < 59*time.Minute || time.Since(g.Issued) > time.Minute {
				t.Errorf("%s: %+v, %v", name, g, err)
			}
		}
	}
}

func TestATokenSaysWhoAndWhat(t *testing.T) {
	v := verifier(t, token.Config{Secret: secret})
	g, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodHS256, secret, claims(
		set("name", "Ada Lovelace "+strings.Repeat("é", 40)), set("jti", "7"), set("info", map[string]any{"avatar": "https://x/a.png"}),
		set("rooms", map[string][]string{"team-*": {"join", "send"}}))))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(g.User.Name, "Ada Lovelace ééé") || len(g.User.Name) != 63 || g.Token != "7" || string(g.User.Info) != `{"avatar":"https://x/a.png"}` {
		t.Errorf("got %+v", g)
	}
	if may := g.Rights.Of("team-a"); may != rights.Join|rights.Send || g.Rights.Of("lobby") != 0 {
		t.Errorf("may %s", may)
	}
	only, _ := rights.New(map[string][]string{"lobby": {"join"}})
	v = verifier(t, token.Config{Secret: secret, UserRights: only})
	if g, _ := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodHS256, secret, claims())); g.Rights.Of("lobby") != rights.Join || g.Rights.Of("x") != 0 {
		t.Errorf("a token without rights may %s", g.Rights.Of("x"))
	}
}

// segments makes a token of any parts.
func segments(header, payload string, signature []byte) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(header)) + "." + e([]byte(payload)) + "." + e(signature)
}

func TestForgedTokensAreRefused(t *testing.T) {
	v := verifier(t, token.Config{Secret: secret, Keys: publicKeys[:1], Issuer: "https://id", Audience: "chat"})
	ed := verifier(t, token.Config{Keys: publicKeys[3:]})
	brief := verifier(t, token.Config{Secret: secret, MaxLife: 59 * time.Minute})
	payload, _ := json.Marshal(claims())
	good := sign(t, jwt.SigningMethodHS256, secret, claims())
	parts := strings.Split(good, ".")
	elsewhere := strings.Split(sign(t, jwt.SigningMethodHS256, secret, claims(set("sub", "eve"))), ".")
	hs := func(change ...func(jwt.MapClaims)) string {
		return sign(t, jwt.SigningMethodHS256, secret, claims(change...))
	}
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	loose := good[:len(good)-1] + string(digits[strings.IndexByte(digits, good[len(good)-1])|1]) // the same 32 bytes, and a bit behind them
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, tt := range map[string]struct {
		v     *token.Verifier
		token string
		says  string
	}{
		"no token":                          {v, "", "no JSON Web Token"},
		"two parts":                         {v, parts[0] + "." + parts[1], "no JSON Web Token"},
		"no signature":                      {v, parts[0] + "." + parts[1] + ".", "not signed"},
		"a signature written otherwise":     {v, loose, "no JSON Web Token"},
		"another's signature":               {v, parts[0] + "." + elsewhere[1] + "." + parts[2], "not signed"},
		"alg none":                          {v, segments(`{"alg":"none","typ":"JWT"}`, string(payload), nil), "not signed"},
		"alg None":                          {v, segments(`{"alg":"None"}`, string(payload), nil), "not signed"},
		"no alg":                            {v, segments(`{}`, string(payload), nil), "not signed"},
		"a guessed secret":                  {v, sign(t, jwt.SigningMethodHS256, []byte("secret"), claims()), "not signed"},
		"the public key as secret":          {v, sign(t, jwt.SigningMethodHS256, publicPEM(t, rsaKey.Public()), claims()), "not signed"},
		"the same, only a public key known": {ed, sign(t, jwt.SigningMethodHS256, []byte(edKey.Public().(ed25519.PublicKey)), claims()), "not signed"},
		"another RSA key":                   {v, sign(t, jwt.SigningMethodRS256, otherRSA, claims()), "not signed"},
		"an alg that is not configured":     {v, sign(t, jwt.SigningMethodES256, ecKey, claims()), "not signed"},
		"another Ed25519 key":               {ed, sign(t, jwt.SigningMethodEdDSA, otherEd, claims()), "not signed"},
		"a key of its own in the header":    {v, sign(t, jwt.SigningMethodRS256, otherRSA, claims(), "jku", "http://127.0.0.1/keys", "kid", "../../dev/null"), "not signed"},
		"crit":                              {v, sign(t, jwt.SigningMethodHS256, secret, claims(), "crit", "exp"), "crit"},
		"another issuer":                    {v, hs(set("iss", "https://evil")), "another issuer"},
		"no issuer":                         {v, hs(set("iss", nil)), "lacks a claim"},
		"another audience":                  {v, hs(set("aud", "mail")), "another audience"},
		"no audience":                       {v, hs(set("aud", nil)), "lacks a claim"},
		"not yet valid":                     {v, hs(set("nbf", in(time.Hour))), "not valid yet"},
		"issued in the future":              {v, hs(set("iat", in(time.Hour))), "not valid yet"},
		"no exp":                            {v, hs(set("exp", nil)), "lacks a claim"},
		"no iat":                            {v, hs(set("iat", nil)), "no iat"},
		"for ever":                          {v, hs(set("exp", in(100*365*24*time.Hour))), "at most"},
		"for longer than is allowed":        {brief, good, "at most 59m0s"},
		"a long jti":                        {v, hs(set("jti", strings.Repeat("a", 129))), "jti"},
		"a jti with a line end":             {v, hs(set("jti", "a\nb")), "jti"},
		"no sub":                            {v, hs(set("sub", nil)), "sub"},
		"a sub that is no string":           {v, hs(set("sub", 7)), "no JSON Web Token"},
		"a sub with a line end":             {v, hs(set("sub", "ada\r\nX: y")), "sub"},
		"a long sub":                        {v, hs(set("sub", strings.Repeat("a", 129))), "sub"},
		"a name with a line end":            {v, hs(set("name", "a\nb")), "control character"},
		"info that is no object":            {v, hs(set("info", "x")), "info"},
		"too much info":                     {v, hs(set("info", map[string]string{"a": strings.Repeat("x", 1024)})), "info"},
		"rights that are none":              {v, hs(set("rooms", "*")), "rights"},
		"a huge one":                        {v, hs(set("x", strings.Repeat("x", 10_000))), "at most"},
	} {
		for range 2 { // nor is it good the second time
			_, err := tt.v.Authenticate(t.Context(), tt.token)
			if err == nil || !strings.Contains(err.Error(), tt.says) || errors.Is(err, node.ErrExpired) {
				t.Errorf("%s: %v, and it should say %q", name, err, tt.says)
			} else if len(tt.token) > 20 && strings.Contains(err.Error(), tt.token[:20]) {
				t.Errorf("%s: the error holds the token: %v", name, err)
			}
		}
	}
	late := []func(jwt.MapClaims){set("iat", in(-2*time.Hour)), set("exp", in(-time.Hour))}
	if _, err := v.Authenticate(t.Context(), hs(late...)); !errors.Is(err, node.ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	if _, err := v.Authenticate(t.Context(), hs(append(late, set("iss", "https://evil"))...)); err == nil || errors.Is(err, node.ErrExpired) {
		t.Errorf("expired, and of another issuer: %v", err)
	}
	if _, err := v.Authenticate(t.Context(), good); err != nil {
		t.Errorf("the good one: %v", err)
	}
	longest := strings.Repeat("a", token.MaxUser)
	g, err := v.Authenticate(t.Context(), hs(set("sub", longest), set("jti", longest), set("name", longest[:wire.MaxName])))
	if err != nil || g.User.ID != longest || g.Token != longest || g.User.Name != longest[:wire.MaxName] {
		t.Errorf("the longest one: %+v, %v", g, err)
	}
}

func TestKeysThatAreTooWeakAreRefused(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err)
	}
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	for name, cfg := range map[string]token.Config{
		"none": {}, "a short secret": {Secret: secret[:31]}, "a small RSA key": {Keys: []crypto.PublicKey{weak.Public()}},
		"another kind beside a secret": {Secret: secret, Keys: []crypto.PublicKey{"a word"}},
		"a small curve":                {Keys: []crypto.PublicKey{p224.Public()}}, "no URL": {JWKS: "keys"}, "a file": {JWKS: "file:///etc/passwd"},
		"no host": {JWKS: "https:///keys"}, "another scheme": {JWKS: "ftp://id/keys"}, "no address": {JWKS: "https://id:port/keys"},
	} {
		if _, err := token.New(t.Context(), cfg); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	for _, text := range []string{"", "x", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}))} {
		if _, err := token.ParseKeys([]byte(text)); err == nil {
			t.Errorf("%q is taken for a key", text)
		}
		if _, err := token.ParsePrivateKey([]byte(text)); err == nil {
			t.Errorf("%q is taken for a private key", text)
		}
	}
	for _, key := range []any{nil, p224, rsaKey.Public()} {
		if _, err := token.Make(token.Claims{}, key); err == nil {
			t.Errorf("a token is made with %T", key)
		}
	}
}

// A jwks is a server of keys that can be made to misbehave.
type jwks struct {
	*httptest.Server
	answer atomic.Value // func(http.ResponseWriter)
	asked  atomic.Int64
}

func serveKeys(t *testing.T) *jwks {
	s := &jwks{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		s.answer.Load().(func(http.ResponseWriter))(w)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwks) serve(f func(http.ResponseWriter)) { s.answer.Store(f) }

// keysOf is a JWKS of public keys by their id.
func keysOf(t *testing.T, keys map[string]any) func(http.ResponseWriter) {
	t.Helper()
	store := jwkset.NewMemoryStorage()
	for id, key := range keys {
		k, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.KeyWrite(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	text, err := store.JSONPrivate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter) { w.Write(text) }
}

func TestAKeySetIsKeptAndRotated(t *testing.T) {
	t.Parallel()
	s := serveKeys(t)
	s.serve(keysOf(t, map[string]any{"1": rsaKey.Public()}))
	v := verifier(t, token.Config{JWKS: s.URL})
	try := func(name string, tok string, want string) {
		t.Helper()
		_, err := v.Authenticate(t.Context(), tok)
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	try("the key that is there", sign(t, jwt.SigningMethodRS256, rsaKey, claims(), "kid", "1"), "nil")
	try("without an id", sign(t, jwt.SigningMethodRS256, rsaKey, claims()), "nil")
	try("another's", sign(t, jwt.SigningMethodRS256, otherRSA, claims(), "kid", "1"), "not signed")
	public := x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)
	try("the public key as a secret", sign(t, jwt.SigningMethodHS256, public, claims(), "kid", "1"), "not signed")
	s.serve(keysOf(t, map[string]any{"1": rsaKey.Public(), "2": edKey.Public()}))
	try("a key that has come since", sign(t, jwt.SigningMethodEdDSA, edKey, claims(), "kid", "2"), "nil")

	asked := s.asked.Load()
	for i := range 50 { // ids that are made up do not make it be asked each time, and nobody waits for it
		try("made up", sign(t, jwt.SigningMethodEdDSA, otherEd, claims(), "kid", fmt.Sprint("x", i)), "not signed")
	}
	if n := s.asked.Load() - asked; n > 3 {
		t.Errorf("it was asked %d times", n)
	}
}

// answerTo is an answer over HTTP of which only the body is kept.
type answerTo struct{ *bytes.Buffer }

func (answerTo) Header() http.Header { return http.Header{} }
func (answerTo) WriteHeader(int)     {}

func TestAKeySetThatMisbehavesHarmsNothing(t *testing.T) {
	t.Parallel()
	good := sign(t, jwt.SigningMethodRS256, rsaKey, claims(), "kid", "1")
	evil := sign(t, jwt.SigningMethodRS256, otherRSA, claims(), "kid", "2")
	var evilKeys bytes.Buffer
	keysOf(t, map[string]any{"2": otherRSA.Public()})(answerTo{&evilKeys})
	evilSet := evilKeys.String()
	elsewhere := serveKeys(t)
	elsewhere.serve(keysOf(t, map[string]any{"2": otherRSA.Public()}))
	for name, answer := range map[string]func(http.ResponseWriter){
		"away":    func(w http.ResponseWriter) { w.WriteHeader(503) },
		"empty":   func(w http.ResponseWriter) { io.WriteString(w, `{"keys":[]}`) },
		"no JSON": func(w http.ResponseWriter) { io.WriteString(w, "<html>") },
		"a secret": func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"keys":[{"kty":"oct","kid":"2","k":%q}]}`, base64.RawURLEncoding.EncodeToString(secret))
		},
		"for encryption": func(w http.ResponseWriter) {
			io.WriteString(w, strings.Replace(evilSet, `[{`, `[{"use":"enc",`, 1))
		},
		"redirects": func(w http.ResponseWriter) { w.Header().Set("Location", elsewhere.URL); w.WriteHeader(302) },
		"huge": func(w http.ResponseWriter) {
			io.WriteString(w, `{"keys":[`)
			for range 2 << 10 {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<10)); err != nil {
					return
				}
			}
			io.WriteString(w, strings.TrimPrefix(evilSet, `{"keys":[`)) // so far nobody reads
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveKeys(t)
			s.serve(answer)
			var log bytes.Buffer
			v := verifier(t, token.Config{JWKS: s.URL, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if _, err := v.Authenticate(t.Context(), good); !errors.Is(err, bus.ErrUnavailable) {
				t.Errorf("before there are keys: %v", err)
			}
			if !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("the log has %q", log.String())
			}
			s.serve(keysOf(t, map[string]any{"1": rsaKey.Public()}))
			if _, err := v.Authenticate(t.Context(), good); err != nil {
				t.Errorf("once there are keys: %v", err)
			}
			v = verifier(t, token.Config{JWKS: s.URL})
			s.serve(answer)
			if _, err := v.Authenticate(t.Context(), evil); err == nil { // which has it fetch
				t.Error("a forged token is good")
			}
			if _, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodHS256, secret, claims(), "kid", "2")); err == nil {
				t.Error("a token with a public secret is good")
			}
			if _, err := v.Authenticate(t.Context(), good); err != nil {
				t.Errorf("what was known before: %v", err)
			}
			if s.asked.Load() < 2 {
				t.Error("it was not asked again")
			}
		})
	}
}

// Who comes with keys that are made up, and goes before they have been looked for, keeps nobody from a key that has come since.
func TestWhoGoesLeavesTheKeysToOthers(t *testing.T) {
	t.Parallel()
	s := serveKeys(t)
	s.serve(keysOf(t, map[string]any{"1": rsaKey.Public()}))
	v := verifier(t, token.Config{JWKS: s.URL})
	entered, release := make(chan struct{}, 9), make(chan struct{})
	fresh := keysOf(t, map[string]any{"1": rsaKey.Public(), "2": edKey.Public()})
	s.serve(func(w http.ResponseWriter) { entered <- struct{}{}; <-release; fresh(w) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var gone sync.WaitGroup
	for i := range 2 { // as often as it is asked at once
		tok := sign(t, jwt.SigningMethodEdDSA, otherEd, claims(), "kid", fmt.Sprint("x", i))
		gone.Go(func() { _, _ = v.Authenticate(ctx, tok) })
		<-entered
	}
	cancel()
	close(release)
	gone.Wait()
	if _, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodEdDSA, edKey, claims(), "kid", "2")); err != nil {
		t.Error(err)
	}
}

// A server that does not answer holds up the token that needs it, for a while, and no other.
func TestASlowKeySetHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	s := serveKeys(t)
	s.serve(keysOf(t, map[string]any{"1": rsaKey.Public()}))
	v := verifier(t, token.Config{JWKS: s.URL, Secret: secret})
	entered, release := make(chan struct{}, 9), make(chan struct{})
	s.serve(func(http.ResponseWriter) { entered <- struct{}{}; <-release })
	done := make(chan error, 1)
	go func() {
		_, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodRS256, otherRSA, claims(), "kid", "2"))
		done <- err
	}()
	<-entered
	if _, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodRS256, rsaKey, claims(), "kid", "1")); err != nil {
		t.Error(err)
	}
	if _, err := v.Authenticate(t.Context(), sign(t, jwt.SigningMethodHS256, secret, claims(), "kid", "3")); err != nil || s.asked.Load() != 2 {
		t.Errorf("a token that a secret signs: %v, and the server was asked %d times", err, s.asked.Load())
	}
	close(release)
	if err := <-done; err == nil {
		t.Error("a token of an unknown key is good")
	}
}

func TestWhatIsMadeIsGood(t *testing.T) {
	v := verifier(t, token.Config{Secret: secret, Keys: publicKeys})
	c := token.Claims{Name: "Ada", Rooms: json.RawMessage(`{"a":["join"]}`)}
	c.Subject, c.IssuedAt, c.ExpiresAt = "ada", jwt.NewNumericDate(time.Now()), jwt.NewNumericDate(time.Now().Add(time.Hour))
	for _, key := range []any{secret, rsaKey, ecKey, ec384Key, edKey} {
		if _, secret := key.([]byte); !secret { // as it is in a file
			der, _ := x509.MarshalPKCS8PrivateKey(key)
			var err error
			if key, err = token.ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
				t.Fatal(err)
			}
		}
		tok, err := token.Make(c, key)
		if err != nil {
			t.Fatal(err)
		}
		if g, err := v.Authenticate(t.Context(), tok); err != nil || g.User.Name != "Ada" || g.Rights.Of("a") != rights.Join {
			t.Errorf("%T: %+v, %v", key, g, err)
		}
		if _, said, err := token.Inspect(tok); err != nil || !strings.Contains(string(said), `"sub":"ada"`) {
			t.Errorf("%T: %s, %v", key, said, err)
		}
	}
	if _, err := token.Make(c, secret[:31]); err == nil {
		t.Error("a short secret is taken")
	}
	for _, text := range []string{"", "a.b", "a.b.c", "e30.!.x", "e30.e30", "e30.e30.x.y", "e30.YQ.x", "YQ.e30.x"} {
		if _, _, err := token.Inspect(text); err == nil {
			t.Errorf("%q is taken for a token", text)
		}
	}
}

// What is remembered of tokens ends with them, and is bounded.
func TestATokenIsRememberedNoLongerThanItIsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := verifier(t, token.Config{Secret: secret})
		short := sign(t, jwt.SigningMethodHS256, secret, claims(set("exp", time.Now().Add(20*time.Second).Unix())))
		if _, err := v.Authenticate(t.Context(), short); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Second) // past the leeway between clocks, too
		if _, err := v.Authenticate(t.Context(), short); !errors.Is(err, node.ErrExpired) {
			t.Errorf("after it expired: %v", err)
		}
	})
	if n := token.Remembered(token.CacheSize + 10); n != token.CacheSize {
		t.Errorf("%d tokens are remembered, want %d", n, token.CacheSize)
	}
}

func FuzzTokens(f *testing.F) {
	v, err := token.New(context.Background(), token.Config{Secret: secret, Keys: publicKeys})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(segments(`{"alg":"none"}`, `{"sub":"a","iat":1,"exp":9999999999}`, nil))
	f.Add(segments(`{"alg":"HS256"}`, `{}`, []byte("x")))
	f.Add("..")
	f.Fuzz(func(t *testing.T, tok string) {
		if g, err := v.Authenticate(context.Background(), tok); err == nil {
			t.Errorf("%q is good: %+v", tok, g)
		}
	})
}

func BenchmarkTokens(b *testing.B) {
	list := map[string]struct {
		method jwt.SigningMethod
		key    any
	}{"HS256": {jwt.SigningMethodHS256, secret}, "RS256": signedByPublic["RS256"], "ES256": signedByPublic["ES256"], "EdDSA": signedByPublic["EdDSA"]}
	for name, s := range list {
		tok := sign(b, s.method, s.key, claims())
		b.Run(name+"/cached", func(b *testing.B) {
			v := verifier(b, token.Config{Secret: secret, Keys: publicKeys})
			for b.Loop() {
				if _, err := v.Authenticate(b.Context(), tok); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name, func(b *testing.B) {
			v := verifier(b, token.Config{Secret: secret, Keys: publicKeys})
			for b.Loop() {
				v.Forget()
				if _, err := v.Authenticate(b.Context(), tok); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
