// Package token checks and makes JSON Web Tokens (RFC 7519) that say who somebody is: an Authenticator for nodes.
package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"parley/bus"
	"parley/node"
	"parley/node/rights"
	"parley/node/wire"
)

// Config says which tokens are good. One of the three kinds of key is required; of several, any will do.
type Config struct {
	Secret []byte             // of HMAC: HS256, HS384 and HS512; at least LeastSecret bytes
	Keys   []crypto.PublicKey // RSA, ECDSA or Ed25519, as ParseKeys gives them
	JWKS   string             // where a set of public keys is (RFC 7517), https:// or http://

	Issuer   string // that iss has to be; default any
	Audience string // that has to be among aud; default any

	UserRights *rights.Rights // of a token that does not say any; default what users may do, in every room
	MaxLife    time.Duration  // from iat to exp, at most; default MaxLife

	Log    *slog.Logger // default slog.Default(); told of a JWKS that does not come
	Client *http.Client // for the JWKS; default one that follows no redirects
}

const (
	LeastSecret = 32                  // bytes: as many as the smallest hash has (RFC 7518 section 3.2)
	MaxLife     = 30 * 24 * time.Hour // so long a revocation has to be remembered
	MaxToken    = 8 << 10             // bytes
	MaxUser     = 128                 // bytes of a user's id
	leeway      = 30 * time.Second    // between the clocks, for iat and nbf
	leastRSA    = 2048                // bits
)

// A Verifier tells what tokens give. It implements node.Authenticator.
type Verifier struct {
	cfg    Config
	parser *jwt.Parser
	byKind map[string]jwt.VerificationKeySet // by the first two letters of alg; static
	jwks   *keySet                           // nil without
	known  cache
}

// New makes a Verifier. What it fetches ends with ctx.
func New(ctx context.Context, cfg Config) (*Verifier, error) {
	if cfg.MaxLife == 0 {
		cfg.MaxLife = MaxLife
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	v := &Verifier{cfg: cfg, byKind: make(map[string]jwt.VerificationKeySet)}
	algs := make(map[string]bool)
	allow := func(key crypto.PublicKey, names ...string) {
		kind := names[0][:2]
		set := v.byKind[kind]
		set.Keys = append(set.Keys, key)
		v.byKind[kind] = set
		for _, name := range names {
			algs[name] = true
		}
	}
	if cfg.Secret != nil {
		if len(cfg.Secret) < LeastSecret {
			return nil, fmt.Errorf("the secret has %d bytes: at least %d are needed", len(cfg.Secret), LeastSecret)
		}
		allow(cfg.Secret, "HS256", "HS384", "HS512")
	}
	for _, key := range cfg.Keys {
		switch key := key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < leastRSA {
				return nil, fmt.Errorf("an RSA key has %d bits: at least %d are needed", key.N.BitLen(), leastRSA)
			}
			allow(key, "RS256", "RS384", "RS512")
			allow(key, "PS256", "PS384", "PS512")
		case *ecdsa.PublicKey:
			name, ok := map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
			if !ok {
				return nil, fmt.Errorf("the curve %s is not supported: P-256, P-384 and P-521 are", key.Curve.Params().Name)
			}
			allow(key, name)
		case ed25519.PublicKey:
			allow(key, "EdDSA")
		default:
			return nil, fmt.Errorf("a key is %T: RSA, ECDSA and Ed25519 are supported", key)
		}
	}
	if cfg.JWKS != "" {
		var err error
		if v.jwks, err = fetchKeys(ctx, cfg); err != nil {
			return nil, err
		}
		for _, name := range publicAlgs {
			algs[name] = true
		}
	}
	if len(algs) == 0 {
		return nil, errors.New("there is no key to check tokens with")
	}
	options := []jwt.ParserOption{
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithStrictDecoding(),
		jwt.WithValidMethods(slices.Sorted(maps.Keys(algs))),
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if cfg.Audience != "" {
		options = append(options, jwt.WithAudience(cfg.Audience))
	}
	v.parser = jwt.NewParser(options...)
	return v, nil
}

// Claims are what a token says.
type Claims struct {
	jwt.RegisteredClaims
	Name  string          `json:"name,omitempty"`
	Info  json.RawMessage `json:"info,omitempty"`
	Rooms json.RawMessage `json:"rooms,omitempty"`
}

// Authenticate implements node.Authenticator. Its errors hold nothing of the token.
func (v *Verifier) Authenticate(ctx context.Context, token string) (node.Grant, error) {
	if len(token) > MaxToken {
		return node.Grant{}, fmt.Errorf("the token has %d bytes: at most %d are allowed", len(token), MaxToken)
	}
	sum, now := sha256.Sum256([]byte(token)), time.Now()
	if g, ok := v.known.get(sum, now); ok {
		return g, nil
	}
	var claims Claims
	t, err := v.parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) { return v.keyOf(ctx, t) })
	if err != nil {
		return node.Grant{}, explain(err)
	}
	if _, has := t.Header["crit"]; has { // RFC 7515 section 4.1.11: what is not understood must not be passed over
		return node.Grant{}, errors.New("the token has the header crit, which is not supported")
	}
	g, err := v.grant(&claims)
	if err == nil {
		v.known.put(sum, g, now)
	}
	return g, err
}

var errAway = fmt.Errorf("%w: the keys that tokens are checked with have not come yet", bus.ErrUnavailable)

