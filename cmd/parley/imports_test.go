package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.." // of the module

// mayImport is the direction of imports: what each package may import of ours, its own subpackages apart. Commands may import
// all; so may tests and what only tests use (bustest, nodetest), but for commands.
var mayImport = map[string][]string{
	"bus/id":         {},
	"bus":            {"bus/id"},
	"bus/memory":     {"bus"},
	"bus/redis/resp": {},
	"bus/redis":      {"bus", "bus/id", "bus/redis/resp"},
	"node/wire":      {"bus/id"},
	"node/web":       {},
	"node/client":    {"node/wire", "bus/id"},
	"node/socket":    {"node/wire"},
	"node/rights":    {"node/wire"},
	"node/keys":      {"node", "node/rights"},
	"node/api":       {"node/wire", "bus/id"},
	"node/token":     {"bus", "node", "node/rights", "node/wire"},
	"node":           {"bus", "bus/id", "node/rights", "node/socket", "node/wire", "node/web"},
	"metrics":        {},
}

// keptTo are modules that only some packages may know, besides commands, tests and what only tests use.
var keptTo = map[string]string{
	"github.com/redis/go-redis":           "bus/redis",
	"github.com/prometheus/client_golang": "metrics",
	"github.com/coder/websocket":          "node",
	"github.com/golang-jwt/jwt":           "node/token",
	"github.com/MicahParks":               "node/token",
	"github.com/spf13":                    "",
}

func TestImportsPointDown(t *testing.T) {
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != root && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(file) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := refuse(rel, imported); why != "" {
				t.Errorf("%s imports %s: %s", rel, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// refuse says why a file must not import a package, or "".
func refuse(file, imported string) string {
	pkg := path.Dir(file)
	if within(pkg, "cmd") {
		return ""
	}
	ours, isOurs := strings.CutPrefix(imported, "parley/")
	if isOurs && within(ours, "cmd") {
		return "commands are for nobody to import"
	}
	if strings.HasSuffix(file, "_test.go") || isForTests(pkg) {
		return ""
	}
	if isOurs {
		allowed, known := mayImport[pkg]
		switch {
		case !known:
			return "say in mayImport what " + pkg + " may import"
		case isForTests(ours):
			return "it is for tests"
		case !slices.Contains(allowed, ours):
			return "imports point down: cmd, node, bus, bus/id"
		}
		return ""
	}
	for module, owner := range keptTo {
		if within(imported, module) && !(owner != "" && within(pkg, owner)) {
			return "that is kept to commands, and to " + strconv.Quote(owner)
		}
	}
	return ""
}

// The image is to be small, and what measures is not to run with what is measured.
func TestTheServerLinksNothingOfTheLoadGenerator(t *testing.T) {
	list, err := exec.Command("go", "list", "-deps", "parley/cmd/parley").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.Lines(string(list)) {
		for _, module := range []string{"github.com/gorilla", "github.com/HdrHistogram", "gonum.org", "github.com/Shopify", "github.com/getkin", "parley/cmd/parley-bench", "parley/cmd/parley-faults"} {
			if within(strings.TrimSpace(pkg), module) {
				t.Errorf("parley links %s", pkg)
			}
		}
	}
}

func isForTests(pkg string) bool {
	return slices.Contains([]string{"bus/bustest", "node/nodetest"}, pkg)
}

func within(pkg, parent string) bool {
	return pkg == parent || strings.HasPrefix(pkg, parent+"/")
}

// The rule itself can fail.
func TestImportsAgainstTheDirectionAreRefused(t *testing.T) {
	for _, tt := range []struct {
		file, imported string
		refused        bool
	}{
		{"bus/redis/redis.go", "github.com/redis/go-redis/v9", false},
		{"bus/redis/redis.go", "parley/node", true},
		{"bus/bus.go", "github.com/redis/go-redis/v9", true},
		{"bus/bus.go", "parley/bus/redis", true},
		{"bus/memory/memory.go", "github.com/redis/go-redis/v9", true},
		{"bus/memory/memory.go", "parley/bus/redis", true},
		{"bus/id/id.go", "parley/bus", true},
		{"bus/redis/redis.go", "parley/bus/bustest", true},
		{"bus/redis/redis_test.go", "parley/bus/bustest", false},
		{"bus/bustest/redisserver.go", "github.com/redis/go-redis/v9", false},
		{"node/room.go", "github.com/redis/go-redis/v9", true},
		{"node/room.go", "parley/bus/redis", true},
		{"node/room.go", "parley/metrics", true},
		{"node/room.go", "parley/node/wire", false},
		{"node/room.go", "parley/node/client", true},
		{"node/room_test.go", "parley/node/client", false},
		{"node/client/client.go", "parley/node", true},
		{"node/wire/json.go", "parley/bus", true},
		{"metrics/metrics.go", "parley/node", true},
		{"metrics/metrics.go", "github.com/prometheus/client_golang/prometheus", false},
		{"node/server.go", "github.com/prometheus/client_golang/prometheus", true},
		{"node/server.go", "github.com/spf13/cobra", true},
		{"node/new/new.go", "parley/bus", true},
		{"node/room_test.go", "parley/cmd/parley-bench/load", true},
		{"cmd/parley/serve.go", "github.com/redis/go-redis/v9", false},
		{"cmd/parley/serve.go", "parley/metrics", false},
	} {
		if why := refuse(tt.file, tt.imported); (why != "") != tt.refused {
			t.Errorf("%s imports %s: %q", tt.file, tt.imported, why)
		}
	}
}
