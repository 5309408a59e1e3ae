package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What was said before a backup is there after going back to it; what was said after it is not, and who heard it is told.
func (c *composed) testBackup() {
	crowd := gather(c.t, 3, "ws://"+c.lb)
	crowd.awaitTalk()
	c.documented("Backup")
	crowd.awaitTalk()
	crowd.settle()
	crowd.mu.Lock()
	heard := slices.Clone(crowd.members[0].heard)
	crowd.mu.Unlock()

	file := filepath.Join(c.work, "backup.tar")
	whole, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	c.testFailedBackup(file, whole)
	c.testFailedRestore(crowd, whole)
	c.testInterruptedRestore(crowd, file)

	c.documented("Restoring")
	c.awaitEntry(http.StatusSwitchingProtocols)
	late := gather(c.t, 1, "ws://"+c.lb)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kept, _, err := late.members[0].room.History(ctx, nil, len(heard))
	if err != nil {
		c.t.Fatal(err)
	}
	texts := make(map[string]bool)
	for _, m := range kept {
		texts[m.Text] = true
	}
	for i, h := range heard {
		if before := i < len(crowd.members); texts[h.text] != before {
			c.t.Errorf("message %d is kept: %v", i, texts[h.text])
		}
	}
	crowd.await("gaps", func() bool {
		return !slices.ContainsFunc(crowd.members, func(m *talker) bool { return len(m.gaps) == 0 })
	})
}

// A backup that fails says so, leaves the one before it as it was, and leaves nothing else, in Redis either.
func (c *composed) testFailedBackup(file string, before []byte) {
	redis := c.run(time.Minute, "docker", "compose", "ps", "--quiet", "redis")
	settings := func() string {
		return c.run(time.Minute, "docker", "exec", redis, "redis-cli", "config", "get", "*aof*")
	}
	leftOver := func() string {
		return c.run(time.Minute, "docker", "exec", redis, "sh", "-c", "ls -A /data | grep -v '^append' || true")
	}
	set := settings()
	check := func() {
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
			c.t.Errorf("the backup before it is another now: %d bytes instead of %d, %v", len(after), len(before), err)
		}
		if parts, _ := filepath.Glob(file + ".*"); len(parts) > 0 {
			c.t.Errorf("%v is left over", parts)
		}
	}

	// A file that the manifest names is gone: the copy can't be whole.
	const hide = "cd /data/appendonlydir && for f in *.incr.aof; do mv $f hidden; echo $f; done"
	name := c.run(time.Minute, "docker", "exec", redis, "sh", "-euc", hide)
	c.fails("backup", file)
	check()
	c.run(time.Minute, "docker", "exec", redis, "mv", "/data/appendonlydir/hidden", "/data/appendonlydir/"+name)

	c.run(time.Minute, "docker", "compose", "pause", "redis")
	cmd := c.command("timeout", "5", filepath.Join(c.checkout, ".deploy/backup"), file)
	if out, err := cmd.CombinedOutput(); err == nil {
		c.t.Errorf("a backup of a Redis that hangs succeeds:\n%s", out)
	}
	c.run(time.Minute, "docker", "compose", "unpause", "redis")
	check()
	c.awaitEntry(http.StatusSwitchingProtocols)
	c.run(time.Minute, "./.deploy/backup", filepath.Join(c.work, "another.tar"))
	if left := leftOver(); left != "" {
		c.t.Errorf("Redis's directory has %s", left)
	}
	if now := settings(); now != set {
		c.t.Errorf("Redis's settings were\n%s\nand are\n%s", set, now)
	}
}

// An archive that a server can't read is refused before anything is stopped.
func (c *composed) testFailedRestore(crowd *crowd, whole []byte) {
	away := crowd.absences()
	for name, content := range map[string][]byte{
		"cut":     whole[:len(whole)/2],
		"changed": bytes.ReplaceAll(whole, []byte("$3\r\n"), []byte("$9\r\n")),
		"other":   []byte("hello"),
	} {
		file := filepath.Join(c.t.TempDir(), name+".tar")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			c.t.Fatal(err)
		}
		if said := c.fails("restore", file); !strings.Contains(said, "nothing was changed") {
			c.t.Errorf("%s: %s", name, said)
		}
	}
	if n := crowd.absences(); n != away {
		c.t.Errorf("%d clients were sent away", n-away)
	}
}