// keyOf finds what a token has to be signed with: a key of the kind that its alg says, so that none is taken for one of another.
func (v *Verifier) keyOf(ctx context.Context, t *jwt.Token) (any, error) {
	set, ok := v.byKind[t.Method.Alg()[:2]]
	if v.jwks == nil || t.Method.Alg()[:2] == "HS" {
		return set, nil
	}
	key, err := v.jwks.key(ctx, t)
	if err != nil && ok {
		return set, nil
	}
	if found, isSet := key.(jwt.VerificationKeySet); isSet {
		found.Keys = append(found.Keys, set.Keys...)
		return found, err
	}
	if err == nil && ok {
		return jwt.VerificationKeySet{Keys: append([]jwt.VerificationKey{key}, set.Keys...)}, nil
	}
	return key, err
}

// explain says what is wrong with a token, in words that hold nothing of it.
func explain(err error) error {
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case is(errAway):
		return errAway
	case is(jwt.ErrTokenMalformed):
		return errors.New("the token is no JSON Web Token")
	case is(jwt.ErrTokenSignatureInvalid), is(jwt.ErrTokenUnverifiable):
		return errors.New("the token is not signed with a key that is known here")
	case is(jwt.ErrTokenInvalidIssuer):
		return errors.New("the token is of another issuer")
	case is(jwt.ErrTokenInvalidAudience):
		return errors.New("the token is for another audience")
	case is(jwt.ErrTokenRequiredClaimMissing):
		return errors.New("the token lacks a claim: it needs sub, iat and exp, and iss and aud where they are asked for")
	case is(jwt.ErrTokenNotValidYet), is(jwt.ErrTokenUsedBeforeIssued):
		return errors.New("the token is not valid yet")
	case is(jwt.ErrTokenExpired):
		return node.ErrExpired
	}
	return errors.New("the token is not valid")
}

// grant makes sense of claims whose signature, times, issuer and audience are good.
func (v *Verifier) grant(c *Claims) (g node.Grant, err error) {
	g = node.Grant{User: node.User{ID: c.Subject, Name: shorten(c.Name)}, Rights: v.cfg.UserRights, Expires: c.ExpiresAt.Time, Token: c.ID}
	bad := wire.CheckName(g.User.Name)
	switch {
	case c.IssuedAt == nil:
		return g, errors.New("the token has no iat: without it nobody could revoke those issued before a time")
	case c.Subject == "" || len(c.Subject) > MaxUser || wire.CheckRoom(c.Subject) != nil:
		return g, fmt.Errorf("the token's sub has to be 1 to %d bytes without control characters", MaxUser)
	case len(c.ID) > MaxUser || c.ID != "" && wire.CheckRoom(c.ID) != nil:
		return g, fmt.Errorf("the token's jti has to be at most %d bytes without control characters", MaxUser)
	case bad != nil:
		return g, fmt.Errorf("the token's name: %s", bad.Message)
	case c.ExpiresAt.Sub(c.IssuedAt.Time) > v.cfg.MaxLife:
		return g, fmt.Errorf("the token is for %s: at most %s are allowed", c.ExpiresAt.Sub(c.IssuedAt.Time), v.cfg.MaxLife)
	}
	g.Issued = c.IssuedAt.Time
	if g.User.Info, err = wire.ParseInfo(c.Info); err != nil {
		return g, fmt.Errorf("the token's info: %w", err)
	}
	if c.Rooms != nil {
		r, err := rights.Parse(c.Rooms)
		if err != nil {
			return g, fmt.Errorf("the token's rights: %w", err)
		}
		g.Rights = r
	}
	return g, nil
}

// shorten is a name that may be longer where it comes from.
func shorten(name string) string {
	if len(name) <= wire.MaxName {
		return name
	}
	n := wire.MaxName // the name is from JSON, so UTF-8
	for !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}

// ParseKeys reads public keys in PEM: "PUBLIC KEY" (RSA, ECDSA, Ed25519), "RSA PUBLIC KEY", or the certificates that hold them.
func ParseKeys(text []byte) (list []crypto.PublicKey, err error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		one := pem.EncodeToMemory(block)
		if key, bad := jwt.ParseRSAPublicKeyFromPEM(one); bad == nil {
			list = append(list, key)
		} else if key, bad := jwt.ParseECPublicKeyFromPEM(one); bad == nil {
			list = append(list, key)
		} else if key, bad := jwt.ParseEdPublicKeyFromPEM(one); bad == nil {
			list = append(list, key)
		} else {
			return nil, fmt.Errorf("a block %q is no public key of RSA, ECDSA or Ed25519", block.Type)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("there is no public key in PEM")
	}
	return list, nil
}

// A cache holds what good tokens gave, for a while: checking a signature takes longer than all else that is done for a request.
type cache struct {
	mu   sync.Mutex
	good map[[32]byte]cached // guarded by mu
}

type cached struct {
	grant node.Grant
	until time.Time
}

const (
	cacheSize = 1 << 14
	cacheLife = time.Minute // so long a key that is taken away may still be good
)

func (c *cache) get(sum [32]byte, now time.Time) (node.Grant, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.good[sum]
	return e.grant, ok && now.Before(e.until)
}

func (c *cache) put(sum [32]byte, g node.Grant, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == nil {
		c.good = make(map[[32]byte]cached)
	}
	for old := range c.good { // whichever the map gives first
		if len(c.good) < cacheSize {
			break
		}
		delete(c.good, old)
	}
	until := now.Add(cacheLife)
	if g.Expires.Before(until) {
		until = g.Expires
	}
	c.good[sum] = cached{g, until}
}
