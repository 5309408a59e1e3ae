package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// trouble is what goes wrong in a cluster while something else is tried.
type trouble struct {
	restarts *exec.Cmd // of a node, again and again
	crowd    *crowd    // as many as the load balancer takes
}

// testTrouble makes the trouble that testTold finds to be told: minutes go by until then. Someone is named as whom to tell, as the
// README says.
func (c *composed) testTrouble() {
	c.replace(".deploy/alertmanager/alertmanager.yml", "http://example.invalid/alerts", "http://"+receiver+":8080/")
	c.set("COMPOSE_PROFILES=alertmanager", "PARLEY_CLIENTS=20")
	c.run(time.Minute, "docker", "compose", "up", "--detach", "--wait", "--no-deps", "alertmanager", "lb", receiver)
	nodes := c.nodes()
	c.run(time.Minute, "docker", "kill", nodes[0])
	const again = `for i in 1 2 3 4 5 6 7; do docker restart --time 0 "$0"; sleep 8; done` // Prometheus looks every 5 s
	c.trouble.restarts = c.command("sh", "-c", again, nodes[1])
	if err := c.trouble.restarts.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.awaitEntry(101)
	c.trouble.crowd = gather(c.whole, 20, "ws://"+c.lb)
}

// Who is named is told, by Prometheus and Alertmanager, what was wrong for long enough; and to ask after health costs little.
func (c *composed) testTold() {
	if err := c.trouble.restarts.Wait(); err != nil {
		c.t.Error(err)
	}
	for _, alert := range []string{"ParleyNodesMissing", "ParleyRestarts", "ParleyBalancerFull"} {
		c.awaitFor(4*time.Minute, alert+" to be told", func() error {
			told := c.run(time.Minute, "docker", "compose", "logs", "--no-log-prefix", receiver)
			if !strings.Contains(told, `"alertname":"`+alert+`"`) || !strings.Contains(told, `"receiver":"someone"`) {
				return fmt.Errorf("told is %q", told)
			}
			return nil
		})
	}
	for _, service := range []string{"redis", "lb"} {
		c.testHealthIsSeldomAsked(service)
	}
	c.trouble.crowd.disperse()
	c.set("COMPOSE_PROFILES=", "PARLEY_CLIENTS=")
	c.run(time.Minute, "docker", "compose", "--profile", "*", "rm", "--force", "--stop", "alertmanager", receiver)
	c.run(time.Minute, "docker", "compose", "up", "--detach", "--wait", "--no-deps", "lb")
	c.documented("A node that died")
	c.awaitNodes(3)
}

// That Docker asks costs more than what it asks: what is well for minutes is asked every half minute.
func (c *composed) testHealthIsSeldomAsked(service string) {
	c.t.Helper()
	var is struct {
		StartedAt time.Time
		Health    struct {
			Status string
			Log    []struct{ Start, End time.Time }
		}
	}
	id := c.run(time.Minute, "docker", "compose", "ps", "--quiet", service)
	if err := json.Unmarshal([]byte(c.run(time.Minute, "docker", "inspect", "--format", "{{json .State}}", id)), &is); err != nil {
		c.t.Fatal(err)
	}
	n := len(is.Health.Log)
	if n == 0 || time.Since(is.StartedAt) < 2*time.Minute {
		c.t.Fatalf("%s is there for %s, and was asked %d times", service, time.Since(is.StartedAt), n)
	}
	for i := 1; i < n; i++ {
		before, now := is.Health.Log[i-1], is.Health.Log[i]
		if apart := now.Start.Sub(before.Start); before.Start.Sub(is.StartedAt) > time.Minute && apart < 25*time.Second {
			c.t.Errorf("%s was asked again after %s", service, apart)
		}
	}
	if is.Health.Status != "healthy" {
		c.t.Errorf("%s is %s", service, is.Health.Status)
	}
}

// replace changes a file of the checkout, as git does: there is another one then.
func (c *composed) replace(name, what, by string) {
	c.t.Helper()
	name = filepath.Join(c.checkout, name)
	text, err := os.ReadFile(name)
	if err != nil {
		c.t.Fatal(err)
	}
	if !strings.Contains(string(text), what) {
		c.t.Fatalf("%s has no %q", name, what)
	}
	if err := os.WriteFile(name+".new", []byte(strings.Replace(string(text), what, by, 1)), 0o644); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		c.t.Fatal(err)
	}
}

// Files that were replaced are taken by what runs, and what can't be read changes nothing. Who is connected stays.
func (c *composed) testFilesReplaced() {
	crowd := gather(c.t, 3, "ws://"+c.lb)
	const limit, more = "  bind :8404\n  maxconn 100\n", "  bind :8404\n  maxconn 101\n"
	const quiet, added = "- alert: ParleyDown\n", "- record: parley_rules_were_read_anew\n        expr: vector(7)\n      - alert: ParleyDown\n"
	c.replace(".deploy/haproxy/haproxy.cfg", limit, more)
	c.replace("metrics/rules.yml", quiet, added)
	c.documented("What is in files")
	c.awaitValue(`haproxy_frontend_limit_sessions{proxy="watch"}`, func(v float64) bool { return v == 101 })
	c.awaitValue("parley_rules_were_read_anew", func(v float64) bool { return v == 7 })

	c.replace(".deploy/haproxy/haproxy.cfg", more, "  bind :8404\n  no-such-word 101\n")
	c.documented("What is in files")
	c.await("the load balancer says that it can't read its file", func() error {
		logs := c.run(time.Minute, "docker", "compose", "logs", "--no-log-prefix", "--tail", "20", "lb")
		if !strings.Contains(logs, "no-such-word") {
			return fmt.Errorf("it says %s", logs)
		}
		return nil
	})
	c.awaitEntry(101)

	c.replace(".deploy/haproxy/haproxy.cfg", "  bind :8404\n  no-such-word 101\n", limit)
	c.replace("metrics/rules.yml", added, quiet)
	c.documented("What is in files")
	c.awaitValue(`haproxy_frontend_limit_sessions{proxy="watch"}`, func(v float64) bool { return v == 100 })
	crowd.awaitTalk()
	crowd.settle()
	if n := crowd.absences(); n > 0 {
		c.t.Errorf("%d connections were lost", n)
	}
}

