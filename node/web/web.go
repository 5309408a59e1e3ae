// Package web is the chat page and the browser client, as every node serves them: plain ES modules, embedded, with no build
// step. The page's own are put together when a node starts.
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

//go:embed index.html style.css favicon.svg parley.js package.json parley.d.ts parley/*.js parley/*.ts app/*.js
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
	plain, gzip variant // gzip is empty if plain is packed already
	importable  bool    // by pages of any origin
	immutable   bool    // its path tells its content
}

// A variant is one encoding of an asset. Its tag is strong: other bytes have another.
type variant struct {
	body []byte
	etag string
}

// Handler serves the page at /, what it is made of, the client module at /parley.js, and the same as a package for npm at
// /parley.tgz. All other paths are not found.
func Handler() http.Handler { return site() }

// Has reports whether Handler serves a path.
func Has(path string) bool { return path == latestPackage || site().find(path) != nil }

// latestPackage redirects to the package, whose path tells its version.
const latestPackage = "/parley.tgz"

// pages are all that is served.
type pages struct {
	assets map[string]*asset // by path
	latest map[string]*asset // those with a hashed path, by name
	tgz    string            // the package's name
}

// find gives what is at a path, nil for nothing.
func (p *pages) find(at string) *asset {
	a := p.assets[at]
	if a == nil && strings.HasPrefix(at, hashedPrefix) {
		// A page of another version, from another node while they are updated: it gets ours, but not to keep.
		a = p.latest[path.Base(at)]
	}
	return a
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == latestPackage {
		w.Header().Set("Location", p.tgz) // relative, for nodes under a prefix
		w.Header().Set("Cache-Control", "no-cache")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	if a := p.find(r.URL.Path); a != nil {
		a.serve(w, r)
		return
	}
	http.NotFound(w, r)
}

// site packs the files once, however many nodes a process runs.
var site = sync.OnceValue(func() *pages {
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
	delete(assets, "/package.json") // it is of the package
	script, err := bundle(files, "app/main.js")
	if err != nil {
		panic(err) // the tests hold that it can be bundled
	}
	style, _ := files.ReadFile("style.css")
	icon, _ := files.ReadFile("favicon.svg")
	page, _ := files.ReadFile("index.html")
	// What the page is made of has a path that tells its content, so that no browser asks for it twice.
	latest := make(map[string]*asset)
	for name, body := range map[string][]byte{"page.js": []byte(script), "style.css": style, "favicon.svg": icon} {
		a := newAsset(name, body)
		at := hashedPrefix + strings.Trim(a.plain.etag, `"`) + "/" + name
		page = bytes.ReplaceAll(page, []byte(`"`+name+`"`), []byte(`"`+at[1:]+`"`))
		latest[name] = a
		hashed := *a
		hashed.immutable = true
		assets[at] = &hashed
	}
	packed, version, err := tarball(files)
	if err != nil {
		panic(err) // as above
	}
	tgz := "parley-" + version + ".tgz"
	assets["/"+tgz] = &asset{contentType: "application/gzip", plain: newVariant(packed), importable: true}
	assets["/index.html"] = newAsset("index.html", page)
	assets["/"] = assets["/index.html"]
	assets["/favicon.ico"] = assets["/favicon.svg"]
	return &pages{assets, latest, tgz}
})

// hashedPrefix is followed by a hash of the content, and a name.
const hashedPrefix = "/assets/"

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
	if a.gzip.body != nil && acceptsGzip(r.Header) {
		v = a.gzip
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", v.etag)
	h.Set("Cache-Control", "no-cache") // asked for each time, and answered 304
	if a.immutable {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
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
