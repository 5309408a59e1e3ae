package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// over is a cluster of its own, beside c, with a file of .deploy laid over docker-compose.yml.
func (c *composed) over(t *testing.T, file string) *composed {
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	o := &composed{t: t, name: c.name + "-" + strings.TrimSuffix(file, ".yml"), lb: freeAddr(t), work: t.TempDir()}
	o.env = append(slices.Clone(c.env),
		"COMPOSE_PROJECT_NAME="+o.name,
		"COMPOSE_FILE="+filepath.Join(top, "docker-compose.yml")+":"+filepath.Join(top, ".deploy", file),
		"COMPOSE_ENV_FILES="+filepath.Join(o.work, ".env"),
	)
	o.set("PARLEY_PORT="+o.lb, "PARLEY_NODES=2", "PARLEY_DRAIN=3s", "REDIS_PASSWORD=composed")
	c.run(time.Minute, "docker", "tag", c.name+"-node", o.name+"-node")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := o.command("docker", "compose", "logs", "--tail", "20").CombinedOutput()
			t.Logf("%s", out)
		}
		o.run(2*time.Minute, "docker", "compose", "down", "--volumes", "--rmi", "local", "--timeout", "1")
	})
	return o
}

// With sentinels, and on a Redis Cluster, a primary that dies is replaced, and backups are whole or fail.
func (c *composed) testMoreThanOneRedis() {
	for file, services := range map[string][]string{
		"sentinel.yml": {"redis-2", "redis-3", "sentinel-1", "sentinel-2", "sentinel-3"},
		"cluster.yml":  {"redis-2", "redis-3", "redis-4", "redis-5", "redis-6", "cluster"},
	} {
		c.t.Run(file, func(t *testing.T) {
			o := c.over(t, file)
			up := slices.Concat([]string{"compose", "up", "--detach", "--no-build", "--wait", "node", "lb", "redis"}, services)
			o.run(3*time.Minute, "docker", up...)
			if t.Failed() {
				return
			}
			crowd := gather(t, 4, "ws://"+o.lb)
			crowd.awaitNodes(2)
			crowd.awaitTalk()
			backup := filepath.Join(o.work, "backup.tar")
			o.run(time.Minute, "./.deploy/backup", backup)

			primary := "redis" // of a third of the rooms, on a Cluster
			began := time.Now()
			o.run(time.Minute, "docker", "compose", "kill", primary)
			if file == "cluster.yml" {
				if said := o.fails("backup", backup); !strings.Contains(said, "of 16384 slots") {
					t.Errorf("the backup says %s", said)
				}
			}
			crowd.awaitTalk()
			t.Logf("all talk again %s after a primary was killed", time.Since(began).Round(100*time.Millisecond))
			o.await("a backup without the server that died", func() error {
				return o.command(filepath.Join(root, ".deploy/backup"), backup).Run()
			})
			o.run(time.Minute, "docker", "compose", "start", primary)
			o.await("the server that died to be a replica", func() error {
				const is = "redis-cli role | grep slave && redis-cli info replication | grep link_status:up"
				return o.command("docker", "compose", "exec", "-T", primary, "sh", "-c", is).Run()
			})
			if said := o.fails("restore", backup); !strings.Contains(said, "nothing was changed") {
				t.Errorf("a restore says %s", said)
			}
			crowd.awaitTalk()
			crowd.settle()
		})
	}
}
