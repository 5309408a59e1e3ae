package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/node/wire"
)

// The attacks of this file are on a node that takes tokens and API keys, and no guests: each asks for what it must not get, again and again,
// and every answer is told. One that is a success is an error of the program.

const (
	tokenSecret = "the secret of a node under attack"
	apiKey      = "the-key-of-an-application-under-attack"
)

// A request is one over HTTP: what has a text is a POST.
type request struct {
	path, token, text string
	header            []string
	must              int // the status of what has to succeed
}

// An accessAttack gives requests that must all be refused; what may be answered 2xx says so by the status itself.
type accessAttack struct {
	name   string
	next   func(i int) request
	may    int               // a status that is no harm
	before func(*node) error // the attack begins
}

// tokenOf signs claims that are good but for what is changed, with a secret.
func tokenOf(secret string, method jwt.SigningMethod, change map[string]any, header ...string) string {
	if method == jwt.SigningMethodNone {
		return signed(jwt.UnsafeAllowNoneSignatureType, method, change, header...)
	}
	return signed([]byte(secret), method, change, header...)
}

func signed(key any, method jwt.SigningMethod, change map[string]any, header ...string) string {
	now := time.Now().Unix()
	claims := jwt.MapClaims{
		"sub": "eve", "iat": now, "exp": now + 3600, "iss": "https://id.example", "aud": "chat", "rooms": map[string]any{"open": []string{"*"}},
	}
	for name, value := range change {
		claims[name] = value
	}
	t := jwt.NewWithClaims(method, claims)
	for i := 0; i < len(header); i += 2 {
		t.Header[header[i]] = header[i+1]
	}
	text, err := t.SignedString(key)
	if err != nil {
		panic(err) // the claims are ours
	}
	return text
}

