package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// set adds lines to the .env of the cluster; a later line wins.
func (c *composed) set(lines ...string) {
	c.t.Helper()
	file, err := os.OpenFile(filepath.Join(c.work, ".env"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		c.t.Fatal(err)
	}
}

// fails runs a program of .deploy that must not succeed, and returns what it said.
func (c *composed) fails(name string, args ...string) string {
	c.t.Helper()
	cmd := c.command(filepath.Join(c.checkout, ".deploy", name), args...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		c.t.Errorf("%s %v succeeded:\n%s", name, args, out)
	}
	return string(out)
}

// version is what the nodes say that they are.
func (c *composed) version() string {
	c.t.Helper()
	var versions []string
	for _, node := range c.nodes() {
		versions = append(versions, strings.Fields(c.run(time.Minute, "docker", "exec", node, "/parley", "version"))[1])
	}
	slices.Sort(versions)
	return strings.Join(slices.Compact(versions), " ")
}

// onceEach fails the test unless every member had to come back exactly once, to nodes that have as many as each other.
func (c *composed) onceEach(crowd *crowd) {
	c.t.Helper()
	crowd.mu.Lock()
	defer crowd.mu.Unlock()
	for _, m := range crowd.members {
		if len(m.away) != 1 {
			c.t.Errorf("a client had to come back %d times", len(m.away))
		}
	}
	var on []int
	for _, n := range crowd.nodesLocked() {
		on = append(on, n)
	}
	if len(on) != 3 || slices.Max(on)-slices.Min(on) > len(crowd.members)/6 {
		c.t.Errorf("the nodes have %v clients", on)
	}
}

// replaced fails the test unless all nodes are others than before, and three.
func (c *composed) replaced(before []string) {
	c.t.Helper()
	after := c.nodes()
	if len(after) != 3 || slices.ContainsFunc(after, func(id string) bool { return slices.Contains(before, id) }) {
		c.t.Errorf("the containers were %v and are %v", before, after)
	}
	c.awaitNodes(3)
}

func (c *composed) testRollingRestart() {
	crowd := gather(c.t, 30, "ws://"+c.lb)
	crowd.awaitNodes(3)
	crowd.talk(time.Second)
	before, began := c.nodes(), time.Now()
	c.documented("Restarting")
	crowd.awaitTalk()
	crowd.settle()
	c.t.Logf("%s; restarting took %s", crowd.returns(began), time.Since(began).Round(time.Second))
	c.onceEach(crowd)
	c.replaced(before)
}

// An upgrade, and the way back.
func (c *composed) testUpgrade() {
	crowd := gather(c.t, 12, "ws://"+c.lb)
	crowd.awaitNodes(3)
	crowd.talk(200 * time.Millisecond)
	before, began := c.nodes(), time.Now()
	c.set("PARLEY_VERSION=v1-composed")
	c.documented("Upgrading")
	crowd.awaitTalk()
	c.t.Logf("%s", crowd.returns(began))
	c.onceEach(crowd)
	c.replaced(before)
	if v := c.version(); v != "v1-composed" {
		c.t.Errorf("the nodes are %s", v)
	}

	before = c.nodes()
	c.documented("Going back")
	crowd.awaitTalk()
	crowd.settle()
	c.replaced(before)
	if v := c.version(); v != "v0-composed" {
		c.t.Errorf("the nodes are %s after going back", v)
	}
}

// What can't start takes nobody's place: not one that ends, and not one that is never ready.
func (c *composed) testFailedUpgrade() {
	crowd := gather(c.t, 6, "ws://"+c.lb)
	crowd.awaitNodes(3)
	crowd.talk(200 * time.Millisecond)
	before := c.nodes()
	image := c.run(time.Minute, "docker", "image", "inspect", "--format", "{{.Id}}", c.name+"-node")

	c.set("PARLEY_VERSION=v2-composed", "PARLEY_HISTORY_SIZE=-1")
	if said := c.fails("rollout", "--build"); !strings.Contains(said, "--history-size must be") {
		c.t.Errorf("it does not say why:\n%s", said)
	}
	c.set("PARLEY_VERSION=v0-composed", "PARLEY_HISTORY_SIZE=5000", "REDIS_PASSWORD=another")
	c.fails("rollout", "--wait", "5")
	c.set("REDIS_PASSWORD=composed", "PARLEY_NODES=2")
	c.fails("rollout")
	c.set("PARLEY_NODES=3")
	c.interrupted("starting 3 new nodes", "INT", "./.deploy/rollout")

	crowd.awaitTalk()
	crowd.settle()
	if n := crowd.absences(); n > 0 {
		c.t.Errorf("%d connections were lost", n)
	}
	if after := c.nodes(); !slices.Equal(before, after) {
		c.t.Errorf("the containers were %v and are %v", before, after)
	}
	if now := c.run(time.Minute, "docker", "image", "inspect", "--format", "{{.Id}}", c.name+"-node"); now != image {
		c.t.Error("the image that can't start is the one that a node would be made from")
	}
	c.awaitNodes(3)
}
