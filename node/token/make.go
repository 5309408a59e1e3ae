package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Check says why no node would take a token with such claims, however it is signed and however long tokens may be good.
func Check(c Claims) error {
	_, err := (&Verifier{cfg: Config{MaxLife: math.MaxInt64}}).grant(&c)
	return err
}

// Make signs claims with a secret ([]byte, HS256) or a private key (RS256, ES256, ES384, ES512 or EdDSA).
func Make(c Claims, key any) (string, error) {
	var method jwt.SigningMethod
	switch key := key.(type) {
	case []byte:
		if len(key) < LeastSecret {
			return "", fmt.Errorf("the secret has %d bytes: at least %d are needed", len(key), LeastSecret)
		}
		method = jwt.SigningMethodHS256
	case *rsa.PrivateKey:
		method = jwt.SigningMethodRS256
	case *ecdsa.PrivateKey:
		method = map[int]jwt.SigningMethod{256: jwt.SigningMethodES256, 384: jwt.SigningMethodES384, 521: jwt.SigningMethodES512}[key.Curve.Params().BitSize]
	case ed25519.PrivateKey:
		method = jwt.SigningMethodEdDSA
	}
	if method == nil {
		return "", fmt.Errorf("a key is %T: RSA, ECDSA and Ed25519 are supported", key)
	}
	return jwt.NewWithClaims(method, c).SignedString(key)
}

// ParsePrivateKey reads a private key in PEM: RSA, ECDSA or Ed25519.
func ParsePrivateKey(text []byte) (crypto.PrivateKey, error) {
	if key, err := jwt.ParseRSAPrivateKeyFromPEM(text); err == nil {
		return key, nil
	}
	if key, err := jwt.ParseECPrivateKeyFromPEM(text); err == nil {
		return key, nil
	}
	if key, err := jwt.ParseEdPrivateKeyFromPEM(text); err == nil {
		return key, nil
	}
	return nil, errors.New("there is no private key of RSA, ECDSA or Ed25519 in PEM")
}

// Inspect reads what a token says, and checks nothing.
func Inspect(token string) (header, claims json.RawMessage, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("the token is no JSON Web Token: it has not three parts")
	}
	p := jwt.NewParser()
	for i, into := range []*json.RawMessage{&header, &claims} {
		b, err := p.DecodeSegment(parts[i])
		if err != nil || !json.Valid(b) {
			return nil, nil, errors.New("the token is no JSON Web Token")
		}
		*into = b
	}
	return header, claims, nil
}
