package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"parley/cmd/internal/cli"

	"github.com/spf13/pflag"
)

// What .deploy and docker-compose.yml hand a node are flags and variables that it has: a mistyped variable would be ignored.
func TestDeployNamesWhatExists(t *testing.T) {
	serve, _, err := newRoot().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"PARLEY_REDIS": true}
	serve.LocalFlags().VisitAll(func(f *pflag.Flag) {
		known["--"+f.Name] = true
		known[cli.Variable(f)] = true
	})
	files := []string{root + "/docker-compose.yml"}
	for _, pattern := range []string{"kubernetes/*.yaml", "systemd/*"} {
		found, err := filepath.Glob(root + "/.deploy/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	names := map[string]*regexp.Regexp{
		".yaml":    regexp.MustCompile(`(?m)(?:\[serve, |, )(--[a-z-]+)=|name: (PARLEY_[A-Z_]+)$`),
		".service": regexp.MustCompile(`(?m)^ExecStart=.* (--[a-z-]+)|^Environment=(PARLEY_[A-Z_]+)`),
		".yml":     regexp.MustCompile(`(?ms)^  node:.*?^  lb:`),
	}
	handed := regexp.MustCompile(`(?m)^      (PARLEY_[A-Z_]+):`)
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		re := names[filepath.Ext(file)]
		if filepath.Ext(file) == ".yml" {
			text, re = re.Find(text), handed
		}
		for _, m := range re.FindAllStringSubmatch(string(text), -1) {
			name := m[1]
			if name == "" {
				name = m[2]
			}
			seen++
			if !known[name] {
				t.Errorf("%s names %s, which a node does not have", file, name)
			}
		}
	}
	if seen < 18 {
		t.Errorf("%d names were found, and there are more", seen)
	}
}
