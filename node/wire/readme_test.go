package wire

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The tests in this file keep README.md and the code in step.

func readme(tb testing.TB) string {
	tb.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// examples are the lines of the blocks marked with a side, "client" or "server".
func examples(tb testing.TB, side string) []string {
	var lines []string
	for _, block := range regexp.MustCompile("(?s)\n```json "+side+"\n(.*?)\n```").FindAllStringSubmatch(readme(tb), -1) {
		lines = append(lines, strings.Split(block[1], "\n")...)
	}
	if len(lines) == 0 {
		tb.Fatalf("README.md has no examples of the %s", side)
	}
	return lines
}

// table reads the rows of the table with that head, cell by cell.
func table(t *testing.T, head string) (rows [][]string) {
	t.Helper()
	_, rest, ok := strings.Cut(readme(t), "\n"+head+"\n")
	if !ok {
		t.Fatalf("README.md has no table with the head %s", head)
	}
	for _, line := range strings.Split(rest, "\n")[1:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		var cells []string
		for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows = append(rows, cells)
	}
	return rows
}

var quoted = regexp.MustCompile("`([a-z_]+)`")

// words are the names in a cell.
func words(cell string) []string {
	var names []string
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		names = append(names, m[1])
	}
	return names
}

func TestReadmeHasTheOpsAndTheirFields(t *testing.T) {
	names := func(list []field) (names []string) {
		for _, f := range list {
			names = append(names, fieldNames[f])
		}
		return names
	}
	rows := table(t, "| op | needs | may have | answered by |")
	if len(rows) != len(ops) {
		t.Errorf("README.md has %d ops, the code %d", len(rows), len(ops))
	}
	for i, row := range rows {
		op := ops[i]
		if row[0] != "`"+op.name+"`" || !slices.Equal(words(row[1]), names(op.needs)) || !slices.Equal(words(row[2]), names(op.takes)) {
			t.Errorf("README.md: %q\nthe code: %s needs %v, takes %v", row, op.name, names(op.needs), names(op.takes))
		}
	}
	var documented []string
	for _, row := range table(t, "| field | is | meaning |") {
		documented = append(documented, words(row[0])...)
	}
	for _, name := range fieldNames {
		if !slices.Contains(documented, name) {
			t.Errorf("README.md does not say what %q is", name)
		}
	}
}

func TestReadmeHasTheServersFrames(t *testing.T) {
	rows := table(t, "| op | always | sometimes | when |")
	_, section, _ := strings.Cut(readme(t), "### What a server says")
	seen := map[string]map[string]bool{} // op → field → seen in an example
	always := map[string][]string{}
	for _, row := range rows {
		op := strings.Trim(row[0], "`")
		seen[op], always[op] = map[string]bool{}, words(row[1])
		for _, name := range append(words(row[1]), words(row[2])...) {
			seen[op][name] = false
			if !strings.Contains(section, "`"+name+"`") {
				t.Errorf("README.md does not say what %q is", name)
			}
		}
	}
	for _, line := range examples(t, "server") {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		op := strings.Trim(string(fields["op"]), `"`)
		delete(fields, "op")
		for name := range fields {
			if _, ok := seen[op][name]; !ok {
				t.Errorf("the table lacks %q of %s", name, line)
			} else {
				seen[op][name] = true
			}
		}
		for _, name := range always[op] {
			if fields[name] == nil {
				t.Errorf("%q is not always in %s, as the table says: %s", name, op, line)
			}
		}
	}
	for op, names := range seen {
		for name, ok := range names {
			if !ok {
				t.Errorf("no example of %s has %q", op, name)
			}
		}
	}
}

func TestReadmesExamplesAreWhatTheCodeSays(t *testing.T) {
	for _, line := range examples(t, "client") {
		r, err := Parse([]byte(line), 4096)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if again := string(r.Append(nil)); again != line {
			t.Errorf("the code says\n%s, README.md\n%s", again, line)
		}
	}
	for _, line := range examples(t, "server") {
		f, err := ParseFrame([]byte(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if again := string(rewrite(f)); again != line {
			t.Errorf("the code says\n%s, README.md\n%s", again, line)
		}
	}
}

func TestReadmeHasTheLimits(t *testing.T) {
	limits := reflect.ValueOf(LimitsOf(4096, 500))
	rows := table(t, "| limit | value | of |")
	if len(rows) != limits.NumField() {
		t.Errorf("README.md has %d limits, welcome %d", len(rows), limits.NumField())
	}
	for i, row := range rows[:min(len(rows), limits.NumField())] {
		name, value := limits.Type().Field(i).Tag.Get("json"), strconv.FormatInt(limits.Field(i).Int(), 10)
		if row[0] != "`"+name+"`" || row[1] != value {
			t.Errorf("README.md: %s is %s; the code: %s is %s", row[0], row[1], name, value)
		}
	}
	if !strings.Contains(readme(t), "default "+strconv.Itoa(DefaultBacklog)) {
		t.Errorf("README.md lacks the default of limit, %d", DefaultBacklog)
	}
}

func TestReadmeHasTheCodes(t *testing.T) {
	codes, statuses := constants(t)
	var errorRows, closeRows []string
	for _, row := range table(t, "| code | means |") {
		errorRows = append(errorRows, words(row[0])...)
	}
	for _, row := range table(t, "| code | means | come back |") {
		closeRows = append(closeRows, row[0])
	}
	if !slices.Equal(errorRows, codes) {
		t.Errorf("README.md has the error codes %v, the code %v", errorRows, codes)
	}
	if !slices.Equal(closeRows, statuses) {
		t.Errorf("README.md has the close codes %v, the code %v", closeRows, statuses)
	}
}

// constants reads the error codes and the close codes out of the source.
func constants(t *testing.T) (codes, statuses []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "wire.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Code" {
			codes = append(codes, strings.Trim(lit.Value, `"`))
		} else if strings.HasPrefix(spec.Names[0].Name, "Status") {
			statuses = append(statuses, lit.Value)
		}
		return true
	})
	return codes, statuses
}
