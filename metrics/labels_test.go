package metrics

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// constants gives the values of a file's constants whose names begin so, or that are of that type.
func constants(t *testing.T, path, prefix, kind string) (values []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		of, _ := spec.Type.(*ast.Ident)
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok && (prefix != "" && strings.HasPrefix(spec.Names[0].Name, prefix) || of != nil && of.Name == kind) {
			values = append(values, strings.Trim(lit.Value, `"`))
		}
		return true
	})
	if len(values) < 9 {
		t.Fatalf("%s has %v", path, values)
	}
	return values
}

// What a node tells has a series of its own, and is not among the others.
func TestWhatANodeTellsIsNotOther(t *testing.T) {
	_, m := newMetrics()
	for _, limit := range constants(t, "../node/limits.go", "limit", "") {
		if m.limited[limit] == nil {
			t.Errorf("the limit %s counts as other", limit)
		}
	}
	for _, code := range constants(t, "../node/wire/wire.go", "", "Code") {
		if m.rejected[code] == nil {
			t.Errorf("the error %s counts as other", code)
		}
	}
	for _, status := range constants(t, "../node/wire/wire.go", "Status", "") {
		if code, err := strconv.Atoi(status); err != nil || m.closed[code] == nil {
			t.Errorf("a close with %s counts as other (%v)", status, err)
		}
	}
}
