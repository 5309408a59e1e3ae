package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// mostProgram is how many bytes the program in the image may have.
const mostProgram = 20e6

// buildAsInTheImage builds the program from a directory as the Dockerfile does, as version v1.2.3 of revision 0123abcd.
func buildAsInTheImage(t *testing.T, dir string) (program string) {
	t.Helper()
	text, err := os.ReadFile(root + "/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`go build .* -o /parley \./cmd/parley`).Find(text)
	if command == nil {
		t.Fatal("the Dockerfile does not build the program")
	}
	program = filepath.Join(t.TempDir(), "parley")
	build := exec.Command("sh", "-c", string(bytes.Replace(command, []byte("-o /parley"), []byte(`-buildvcs=false -o "$PROGRAM"`), 1)))
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "PROGRAM="+program, "VERSION=v1.2.3", "REVISION=0123abcd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// Whoever builds a version gets the same program, wherever it was checked out; it is small, and says which version it is.
func TestTheProgramIsReproducibleAndSmall(t *testing.T) {
	t.Parallel()
	elsewhere := t.TempDir()
	for _, part := range []string{"bus", "cmd", "metrics", "node"} {
		if err := os.CopyFS(filepath.Join(elsewhere, part), os.DirFS(filepath.Join(root, part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(elsewhere, file), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	one, other := buildAsInTheImage(t, root), buildAsInTheImage(t, elsewhere)
	first, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("built elsewhere it is another program, of %d and not %d bytes", len(second), len(first))
	}
	// The linker leaves out what is never called, unless something in the program finds methods by name, as reflect can: then it
	// keeps every method of every type, and the program is half as large again. text/template and net/rpc do so.
	t.Logf("the program has %.1f MB", float64(len(first))/1e6)
	if len(first) > mostProgram {
		t.Error("that is too much; what finds methods by name: go build -ldflags=-dumpdep ./cmd/parley 2>&1 | grep ReflectMethod")
	}
	out, err := exec.Command(one, "version").Output()
	if err != nil || !regexp.MustCompile(`^parley v1\.2\.3 \(0123abcd\) `).Match(out) {
		t.Errorf("it says %q, %v", out, err)
	}
}
