package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"parley/node/nodetest"
)

// recipe is the first block of code of a language in the README's section.
func recipe(t *testing.T, section, language string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "\n## "+section)
	_, rest, found2 := strings.Cut(rest, "\n```"+language+"\n")
	code, _, found3 := strings.Cut(rest, "\n```")
	if !found || !found2 || !found3 {
		t.Fatalf("README.md has no %s below %q", language, section)
	}
	return code
}

func TestTheWidgetOfTheREADMEWorksInAForeignPage(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	page := recipe(t, "A support widget", "html")
	if script := strings.Count(page, "\n") - 1; script > 15 {
		t.Errorf("the widget has %d lines", script)
	}
	page = strings.NewReplacer("https://chat.example.org", n.HTTP(""), "wss://chat.example.org", n.URL("")).Replace(page)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html>", page)
	}))
	t.Cleanup(s.Close)
	p := newTab(t)
	p.open(s.URL)
	say(t, n.Bus, "support", "Bo", "hello there")
	p.until(`document.querySelector("#said").textContent === "Bo: hello there"`)
	p.run(`document.querySelector("input").value = "help!"; document.querySelector("form").requestSubmit()`)
	p.until(`/^Bo: hello thereGuest \S{4}: help!$/.test(document.querySelector("#said").textContent)`)
	wantTexts(t, js[[]string](p, `import(%s).then(({ Parley }) => new Parley(%s).join("support").history()).then(({ messages }) => messages.map(({ text }) => text))`,
		n.HTTP("/parley.js"), n.URL("")), "hello there", "help!")
}

// The Go client can be used from a module that is not in this tree.
func TestTheGoRecipeIsBuiltElsewhere(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	// Its requirements are ours, so that nothing has to be looked up.
	text := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(string(mod), "module app")
	text = regexp.MustCompile(`(?ms)^tool (\(.*?^\)|[^(\n]*)$`).ReplaceAllString(text, "")
	text += fmt.Sprintf("\nrequire parley v0.0.0\n\nreplace parley => %s\n", root)
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": text, "go.sum": string(sum), "main.go": recipe(t, "The Go client", "go")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-o", "app", ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "app"), n.URL("/")).CombinedOutput()
	if err != nil || !regexp.MustCompile(`^\d+-\d+ <nil>\n$`).Match(out) {
		t.Errorf("it ends with %v, and said %q", err, out)
	}
}
