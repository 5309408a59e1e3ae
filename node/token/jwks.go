package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// publicAlgs are those that a key of a JWKS may be for: never HMAC, whose key would be there for everyone to read.
var publicAlgs = []string{"EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

const (
	maxJWKS      = 1 << 20          // bytes
	jwksTimeout  = 4 * time.Second  // of one fetch
	jwksInterval = 5 * time.Minute  // between fetches
	jwksUnknown  = 10 * time.Second // between fetches because of a key that is not known; two at once
)

// A keySet is what a JWKS held when it was last fetched well. While the server is away, or says what is none, the keys stay.
type keySet struct {
	keys  keyfunc.Keyfunc
	store jwkset.Storage
}

// fetchKeys begins to keep a JWKS. A server that is away is no error: the keys are asked for again.
func fetchKeys(ctx context.Context, cfg Config) (*keySet, error) {
	u, err := url.Parse(cfg.JWKS)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the JWKS needs a URL such as https://id.example.com/.well-known/jwks.json")
	}
	client := http.Client{}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport = bounded{client.Transport}
	store := publicKeys{jwkset.NewMemoryStorage()}
	fetched, err := jwkset.NewStorageFromHTTP(cfg.JWKS, jwkset.HTTPClientStorageOptions{
		Client:                    &client,
		Ctx:                       ctx,
		HTTPTimeout:               jwksTimeout,
		NoErrorReturnFirstHTTPReq: true,
		RefreshErrorHandler: func(_ context.Context, err error) {
			if ctx.Err() == nil {
				cfg.Log.Warn("fetch the keys for tokens: those known before stay", "err", err)
			}
		},
		RefreshInterval: jwksInterval,
		Storage:         store,
	})
	if err != nil {
		return nil, fmt.Errorf("fetch the keys for tokens: %w", err)
	}
	all, err := jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs:          map[string]jwkset.Storage{cfg.JWKS: fetched},
		RateLimitWaitMax:  jwksTimeout,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(jwksUnknown), 2),
	})
	if err != nil {
		return nil, fmt.Errorf("fetch the keys for tokens: %w", err)
	}
	found, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: all})
	return &keySet{found, store}, err
}

// key finds a token's key. What it fetches is for all: it goes on though whoever needs it first goes, or who does so again and again could
// keep new keys from everybody.
func (k *keySet) key(ctx context.Context, t *jwt.Token) (any, error) {
	ctx = context.WithoutCancel(ctx) // the storage has a time-out of its own
	if known, _ := k.store.KeyReadAll(ctx); len(known) == 0 {
		_, _ = k.keys.Storage().KeyRead(ctx, "") // which fetches them, if that was not tried just now
		if known, _ = k.store.KeyReadAll(ctx); len(known) == 0 {
			return nil, errAway
		}
	}
	return k.keys.KeyfuncCtx(ctx)(t)
}

// publicKeys takes a set only if it has keys, and none but public ones.
type publicKeys struct{ jwkset.Storage }

// KeyReplaceAll implements jwkset.Storage.
func (p publicKeys) KeyReplaceAll(ctx context.Context, all []jwkset.JWK) error {
	var public []jwkset.JWK
	for _, key := range all {
		if m := key.Marshal(); m.KTY != jwkset.KtyOct && (m.USE == "" || m.USE == jwkset.UseSig) {
			public = append(public, key)
		}
	}
	if len(public) == 0 {
		return errors.New("it has no public key to check signatures with")
	}
	return p.Storage.KeyReplaceAll(ctx, public)
}

// bounded cuts off answers that are too long.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	next := b.RoundTripper
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxJWKS), resp.Body}
	}
	return resp, err
}
