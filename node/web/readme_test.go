package web_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the sizes in the README anew")

// The README tells how large each part is.
func TestREADMETellsTheSizes(t *testing.T) {
	const readme = "../../README.md"
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	table := "| part | lines | bytes | gzipped, as it is served |\n| --- | --- | --- | --- |\n"
	for _, part := range []struct{ name, files string }{
		{"`parley.js` and its modules", "parley.js parley/*.js"},
		{"the page's JavaScript", "app/*.js"},
		{"its CSS", "style.css"},
		{"its HTML", "index.html"},
	} {
		var lines, size, packed int
		for _, pattern := range strings.Fields(part.files) {
			names, _ := filepath.Glob(pattern)
			for _, name := range names {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				lines += bytes.Count(b, []byte("\n"))
				size += len(b)
				packed += gzipped(b)
			}
		}
		table += fmt.Sprintf("| %s | %s | %s | %s |\n", part.name, grouped(lines), grouped(size), grouped(packed))
	}
	if strings.Contains(string(text), table) {
		return
	}
	if !*update {
		t.Fatalf("README.md has other sizes than\n%s\nwrite it anew with: go test ./node/web -run README -update", table)
	}
	before, rest, ok := strings.Cut(string(text), "| part | lines | bytes |")
	_, after, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatal("README.md has no table of sizes")
	}
	if err := os.WriteFile(readme, []byte(before+table+"\n"+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func gzipped(b []byte) int {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	z.Write(b)
	z.Close()
	return packed.Len()
}

// grouped writes a number as "1,234".
func grouped(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return grouped(n/1000) + fmt.Sprintf(",%03d", n%1000)
}
