package selfsigned

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
)

func TestTheCertificateIsFor127001(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	made, err := Write(cert, key, 7)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if !pair.Leaf.Equal(made) || made.SerialNumber.Int64() != 7 {
		t.Errorf("certificate %v was written", pair.Leaf.SerialNumber)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: "127.0.0.1", Roots: roots}); err != nil {
		t.Error(err)
	}
}
