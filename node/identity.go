package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"strings"
)

// guestPrefix begins the id of a guest, and of nobody else.
const guestPrefix = "guest-"

// newSessionToken makes the secret by which a guest is known: 128 random bits.
func newSessionToken() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// validSessionToken reports whether a token has the form of newSessionToken: one that is easier to guess is nobody's.
func validSessionToken(token string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	return err == nil && len(b) == 16
}

var guestEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// guest is who a session token stands for, on every node, with nothing stored: 80 bits of its hash are the id.
func guest(token, name string) User {
	sum := sha256.Sum256([]byte("parley guest\x00" + token))
	id := guestEncoding.EncodeToString(sum[:10])
	if name == "" {
		name = "Guest " + strings.ToUpper(id[:4])
	}
	return User{ID: guestPrefix + id, Name: name, Guest: true}
}
