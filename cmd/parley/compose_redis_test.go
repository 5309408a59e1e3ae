package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// over is a cluster of its own, beside c, with a file of .deploy laid over docker-compose.yml.
func (c *composed) over(t *testing.T, file string) *composed {
	o := &composed{t: t, name: c.name + "-" + strings.TrimSuffix(file, ".yml"), lb: freeAddr(t), work: t.TempDir(), checkout: c.checkout}
	o.env = append(slices.Clone(c.env),
		"COMPOSE_PROJECT_NAME="+o.name,
		"COMPOSE_FILE="+filepath.Join(o.checkout, "docker-compose.yml")+":"+filepath.Join(o.checkout, ".deploy", file),
		"COMPOSE_ENV_FILES="+filepath.Join(o.work, ".env"),
	)
	o.set("PARLEY_PORT="+o.lb, "PARLEY_NODES=2", "PARLEY_DRAIN=3s", "REDIS_PASSWORD=composed")
	if file == "sentinel.yml" {
		o.set("PARLEY_DATA_NET=10.231.78", "PARLEY_REDIS_REPLICAS=1")
	}
	o.run(time.Minute, "docker", "tag", c.name+"-node", o.name+"-node")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := o.command("docker", "compose", "logs", "--tail", "20").CombinedOutput()
			t.Logf("%s", out)
		}
		o.run(2*time.Minute, "docker", "compose", "down", "--volumes", "--rmi", "local", "--timeout", "1")
	})
	return o
}

// With sentinels, and on a Redis Cluster, a primary that dies is replaced, and backups are whole or fail. What there was at a backup
// comes back, whoever is the primary by then.
func (c *composed) testMoreThanOneRedis() {
	for file, services := range map[string][]string{
		"sentinel.yml": {"redis-2", "redis-3", "sentinel-1", "sentinel-2", "sentinel-3"},
		"cluster.yml":  {"redis-2", "redis-3", "redis-4", "redis-5", "redis-6", "cluster"},
	} {
		c.t.Run(file, func(t *testing.T) {
			t.Parallel() // both wait most of the time
			o := c.over(t, file)
			up := slices.Concat([]string{"compose", "up", "--detach", "--no-build", "--wait", "node", "lb", "redis"}, services)
			o.run(3*time.Minute, "docker", up...)
			if t.Failed() {
				return
			}
			if file == "sentinel.yml" {
				const at = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
				if got := o.run(time.Minute, "docker", "inspect", "--format", at, o.name+"-redis-1"); got != "10.231.78.11" {
					t.Errorf("redis is at %s", got)
				}
				used := o.run(time.Minute, "docker", "compose", "exec", "-T", "node", "/parley", "serve", "--check")
				if !regexp.MustCompile(`(?m)^--redis-replicas +1 +\$PARLEY_REDIS_REPLICAS$`).MatchString(used) {
					t.Errorf("a node uses\n%s", used)
				}
			}
			crowd := gather(t, 4, "ws://"+o.lb)
			crowd.awaitNodes(2)
			crowd.awaitTalk()
			first, backup := filepath.Join(o.work, "first.tar"), filepath.Join(o.work, "backup.tar")
			o.post("kept")
			o.run(3*time.Minute, "./.deploy/backup", first)
			o.post("lost")

			primary := "redis" // of a third of the rooms, on a Cluster
			began := time.Now()
			o.run(time.Minute, "docker", "compose", "kill", primary)
			if file == "cluster.yml" {
				out, err := o.command(filepath.Join(o.checkout, ".deploy/backup"), backup).CombinedOutput()
				if said := string(out); err == nil {
					t.Log("the replica has taken over before the backup began")
				} else if !strings.Contains(said, "of 16384 slots") && !strings.Contains(said, "meanwhile") {
					t.Errorf("the backup says %s", said)
				}
			}
			crowd.awaitTalk()
			t.Logf("all talk again %s after a primary was killed", time.Since(began).Round(100*time.Millisecond))
			o.await("a backup without the server that died", func() error {
				return o.command(filepath.Join(o.checkout, ".deploy/backup"), backup).Run()
			})
			o.run(time.Minute, "docker", "compose", "start", primary)
			o.await("the server that died to be a replica", func() error {
				const is = "redis-cli role | grep slave && redis-cli info replication | grep link_status:up"
				return o.command("docker", "compose", "exec", "-T", primary, "sh", "-c", is).Run()
			})
			crowd.awaitTalk()
			crowd.settle()
			o.testRestore(crowd, first, backup, slices.DeleteFunc(services, func(s string) bool { return !strings.HasPrefix(s, "redis") }))
		})
	}
}