// Another checkout has a name of its own; one of the same name does not take over what runs.
func (c *composed) testAnotherCheckout() {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "COMPOSE_") {
			env = append(env, v)
		}
	}
	another := func(name string) *composed {
		o := &composed{t: c.t, env: env, checkout: filepath.Join(c.t.TempDir(), name), standIns: c.standIns}
		o.work = o.checkout
		checkOut(c.t, c.checkout, o.checkout)
		o.set("REDIS_PASSWORD=another", "PARLEY_PORT="+freeAddr(c.t))
		return o
	}
	before := c.run(time.Minute, "docker", "compose", "ps", "--quiet")
	beside := another(c.name + "-beside")
	defer beside.run(time.Minute, "docker", "compose", "down", "--volumes", "--timeout", "1")
	beside.run(time.Minute, "docker", "compose", "up", "--detach", "redis")
	if in := beside.run(time.Minute, "docker", "compose", "ps", "--services"); in != "redis" {
		c.t.Errorf("the other cluster has %q", in)
	}
	if said := another(c.name).fails("rollout"); !strings.Contains(said, "runs from "+c.checkout) {
		c.t.Errorf("a checkout of the same name says %s", said)
	}
	if after := c.run(time.Minute, "docker", "compose", "ps", "--quiet"); after != before {
		c.t.Errorf("the containers were\n%s\nand are\n%s", before, after)
	}
}

// Settings that would end in an outage, or that nothing reads, are refused before anything is changed.
func (c *composed) testRefusedSettings() {
	file := filepath.Join(c.work, ".env")
	good, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, wrong := range [][2]string{
		{"PARLEY_NODE=5", "PARLEY_NODE in .env is no setting"},
		{"export REDIS_MAXMEMRY=1gb", "REDIS_MAXMEMRY in .env is no setting"},
		{"PARLEY_NODES=129", "128 nodes at most"},
		{"PARLEY_DRAIN=9m1s", "more than 9m"},
		{"REDIS_MAXMEMORY=1gib", "REDIS_MAXMEMORY is no number"},
		{"PARLEY_CLIENTS=9k", "the load balancer would not start"},
		{"PARLEY_LB_NOFILE=300", "the load balancer would not start"},
	} {
		c.set(wrong[0])
		if said := c.fails("rollout", "--check"); !strings.Contains(said, wrong[1]) {
			c.t.Errorf("%s: it says %s", wrong[0], said)
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	c.set("PARLEY_DRAIN=8m59.5s")
	c.run(time.Minute, "./.deploy/rollout", "--check")
	if err := os.WriteFile(file, good, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// interrupted starts a command of .deploy, and ends it, and who reads along, once it has said something.
func (c *composed) interrupted(at, signal, command string) {
	c.t.Helper()
	log := filepath.Join(c.t.TempDir(), "log")
	cmd := c.command("setsid", "sh", "-c", command+` 2>&1 | tee "$0"`, log)
	cmd.Dir = c.work
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.await(at, func() error {
		said, err := os.ReadFile(log)
		if err == nil && !strings.Contains(string(said), at) {
			err = fmt.Errorf("it says %s", said)
		}
		return err
	})
	c.run(time.Minute, "kill", "-"+signal, "--", fmt.Sprintf("-%d", cmd.Process.Pid))
	_ = cmd.Wait()
	if signal == "KILL" {
		if err := os.Remove(c.lock()); err != nil { // as it says to do
			c.t.Error(err)
		}
		return
	}
	c.await("what was done to be undone", func() error {
		if _, err := os.Stat(c.lock()); err == nil {
			return fmt.Errorf("%s is there", c.lock())
		}
		return nil
	})
}

// lock keeps rollouts and restores from another.
func (c *composed) lock() string { return filepath.Join(os.TempDir(), c.name+".rollout") }

// Ctrl-C, which ends who reads along too, and a kill in the middle: Redis has again what it had, and nobody misses anything.
func (c *composed) testInterruptedRestore(crowd *crowd, file string) {
	c.interrupted("redis-1  Stopping", "INT", "./.deploy/restore '"+file+"'")
	c.awaitEntry(101)
	crowd.awaitTalk()
	c.interrupted("redis-1  Starting", "KILL", "./.deploy/restore '"+file+"'")
	if said := c.fails("restore", file); !strings.Contains(said, "restore --undo") {
		c.t.Errorf("after one that was killed, a restore says %s", said)
	}
	c.run(2*time.Minute, "./.deploy/restore", "--undo")
	c.awaitEntry(101)
	crowd.awaitTalk()
	crowd.mu.Lock()
	defer crowd.mu.Unlock()
	for _, m := range crowd.members {
		if len(m.gaps) > 0 {
			c.t.Errorf("a client was told of %v", m.gaps)
		}
	}
}
