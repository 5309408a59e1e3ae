package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func (c *composed) testDashboard() {
	dashboard := readDashboard(c.t)
	var provisioned struct {
		Datasources []struct{ UID, Type, URL string }
		Providers   []struct{ Options struct{ Path string } }
	}
	for _, file := range []string{"datasources", "dashboards"} {
		text, err := os.ReadFile(root + "/.deploy/grafana/" + file + "/parley.yml")
		if err != nil {
			c.t.Fatal(err)
		}
		c.parseYAML(string(text), &provisioned)
	}
	if len(provisioned.Datasources) != 1 || provisioned.Datasources[0].UID != dashboard.Templating.List[0].Current.Value || len(provisioned.Providers) != 1 ||
		!strings.Contains(c.run(time.Minute, "docker", "compose", "config"), "target: "+provisioned.Providers[0].Options.Path+"\n") {
		c.t.Fatalf("Grafana is given %+v", provisioned)
	}

	crowd := gather(c.t, 3, "ws://"+c.lb)
	crowd.talk(100 * time.Millisecond)
	queries := 0
	for _, p := range dashboard.Panels {
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 {
			c.t.Errorf("the panel %q asks nothing of Prometheus", p.Title)
		}
		for _, target := range p.Targets {
			queries++
			expr := strings.NewReplacer("$__rate_interval", "20s", "$cluster", dashboard.Templating.List[1].AllValue).Replace(target.Expr)
			c.await(p.Title+": "+expr, func() error {
				values, err := c.query(expr)
				if err == nil && len(values) == 0 {
					err = errors.New("without an answer")
				}
				return err
			})
		}
	}
	crowd.settle()
	c.t.Logf("%d queries answered", queries)
	if queries < 20 {
		c.t.Error("those are few")
	}
}

func (c *composed) testAlerts() {
	_, body, err := get(c.watch + "/api/v1/rules?type=alert")
	if err != nil {
		c.t.Fatal(err)
	}
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data.Groups) == 0 {
		c.t.Fatalf("Prometheus has no rules: %s", body)
	}
	for _, rule := range answer.Data.Groups[0].Rules {
		if rule.Health != "ok" {
			c.t.Errorf("%s: %s %s", rule.Name, rule.Health, rule.LastError)
		}
	}
	promtool := []string{"compose", "run", "--rm", "--no-deps", "-T", "--entrypoint", "promtool", "prometheus"}
	for _, args := range [][]string{
		{"check", "config", "/etc/prometheus/prometheus.yml"},
		{"check", "rules", "/etc/prometheus/rules.yml"},
		{"test", "rules", "/etc/prometheus/rules_test.yml"},
	} {
		c.run(time.Minute, "docker", slices.Concat(promtool, args)...)
	}
}

// parseYAML has Compose read it, as an extension of a compose file.
func (c *composed) parseYAML(text string, into any) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "compose.yml")
	wrapped := "services: {}\nx-parsed:\n  " + strings.ReplaceAll(text, "\n", "\n  ") + "\n"
	if err := os.WriteFile(file, []byte(wrapped), 0o600); err != nil {
		c.t.Fatal(err)
	}
	out := c.run(time.Minute, "docker", "compose", "--file", file, "config", "--format", "json")
	if err := json.Unmarshal([]byte(out), &struct {
		Parsed any `json:"x-parsed"`
	}{into}); err != nil {
		c.t.Fatalf("%v in %s", err, out)
	}
}
