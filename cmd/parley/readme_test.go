package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/metrics"
)

var update = flag.Bool("update", false, "write the tables of the README anew")

const readme = root + "/README.md"

// The README lists the flags of "parley serve" as they are.
func TestREADMEListsTheFlags(t *testing.T) {
	serve, _, err := newRoot().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| flag | variable | default | what it says |\n| --- | --- | --- | --- |\n")
	serve.LocalFlags().VisitAll(func(f *pflag.Flag) {
		fmt.Fprintf(&table, "| `--%s` | `%s` | %s | %s |\n", f.Name, cli.Variable(f), code(cli.Default(f)), cell(f.Usage))
	})
	keepTable(t, "flags", table.String())
}

// The README lists the metrics as they are exported, those of the Go runtime and of the process apart.
func TestREADMEListsTheMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics.New(reg, nil)
	metrics.RegisterHealth(reg, func() error { return nil }, func() time.Duration { return 0 })
	metrics.RegisterProcess(reg, "", "", "")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| metric | type | by | what it counts |\n| --- | --- | --- | --- |\n")
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "parley_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, code(l.GetName()))
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n",
			f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), cell(f.GetHelp()))
	}
	keepTable(t, "metrics", table.String())
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// keepTable compares what stands between the README's marks with the table, or writes it there.
func keepTable(t *testing.T, name, table string) {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	kept, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("README.md has no %s and %s", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	if kept == table {
		return
	}
	if *update {
		if err := os.WriteFile(readme, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("README.md has %s\nwrite it anew with: go test ./cmd/parley -run README -update", difference(kept, table))
}

// difference shows the first line that differs.
func difference(kept, table string) string {
	k, w := strings.Split(kept, "\n"), strings.Split(table, "\n")
	for i := range max(len(k), len(w)) {
		have, want := "", ""
		if i < len(k) {
			have = k[i]
		}
		if i < len(w) {
			want = w[i]
		}
		if have != want {
			return fmt.Sprintf("%s\nand not  %s", cmp.Or(have, "nothing"), cmp.Or(want, "nothing"))
		}
	}
	return "the same"
}

// The README's commands for curl say one thing once.
func TestREADMEsCurlSaysItOnce(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nme=$(")
	commands, _, ok := strings.Cut("me=$("+rest, "\n```")
	if !ok {
		t.Fatal("the README does not show how")
	}
	n := startNode(t)
	me, curl, _ := strings.Cut(strings.ReplaceAll(commands, "localhost:8765", n.addr()), "\n")
	said, err := exec.Command("sh", "-ec", me+"\n"+curl+" -fsS\n"+curl+" -fsS").Output()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if answers := strings.Fields(string(said)); len(answers) != 2 || answers[0] != answers[1] {
		t.Errorf("said twice, it is answered %q", answers)
	}
}
