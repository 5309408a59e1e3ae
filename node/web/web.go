// Package web is the chat page and the browser client, as every node serves them: plain ES modules, embedded, with no build
// step.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed index.html style.css favicon.svg parley.js parley.d.ts parley/*.js app/*.js
var files embed.FS

// policy lets the page load from and talk to its own node, and nothing else. 'self' covers ws: and wss: to the same host.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// types are the content types of what is embedded, which must not depend on the machine's own table.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".ts":   "text/plain; charset=utf-8", // to read; the table of the standard would call it a video
	".svg":  "image/svg+xml",
}

// An asset is one file, ready to be written.
type asset struct {
	contentType string
	plain, gzip variant
	importable  bool // by pages of any origin
}

// A variant is one encoding of an asset. Its tag is strong: other bytes have another.
type variant struct {
	body []byte
	etag string
}

// Handler serves the page at /, what it is made of, and the client module at /parley.js. All other paths are not found.
func Handler() http.Handler { return handler() }

// handler packs the files once, however many nodes a process runs.
var handler = sync.OnceValue(func() http.Handler {
	assets := make(map[string]*asset)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		assets["/"+name] = newAsset(name, body)
		return err
	})
	if err != nil {
		panic(err) // what is embedded can be read
	}
	assets["/"] = assets["/index.html"]
	assets["/favicon.ico"] = assets["/favicon.svg"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		a.serve(w, r)
	})
})

func newAsset(name string, body []byte) *asset {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // fails only for a level that is none
	z.Write(body)                                              // to memory
	z.Close()
	return &asset{
		contentType: types[path.Ext(name)],
		plain:       newVariant(body),
		gzip:        newVariant(packed.Bytes()),
		importable:  strings.HasPrefix(name, "parley"),
	}
}

func newVariant(body []byte) variant {
	sum := sha256.Sum256(body)
	return variant{body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if a.importable {
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}

	v := a.plain
	h.Add("Vary", "Accept-Encoding")
	if acceptsGzip(r.Header) {
		v = a.gzip
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", v.etag)
	h.Set("Cache-Control", "no-cache") // names carry no version: asked for each time, and answered 304
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Length", strconv.Itoa(len(v.body))) // which ServeContent leaves out of what is compressed
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(v.body))
}

// acceptsGzip reads Accept-Encoding as RFC 9110, section 12.5.3, has it.
func acceptsGzip(h http.Header) bool {
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, params, err := mime.ParseMediaType(part)
		if err != nil || coding != "gzip" && coding != "*" {
			continue
		}
		q, err := strconv.ParseFloat(params["q"], 64)
		return err != nil || q > 0
	}
	return false
}