func accessAttacks(k *keyServer) []accessAttack {
	hs := jwt.SigningMethodHS256
	good := tokenOf(tokenSecret, hs, nil)
	parts := strings.Split(good, ".")
	swapped, _ := json.Marshal(map[string]any{"sub": "ada", "iat": time.Now().Unix(), "exp": time.Now().Unix() + 3600})
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	same := func(r request) func(int) request { return func(int) request { return r } }
	doors := []request{
		{path: "/v1/rooms/secret/messages"},
		{path: "/v1/rooms/secret/messages", text: `{"text":"x"}`},
		{path: "/v1/rooms/secret/members"},
		{path: "/v1/rooms/secret/events"},
		{path: "/v1/rooms/absent/messages"},
		{path: "/v1/rooms/absent/members"},
	}
	managing := []request{
		{path: "/v1/rooms"},
		{path: "/v1/broadcast", text: `{"rooms":["open"],"text":"x"}`},
		{path: "/v1/users/ada/disconnect", text: "{}"},
		{path: "/v1/users/ada/revoke", text: "{}"},
		{path: "/v1/revoke", text: "{}"},
	}
	misplaced := []request{
		{path: "/v1/rooms?token=" + apiKey},
		{path: "/v1/rooms/open/events?token=" + apiKey},
		{path: "/v1/rooms", header: []string{"Parley-Session", apiKey}},
		{path: "/v1/rooms", header: []string{"Authorization", "Basic " + apiKey}},
		{path: "/v1/rooms", header: []string{"Cookie", "token=" + apiKey}},
	}
	const room = "/v1/rooms/open/messages"
	return append([]accessAttack{
		{name: "no token", next: same(request{path: room})},
		{name: "a guest's session", next: same(request{path: room, header: []string{"Parley-Session", "AAAAAAAAAAAAAAAAAAAAAA"}})},
		{name: "a stolen session, beside a token of one's own", next: same(request{
			path: "/v1/rooms/secret/messages", token: good, header: []string{"Parley-Session", "AAAAAAAAAAAAAAAAAAAAAA"},
		})},
		stolenToken(),
		{name: "alg: none", next: same(request{path: room, token: tokenOf("", jwt.SigningMethodNone, nil)})},
		{name: "another secret", next: same(request{path: room, token: tokenOf("another secret of as many bytes as it needs", hs, nil)})},
		{name: "another's claims under a good signature", next: same(request{path: room, token: parts[0] + "." + base64.RawURLEncoding.EncodeToString(swapped) + "." + parts[2]})},
		{name: "signatures that are guessed", next: func(i int) request {
			return request{path: room, token: parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%032d", i))}
		}},
		{name: "another audience", next: same(request{path: room, token: tokenOf(tokenSecret, hs, map[string]any{"aud": "mail"})})},
		{name: "another issuer", next: same(request{path: room, token: tokenOf(tokenSecret, hs, map[string]any{"iss": "https://evil.example"})})},
		{name: "expired", next: same(request{path: room, token: tokenOf(tokenSecret, hs, map[string]any{"iat": at(-2 * time.Hour), "exp": at(-time.Hour)})})},
		{name: "not yet valid", next: same(request{path: room, token: tokenOf(tokenSecret, hs, map[string]any{"nbf": at(time.Hour)})})},
		{name: "a sub that begins with guest-", next: same(request{path: room, token: tokenOf(tokenSecret, hs, map[string]any{"sub": "guest-aaaa"})})},
		{name: "every door of a room without the right, there or not", next: func(i int) request {
			r := doors[i%len(doors)]
			r.token = good
			return r
		}},
		{name: "what applications do, with a user's token", next: func(i int) request {
			r := managing[i%len(managing)]
			r.token = good
			return r
		}},
		{name: "API keys that are guessed", next: func(i int) request {
			return request{path: "/v1/rooms", token: fmt.Sprintf("%s%d", apiKey[:len(apiKey)-4], i)}
		}},
		{name: "an API key in wrong places", next: func(i int) request { return misplaced[i%len(misplaced)] }},
		{name: "line ends in names and rooms", next: func(i int) request {
			evil := url.QueryEscape("x\r\nSet-Cookie: a=b")
			return []request{
				{path: "/v1/rooms/" + url.PathEscape("x\r\nX: y") + "/messages", token: good},
				{path: room + "?name=" + evil, token: good, text: `{"text":"x"}`},
			}[i%2]
		}},
		{name: "a flood with a good token", may: 201, next: same(request{path: room, token: good, text: `{"text":"x"}`})},
	}, k.attacks()...)
}

// run makes an attack on a node beside a bystander who says ping, and prints its row.
func (a accessAttack) run(n, other *node, length time.Duration) error {
	var mu sync.Mutex
	heard := map[string]bool{}
	var harm error
	attack := func(n *node, length time.Duration) {
		var attackers sync.WaitGroup
		for k := range 2 {
			attackers.Go(func() {
				for i, end := k, time.Now().Add(length); time.Now().Before(end); i++ {
					r := a.next(i)
					status, what, err := n.request(r)
					mu.Lock()
					heard[what] = true
					if harm == nil && err != nil {
						harm = err
					} else if harm == nil && r.must != 0 && status != r.must {
						harm = fmt.Errorf("what is good is answered %s", what)
					} else if harm == nil && r.must == 0 && status < 300 && status != a.may {
						harm = fmt.Errorf("it is answered %s", what)
					}
					mu.Unlock()
				}
			})
		}
		attackers.Wait()
	}
	if a.before != nil {
		for _, n := range []*node{other, n} {
			if err := a.before(n); err != nil {
				return err
			}
		}
	}
	by, err := bystander(n)
	if err != nil {
		return err
	}
	r, err := stages(n, other, by, length/2, length, attack)
	if err != nil {
		return err
	}
	r.print(a.name, strings.Join(slices.Sorted(maps.Keys(heard)), ", "))
	return harm
}

// bystander is a user who may do all.
func bystander(n *node) (*client, error) {
	by, err := n.dial()
	if err != nil {
		return nil, err
	}
	hello := wire.Request{Op: "hello", Token: tokenOf(tokenSecret, jwt.SigningMethodHS256, map[string]any{"sub": "ada", "rooms": map[string]any{"*": []string{"*"}}})}
	_, err = by.nc.Write(frame(wire.OpText, string(hello.Append(nil)), true))
	return by, err
}

// attackAccess makes all attacks that have only in their names.
func attackAccess(parley, only string, length time.Duration) error {
	var list []accessAttack
	k := startKeyServer()
	defer k.stop()
	for _, a := range accessAttacks(k) {
		if strings.Contains(a.name, only) {
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		return nil
	}
	os.Setenv("PARLEY_TOKEN_SECRET", tokenSecret)
	os.Setenv("PARLEY_TOKEN_JWKS", k.URL)
	os.Setenv("PARLEY_TOKEN_ISSUER", "https://id.example")
	os.Setenv("PARLEY_TOKEN_AUDIENCE", "chat")
	os.Setenv("PARLEY_API_KEYS", "backend "+apiKey)
	var nodes []*node
	for range 2 {
		n, err := start(parley, false)
		if err != nil {
			return err
		}
		defer n.stop()
		nodes = append(nodes, n)
	}
	for _, a := range list {
		if err := a.run(nodes[0], nodes[1], length); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	return nil
}

var plainHTTP = &http.Client{Timeout: 10 * time.Second}

// request asks, and gives what is answered: a status and, of an error, its code.
func (n *node) request(r request) (status int, what string, err error) {
	method := "GET"
	if r.text != "" {
		method = "POST"
	}
	req, err := http.NewRequest(method, "http://"+n.addr+r.path, strings.NewReader(r.text))
	if err != nil {
		return 0, "", err
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Set(r.header[i], r.header[i+1])
	}
	resp, err := plainHTTP.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var problem struct{ Code string }
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("X") != "" || bytes.Contains(b, []byte(apiKey)) || r.token != "" && bytes.Contains(b, []byte(r.token)) {
		return resp.StatusCode, "", fmt.Errorf("the answer has what it must not have: %v %.200s", resp.Header, b)
	}
	json.Unmarshal(b, &problem)
	return resp.StatusCode, strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, problem.Code)), nil
}
