package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
		known[cli.Variable(f)+"_FILE"] = true
	})
	files := slices.Clone(composeFiles)
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
		".yml":     regexp.MustCompile(`(?ms)^  node:.*?^  (?:lb|redis):`),
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

// Passwords and keys lie beside what git keeps.
func TestGitIgnoresSecrets(t *testing.T) {
	said, err := os.ReadFile(root + "/.gitignore")
	if err != nil {
		t.Fatal(err)
	}
	ignored := strings.Fields(string(said))
	for _, secret := range []string{"/.env", "/certs/", "/.deploy/kubernetes/redis.env"} {
		if !slices.Contains(ignored, secret) {
			t.Errorf("%s is not ignored", secret)
		}
	}
}

// Of every alert there is a case in which it fires. All are quiet in the first case, which promtool runs, and which has what they look at.
func TestEveryAlertHasACase(t *testing.T) {
	rules, err := os.ReadFile(root + "/metrics/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile(root + "/metrics/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, healthy, _ := strings.Cut(string(cases), "a healthy cluster is quiet")
	healthy, _, _ = strings.Cut(healthy, "promql_expr_test:")
	alerts := regexp.MustCompile(`(?ms)- alert: (\w+)$\n +expr:(.*?)^ +labels:`).FindAllSubmatch(rules, -1)
	if all := strings.Count(string(rules), "- alert: "); len(alerts) != all {
		t.Errorf("%d of %d alerts are read", len(alerts), all)
	}
	if len(alerts) < 20 {
		t.Errorf("%d alerts were found, and there are more", len(alerts))
	}
	for _, alert := range alerts {
		fires := regexp.MustCompile(`alertname: ` + string(alert[1]) + `\n +eval_time: \w+\n +exp_alerts:[ &a-z]*\n +- exp_labels`)
		if !fires.Match(cases) {
			t.Errorf("%s fires in no case", alert[1])
		}
		for _, series := range regexp.MustCompile(`\b(?:parley|haproxy|redis|process|node|go)_\w+|\bup\b`).FindAllString(string(alert[2]), -1) {
			if !strings.Contains(healthy, "'"+series+"{") && !strings.Contains(healthy, "'"+series+"'") {
				t.Errorf("%s is quiet in the first case, which has no %s", alert[1], series)
			}
		}
	}
}

// A dashboard is what is asked of Prometheus.
type dashboard struct {
	Templating struct {
		List []struct {
			Name, Type, AllValue string
			Current              struct{ Value string }
		}
	}
	Panels []struct {
		Type, Title string
		Datasource  struct{ UID string }
		Targets     []struct{ Expr, LegendFormat string }
		FieldConfig struct {
			Defaults struct {
				Thresholds struct {
					Steps []struct {
						Color string
						Value float64
					}
				}
			}
		}
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(root + "/metrics/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// A node may come at the address of one that is gone, of which Prometheus has series for some time still: a query that names what answers
// there asks for the latest.
func TestTheDashboardNamesTheLatestNodeAtAnAddress(t *testing.T) {
	const join, latest = "group_left (node) ", `(topk by (cluster, instance) (1, timestamp(parley_build_info{cluster=~"$cluster"})) > bool 0)`
	joins := 0
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			if n := strings.Count(target.Expr, join); n > 0 {
				joins += n
				if strings.Count(target.Expr, join+latest) != n {
					t.Errorf("%s: %s", p.Title, target.Expr)
				}
			}
		}
	}
	if joins < 9 {
		t.Errorf("%d queries name nodes, and there are more", joins)
	}
}

// What an operator looks for is on the dashboard.
func TestDashboardShows(t *testing.T) {
	var asked strings.Builder
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			asked.WriteString(target.Expr + "\n")
		}
	}
	for what, exprs := range map[string][]string{
		"the version":                            {`by (version, revision) (parley_build_info`},
		"restarts":                               {`changes(process_start_time_seconds`},
		"the load balancer's sessions and limit": {`haproxy_frontend_current_sessions`, `haproxy_frontend_limit_sessions`},
		"the CPU of all parts":                   {`by (job) (rate(process_cpu_seconds_total`, `redis_cpu_`, `haproxy_process_idle_time_percent`},
		"the memory of all parts":                {`by (job) (process_resident_memory_bytes`, `redis_memory_used_rss_bytes`, `haproxy_process_pool_allocated_bytes`},
		"the disk":                               {`node_filesystem_avail_bytes`},
		"rooms":                                  {`parley_rooms`},
	} {
		for _, expr := range exprs {
			if !strings.Contains(asked.String(), expr) {
				t.Errorf("%s: nothing asks for %s", what, expr)
			}
		}
	}
}

// The dashboard shows one cluster of those that a Prometheus knows, from whichever Prometheus, and calls nodes what they call themselves.
func TestDashboardAsksOfOneClusterAndNamesNodes(t *testing.T) {
	d := readDashboard(t)
	if v := d.Templating.List; len(v) != 2 || v[0].Name != "datasource" || v[1].Name != "cluster" {
		t.Fatalf("its variables are %+v", v)
	}
	series := regexp.MustCompile(`\b((?:parley|haproxy|redis|process|node)_[A-Za-z_]+|ALERTS|up)\b(\{cluster=~"\$cluster")?`)
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" {
			t.Errorf("%s asks %q", p.Title, p.Datasource.UID)
		}
		for _, target := range p.Targets {
			for _, s := range series.FindAllStringSubmatch(target.Expr, -1) {
				if s[2] == "" {
					t.Errorf("%s asks for %s of all clusters", p.Title, s[1])
				}
			}
			if strings.Contains(target.LegendFormat, "{{instance}}") {
				t.Errorf("%s calls nodes by their address", p.Title)
			}
		}
		if p.Title == "Nodes ready" {
			for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
				if step.Color == "green" && step.Value < 1 {
					t.Errorf("%s is green at %v", p.Title, step.Value)
				}
			}
		}
	}
}
