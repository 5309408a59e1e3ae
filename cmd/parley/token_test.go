package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/node/token"
)

// A token that is made with a private key is taken by who has the public one, and by nobody else.
func TestATokenIsMadeWithAPrivateKey(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(nil)
	other, _, _ := ed25519.GenerateKey(nil)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"token", "--sub", "ada", "--name", "Ada", "--key", file}, nil, &out, &out); err != nil {
		t.Fatal(err)
	}
	for key, good := range map[string]ed25519.PublicKey{"its": public, "another": other} {
		v, err := token.New(t.Context(), token.Config{Keys: []crypto.PublicKey{good}, MaxLife: token.MaxLife})
		if err != nil {
			t.Fatal(err)
		}
		grant, err := v.Authenticate(t.Context(), strings.TrimSpace(out.String()))
		if (err == nil) != (key == "its") || err == nil && (grant.User.ID != "ada" || grant.User.Name != "Ada") {
			t.Errorf("with %s key it is of %+v, %v", key, grant.User, err)
		}
	}
}
