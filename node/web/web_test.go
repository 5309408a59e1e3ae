package web_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"parley/node/web"
)

func get(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	return do(t, http.MethodGet, path, header...)
}

func do(t *testing.T, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	web.Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestServesEachFileWithItsType(t *testing.T) {
	for path, want := range map[string]string{
		"/":               "text/html; charset=utf-8",
		"/parley.js":      "text/javascript; charset=utf-8",
		"/parley/room.js": "text/javascript; charset=utf-8",
		"/parley.d.ts":    "text/plain; charset=utf-8",
		"/app/main.js":    "text/javascript; charset=utf-8",
		"/style.css":      "text/css; charset=utf-8",
		"/favicon.svg":    "image/svg+xml",
		"/favicon.ico":    "image/svg+xml",
	} {
		res := get(t, path)
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK || len(body) == 0 || res.ContentLength != int64(len(body)) {
			t.Errorf("%s: status %d, %d bytes, Content-Length %d", path, res.StatusCode, len(body), res.ContentLength)
		}
		if got := res.Header.Get("Content-Type"); got != want {
			t.Errorf("%s: Content-Type %q, want %q", path, got, want)
		}
	}
}

func TestAnswersOnlyWhatItHas(t *testing.T) {
	for _, path := range []string{"/nothing", "/app/", "/app", "/web.go", "/app/../web.go", "/index.html/"} {
		if res := get(t, path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, res.StatusCode)
		}
	}
	res := do(t, http.MethodPost, "/")
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /: status %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
	head := do(t, http.MethodHead, "/")
	if body, _ := io.ReadAll(head.Body); len(body) != 0 || head.Header.Get("Content-Length") == "" {
		t.Errorf("HEAD /: %d bytes of body, Content-Length %q", len(body), head.Header.Get("Content-Length"))
	}
}

func TestCompressesForThoseWhoAccept(t *testing.T) {
	plain, _ := io.ReadAll(get(t, "/style.css").Body)
	for accept, want := range map[string]string{
		"gzip, deflate, br": "gzip",
		"br;q=1, gzip;q=.2": "gzip",
		"*":                 "gzip",
		"gzip;q=0":          "",
		"br":                "",
		"":                  "",
	} {
		res := get(t, "/style.css", "Accept-Encoding", accept)
		if got := res.Header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: Content-Encoding %q, want %q", accept, got, want)
			continue
		}
		if want == "" {
			continue
		}
		z, err := gzip.NewReader(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if unpacked, err := io.ReadAll(z); err != nil || string(unpacked) != string(plain) {
			t.Errorf("Accept-Encoding %q: unpacks to %d bytes (%v), want %d", accept, len(unpacked), err, len(plain))
		}
	}
}

func TestAnswersNotModified(t *testing.T) {
	for _, accept := range []string{"", "gzip"} {
		etag := get(t, "/", "Accept-Encoding", accept).Header.Get("ETag")
		for header, want := range map[string]int{
			etag:               http.StatusNotModified,
			"W/" + etag:        http.StatusNotModified,
			`"other", ` + etag: http.StatusNotModified,
			"*":                http.StatusNotModified,
			`"other"`:          http.StatusOK,
		} {
			res := get(t, "/", "Accept-Encoding", accept, "If-None-Match", header)
			if res.StatusCode != want {
				t.Errorf("Accept-Encoding %q, If-None-Match %q: status %d, want %d", accept, header, res.StatusCode, want)
			}
		}
	}
	if get(t, "/").Header.Get("ETag") == get(t, "/", "Accept-Encoding", "gzip").Header.Get("ETag") {
		t.Error("both encodings have the same strong tag")
	}
}

func TestPolicyAllowsNothingInline(t *testing.T) {
	res := get(t, "/")
	policy := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "form-action 'none'",
		"frame-ancestors 'none'", "require-trusted-types-for 'script'",
	} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q allows something unsafe", policy)
	}
	if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("headers: %v", res.Header)
	}
}

func TestOnlyTheClientIsForPagesOfOtherOrigins(t *testing.T) {
	for path, want := range map[string]string{"/parley.js": "*", "/parley/room.js": "*", "/parley.d.ts": "*", "/": "", "/app/main.js": ""} {
		if got := get(t, path).Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("%s: Access-Control-Allow-Origin %q, want %q", path, got, want)
		}
	}
}
