package web

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io/fs"
	"strings"
	"time"
)

// tarball packs the client as npm installs it, and tells its version. The same files give the same bytes, as lock files
// want it.
func tarball(files fs.FS) (packed []byte, version string, err error) {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // fails only for a level that is none
	w := tar.NewWriter(z)
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(name, "parley") && name != "package.json" {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if name == "package.json" {
			var about struct{ Version string }
			if err := json.Unmarshal(b, &about); err != nil {
				return err
			}
			version = about.Version
		}
		// An app that bundles the client is served by some host of its own, which is no node.
		b = bytes.Replace(b, []byte("const HOME = import.meta.url;"), []byte("const HOME = null;"), 1)
		if err := w.WriteHeader(&tar.Header{Name: "package/" + name, Mode: 0o644, Size: int64(len(b)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	err = z.Close()
	return out.Bytes(), version, err
}
