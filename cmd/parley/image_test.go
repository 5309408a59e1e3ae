package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// mostProgram is how many bytes the program in the image may have.
const mostProgram = 20e6

// The linker leaves out what is never called, unless something in the program finds methods by name, as reflect can: then it
// keeps every method of every type, and the program is half as large again. text/template and net/rpc do so.
func TestNothingKeepsTheProgramFromBeingSmall(t *testing.T) {
	program := filepath.Join(t.TempDir(), "parley")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".") // as in the Dockerfile
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the program has %.1f MB", float64(info.Size())/1e6)
	if info.Size() > mostProgram {
		t.Error("that is too much; what finds methods by name: go build -ldflags=-dumpdep ./cmd/parley 2>&1 | grep ReflectMethod")
	}
}
