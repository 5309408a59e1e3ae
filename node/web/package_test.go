package web_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestTheClientIsAPackage(t *testing.T) {
	res := get(t, "/parley.tgz")
	at := res.Header.Get("Location")
	if res.StatusCode != http.StatusTemporaryRedirect || !strings.HasPrefix(at, "parley-") || !strings.HasSuffix(at, ".tgz") {
		t.Fatalf("/parley.tgz: status %d, Location %q", res.StatusCode, at)
	}
	res = get(t, "/"+at, "Accept-Encoding", "gzip")
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK || !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) || res.Header.Get("Content-Encoding") != "" {
		t.Errorf("/%s: status %d, Content-Encoding %q", at, res.StatusCode, res.Header.Get("Content-Encoding"))
	}
}
