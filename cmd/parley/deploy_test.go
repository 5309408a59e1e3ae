package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
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

// Of every alert there is a case in which it fires. All are quiet in the first case, which promtool runs.
func TestEveryAlertHasACase(t *testing.T) {
	rules, err := os.ReadFile(root + "/metrics/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile(root + "/metrics/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllSubmatch(rules, -1)
	if len(alerts) < 20 {
		t.Errorf("%d alerts were found, and there are more", len(alerts))
	}
	for _, alert := range alerts {
		fires := regexp.MustCompile(`alertname: ` + string(alert[1]) + `\n +eval_time: \w+\n +exp_alerts:[ &a-z]*\n +- exp_labels`)
		if !fires.Match(cases) {
			t.Errorf("%s fires in no case", alert[1])
		}
	}
}
