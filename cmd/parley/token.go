package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/node/rights"
	"parley/node/token"
)

// TokenCmd makes tokens, for those who have no backend that does, and reads them.
type TokenCmd struct {
	Sub      string
	Name     string
	Info     string
	Rooms    []string
	For      time.Duration
	Issuer   string
	Audience string

	Secret string
	Key    string

	Inspect bool
}

func (c *TokenCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Sub, "sub", "", "`USER` Whom the token stands for.")
	f.StringVar(&c.Name, "name", "", "`NAME` The user's name, as others see it.")
	f.StringVar(&c.Info, "info", "", "`JSON` An object that others see of the user, up to 1 KB.")
	f.StringArrayVar(&c.Rooms, "room", nil, "`RIGHTS` What the user may do where, such as 'team-*:read,send'; again for more. What the nodes give by --user-rights, by default.")
	f.DurationVar(&c.For, "for", 8*time.Hour, "How long it is good.")
	f.StringVar(&c.Issuer, "issuer", "", "`NAME` Its iss.")
	f.StringVar(&c.Audience, "audience", "", "`NAME` Its aud.")
	f.StringVar(&c.Secret, "secret", "", "`SECRET` What it is signed with. From the environment only, or a file that $PARLEY_TOKEN_SECRET_FILE names.")
	f.StringVar(&c.Key, "key", "", "`FILE` The private key (PEM) that it is signed with, instead: RSA, ECDSA, Ed25519.")
	f.BoolVar(&c.Inspect, "inspect", false, "Read a token from the standard input, and say what it says. With a secret, check it too.")
	cli.SetSecret(f, "secret")
	for flag, variable := range map[string]string{
		"sub": "SUB", "name": "NAME", "info": "INFO", "room": "ROOM", "for": "FOR", "issuer": "ISSUER", "audience": "AUDIENCE",
		"secret": "SECRET", "key": "SIGNING_KEY_FILE", "inspect": "INSPECT",
	} {
		cli.SetVariable(f, flag, "PARLEY_TOKEN_"+variable)
	}
}

// Validate refuses what makes no token.
func (c *TokenCmd) Validate() error {
	if c.Inspect {
		return nil
	}
	switch {
	case c.Sub == "":
		return errors.New("--sub is needed: whom does the token stand for?")
	case strings.HasPrefix(c.Sub, "guest-"):
		return errors.New("--sub must not begin with guest-, as guests' ids do")
	case (c.Secret == "") == (c.Key == ""):
		return errors.New("one key is needed: $PARLEY_TOKEN_SECRET, $PARLEY_TOKEN_SECRET_FILE, or --key for a private key")
	case c.For <= 0:
		return errors.New("--for must be more than 0s")
	}
	if _, err := c.claims(); err != nil {
		return err
	}
	return nil
}

func (c *TokenCmd) claims() (claims token.Claims, err error) {
	now := time.Now().Truncate(time.Second)
	claims.Subject, claims.ID, claims.Issuer, claims.Name = c.Sub, rand.Text(), c.Issuer, c.Name
	claims.IssuedAt, claims.ExpiresAt = jwt.NewNumericDate(now), jwt.NewNumericDate(now.Add(c.For))
	if c.Audience != "" {
		claims.Audience = jwt.ClaimStrings{c.Audience}
	}
	if c.Info != "" {
		if claims.Info = json.RawMessage(c.Info); !json.Valid(claims.Info) {
			return claims, errors.New("--info is no JSON")
		}
	}
	if len(c.Rooms) > 0 {
		rooms, err := rights.ParseText(strings.Join(c.Rooms, ";"))
		if err != nil {
			return claims, fmt.Errorf("--room: %w", err)
		}
		claims.Rooms, _ = json.Marshal(rooms)
	}
	return claims, token.Check(claims)
}

// Run implements "parley token".
func (c *TokenCmd) Run(env *cli.Env) error {
	if c.Inspect {
		return c.inspect(env)
	}
	var key any = []byte(c.Secret)
	if c.Key != "" {
		text, err := os.ReadFile(c.Key)
		if err != nil {
			return err
		}
		if key, err = token.ParsePrivateKey(text); err != nil {
			return fmt.Errorf("%s: %w", c.Key, err)
		}
	}
	claims, err := c.claims()
	if err != nil {
		return err
	}
	tok, err := token.Make(claims, key)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Out, tok)
	return err
}

func (c *TokenCmd) inspect(env *cli.Env) error {
	text, err := io.ReadAll(io.LimitReader(env.In, 64<<10))
	if err != nil {
		return err
	}
	tok := strings.TrimSpace(string(text))
	header, claims, err := token.Inspect(tok)
	if err != nil {
		return err
	}
	for _, part := range []json.RawMessage{header, claims} {
		var b bytes.Buffer
		if err := json.Indent(&b, part, "", "  "); err != nil {
			return err
		}
		fmt.Fprintln(env.Out, b.String())
	}
	var times map[string]any
	if json.Unmarshal(claims, &times) == nil {
		for _, name := range []string{"iat", "nbf", "exp"} {
			if at, ok := times[name].(float64); ok {
				when := time.Unix(int64(at), 0)
				fmt.Fprintf(env.Out, "%s: %s, %s\n", name, when.UTC().Format(time.RFC3339), ago(time.Since(when)))
			}
		}
	}
	if c.Secret == "" {
		fmt.Fprintln(env.Out, "not checked: $PARLEY_TOKEN_SECRET is not set")
		return nil
	}
	v, err := token.New(env.Ctx, token.Config{Secret: []byte(c.Secret), Issuer: c.Issuer, Audience: c.Audience, MaxLife: 1<<63 - 1})
	if err != nil {
		return err
	}
	if _, err = v.Authenticate(env.Ctx, tok); err != nil {
		return err
	}
	fmt.Fprintln(env.Out, "checked: it is good")
	return nil
}

func ago(d time.Duration) string {
	if d < 0 {
		return "in " + (-d).Round(time.Second).String()
	}
	return d.Round(time.Second).String() + " ago"
}
