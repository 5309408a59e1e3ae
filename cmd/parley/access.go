package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/node"
	"parley/node/keys"
	"parley/node/rights"
	"parley/node/token"
)

// AccessFlags say who may use a node, and to what.
type AccessFlags struct {
	Secret   string
	Key      string
	JWKS     string
	Issuer   string
	Audience string
	Life     time.Duration

	APIKeys     string
	APIKeysFile string

	Guests                  bool
	GuestSpec               string
	UserSpec                string
	guestRights, userRights *rights.Rights // set by validate; nil for what users do
}

func (a *AccessFlags) add(f *pflag.FlagSet) {
	f.StringVar(&a.Secret, "token-secret", "", "`SECRET` Takes tokens signed with it (HS256, HS384, HS512): 32 bytes at least. From the environment only, or a file that $PARLEY_TOKEN_SECRET_FILE names.")
	cli.SetSecret(f, "token-secret")
	f.StringVar(&a.Key, "token-key", "", "`FILE` Takes tokens signed with the keys whose public halves (PEM) are there: RSA, ECDSA, Ed25519.")
	cli.SetVariable(f, "token-key", "PARLEY_TOKEN_KEY_FILE")
	f.StringVar(&a.JWKS, "token-jwks", "", "`URL` Takes tokens signed with the keys of the set (JWKS) that is there, such as that of an identity provider.")
	f.StringVar(&a.Issuer, "token-issuer", "", "`NAME` What a token's iss has to be. Anything, by default.")
	f.StringVar(&a.Audience, "token-audience", "", "`NAME` What has to be among a token's aud. Anything, by default.")
	f.DurationVar(&a.Life, "token-life", token.MaxLife, "How long a token may be good, from iat to exp; so long a revocation is kept.")
	f.StringVar(&a.APIKeys, "api-keys", "", "`LINES` Keys of applications, one a line: NAME KEY [RIGHTS]. From the environment only.")
	cli.SetSecret(f, "api-keys")
	f.StringVar(&a.APIKeysFile, "api-keys-file", "", "`FILE` The same in a file, which is read again when it changes.")
	f.StringVar(&a.UserSpec, "user-rights", "", "`RIGHTS` What one may do whose token does not say, such as 'lobby:read,send;team-*:join'. All that people do, by default.")
	f.BoolVar(&a.Guests, "guests", false, "Where tokens are taken, welcome those who have none, too.")
	f.StringVar(&a.GuestSpec, "guest-rights", "", "`RIGHTS` What guests may do. All that people do, by default.")
}

// secured reports whether tokens are taken.
func (a *AccessFlags) secured() bool { return a.Secret != "" || a.Key != "" || a.JWKS != "" }

func (a *AccessFlags) validate() (err error) {
	switch {
	case a.Secret != "" && len(a.Secret) < token.LeastSecret:
		return fmt.Errorf("--token-secret has %d bytes: at least %d are needed, such as 'openssl rand -base64 32' makes", len(a.Secret), token.LeastSecret)
	case a.Life < time.Minute:
		return errors.New("--token-life must be at least 1m")
	case !a.secured() && (a.Issuer != "" || a.Audience != "" || a.UserSpec != "" || a.Guests):
		return errors.New("--token-issuer, --token-audience, --user-rights and --guests need a key: --token-secret, --token-key or --token-jwks")
	case a.secured() && !a.Guests && a.GuestSpec != "":
		return errors.New("--guest-rights needs --guests where tokens are taken")
	}
	if a.guestRights, err = rightsOf("--guest-rights", a.GuestSpec); err != nil {
		return err
	}
	if a.userRights, err = rightsOf("--user-rights", a.UserSpec); err != nil {
		return err
	}
	if a.APIKeys != "" {
		if _, err := keys.Parse(a.APIKeys); err != nil {
			return fmt.Errorf("--api-keys: %w", err)
		}
	}
	_, err = a.publicKeys()
	return err
}

// apps is nil where there are no API keys.
func (a *AccessFlags) apps(log *slog.Logger) (node.Apps, error) {
	var list []node.Apps
	if a.APIKeys != "" {
		ring, err := keys.Parse(a.APIKeys)
		if err != nil {
			return nil, fmt.Errorf("--api-keys: %w", err)
		}
		list = append(list, ring)
	}
	if a.APIKeysFile != "" {
		file, err := keys.Open(a.APIKeysFile, log)
		if err != nil {
			return nil, fmt.Errorf("--api-keys-file: %w", err)
		}
		list = append(list, file)
	}
	switch len(list) {
	case 0:
		return nil, nil
	case 1:
		return list[0], nil
	}
	return keys.Both{list[0], list[1]}, nil
}

func rightsOf(flag, spec string) (*rights.Rights, error) {
	if spec == "" {
		return nil, nil
	}
	rooms, err := rights.ParseText(spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return rights.New(rooms)
}

func (a *AccessFlags) publicKeys() ([]crypto.PublicKey, error) {
	if a.Key == "" {
		return nil, nil
	}
	text, err := os.ReadFile(a.Key)
	if err != nil {
		return nil, fmt.Errorf("--token-key: %w", err)
	}
	list, err := token.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("--token-key %s: %w", a.Key, err)
	}
	return list, nil
}

// authenticator is nil where no tokens are taken.
func (a *AccessFlags) authenticator(ctx context.Context, log *slog.Logger) (node.Authenticator, error) {
	if !a.secured() {
		return nil, nil
	}
	cfg := token.Config{JWKS: a.JWKS, Issuer: a.Issuer, Audience: a.Audience, UserRights: a.userRights, MaxLife: a.Life, Log: log}
	if a.Secret != "" {
		cfg.Secret = []byte(a.Secret)
	}
	var err error
	if cfg.Keys, err = a.publicKeys(); err != nil {
		return nil, err
	}
	v, err := token.New(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	return v, nil
}
