package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"parley/bus/bustest"
)

// composeFiles are docker-compose.yml and what may be laid over it.
var composeFiles = []string{root + "/docker-compose.yml", root + "/.deploy/sentinel.yml", root + "/.deploy/cluster.yml"}

// A redis-server takes the arguments that the files give it, and has what they say.
func TestDeployGivesRedisSettingsThatItTakes(t *testing.T) {
	command := regexp.MustCompile(`(?m)^ +command:.*\n((?: +- .*\n)*? +- redis-server\n(?: +- .*\n)*)`)
	for _, file := range composeFiles {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found := command.FindSubmatch(text)
			if found == nil {
				t.Fatal("no command of a redis-server")
			}
			var args []string
			for line := range strings.Lines(string(found[1])) {
				arg, _, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "-")), " #")
				arg = regexp.MustCompile(`\$\{[A-Z_]+:-(.*?)\}`).ReplaceAllString(strings.Trim(arg, `"`), "$1")
				args = append(args, strings.Replace(arg, "/etc/redis/", root+"/.deploy/redis/", 1))
			}
			args = args[slices.Index(args, "redis-server")+1:]
			testRedisTakes(t, args)
		})
	}
}

func testRedisTakes(t *testing.T, args []string) {
	dir, err := os.MkdirTemp("", "pd") // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bustest.StartRedis(t) // skips the test where there is none
	socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	cmd := exec.Command("redis-server", slices.Concat(args, []string{"--port", "0", "--unixsocket", socket, "--dir", dir, "--logfile", log})...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c := goredis.NewClient(&goredis.Options{Network: "unix", Addr: socket, Password: "parley", DisableIdentity: true})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for c.Ping(ctx).Err() != nil {
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log)
			t.Fatalf("it does not start with %v:\n%s", args, said)
		case <-time.After(10 * time.Millisecond):
		}
	}
	want := map[string]string{"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"} // of its file
	for i := 1; i+1 < len(args); i += 2 {
		want[strings.TrimPrefix(args[i], "--")] = args[i+1]
	}
	if want["maxmemory"] == "1gb" {
		want["maxmemory"] = "1073741824"
	}
	for name, value := range want {
		if got := c.ConfigGet(ctx, name).Val(); got[name] != value {
			t.Errorf("%s is %q, not %q", name, got[name], value)
		}
	}
}