// roomsOfAll are one room of each primary of a Redis Cluster.
var roomsOfAll = []string{"a", "b", "c"}

// post says a text in each of roomsOfAll.
func (o *composed) post(text string) {
	o.t.Helper()
	c := onOwnConnections(new(http.Transport))
	for _, room := range roomsOfAll {
		o.await(text, func() error {
			res, err := c.Post("http://"+o.lb+"/v1/rooms/"+room+"/messages", "application/json", strings.NewReader(`{"text": "`+text+`"}`))
			if err != nil {
				return err
			}
			defer res.Body.Close()
			if res.StatusCode/100 != 2 {
				return errors.New(res.Status)
			}
			return nil
		})
	}
}

// otherKind makes of a backup of a Redis Cluster one of one server, and the other way round.
func otherKind(t *testing.T, from, to string) {
	t.Helper()
	whole, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(bytes.NewReader(whole))
	part, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var other bytes.Buffer
	if strings.HasSuffix(part.Name, ".tar") {
		_, err = io.Copy(&other, r)
	} else {
		w := tar.NewWriter(&other)
		_ = w.WriteHeader(&tar.Header{Name: "0-16383.tar", Size: int64(len(whole)), Mode: 0o600})
		_, _ = w.Write(whole)
		err = w.Close()
	}
	if err == nil {
		err = os.WriteFile(to, other.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What one backup has is there after going back to it, on all servers. One that can't be taken changes nothing.
func (o *composed) testRestore(crowd *crowd, first, later string, others []string) {
	t := o.t
	away := crowd.absences()
	wrong := filepath.Join(t.TempDir(), "wrong.tar")
	otherKind(t, later, wrong)
	if said := o.fails("restore", wrong); !strings.Contains(said, "nothing was changed") {
		t.Errorf("a restore of another kind says %s", said)
	}
	if n := crowd.absences(); n != away {
		t.Errorf("%d clients were sent away", n-away)
	}
	o.run(8*time.Minute, "./.deploy/restore", first)
	o.awaitEntry(http.StatusSwitchingProtocols)
	for _, room := range roomsOfAll {
		_, said, err := get("http://" + o.lb + "/v1/rooms/" + room + "/messages")
		if err != nil || !strings.Contains(string(said), `"kept"`) || strings.Contains(string(said), `"lost"`) {
			t.Errorf("%s has %s, %v", room, said, err)
		}
	}
	crowd.await("gaps", func() bool {
		return !slices.ContainsFunc(crowd.members, func(m *talker) bool { return len(m.gaps) == 0 })
	})
	again := gather(t, 2, "ws://"+o.lb)
	again.awaitTalk()
	again.settle()
	replicas := 0
	for _, server := range append(others, "redis") {
		is := o.run(time.Minute, "docker", "compose", "exec", "-T", server, "sh", "-c", "redis-cli info replication; ls -A")
		if strings.Contains(is, "master_link_status:up") {
			replicas++
		}
		if strings.Contains(is, ".before") {
			t.Errorf("%s has something left over:\n%s", server, is)
		}
	}
	if want := map[int]int{3: 2, 6: 3}[len(others)+1]; replicas != want {
		t.Errorf("%d replicas follow, not %d", replicas, want)
	}
}
