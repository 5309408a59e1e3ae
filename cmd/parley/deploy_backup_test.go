package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// engine is a docker for .deploy/backup: of two servers and two sentinels, which say that the primary is the one in the file primary, and
// that it is the one in the file next as soon as the first was copied.
const engine = `#!/bin/sh
cd "$(dirname "$0")"
primary=$(cat primary)
case "$*" in
"compose config") echo 'name: parley' ;;
"compose config --images redis") echo redis ;;
ps*) printf 'redis 1\nredis-2 2\nsentinel-1 s1\nsentinel-2 s2\n' ;;
"exec s"*) printf '10.0.0.%s\n6379\n' "$primary" ;;
"exec -i $primary "*) tar -c next && cp next primary ;;
"exec $primary "*) printf 'master\nstandalone\n10.0.0.%s\n' "$2" ;;
exec*) printf 'slave\nstandalone\n10.0.0.%s\n' "$2" ;;
run*) cat >/dev/null && echo 3 ;;
esac
`

// What a server held that is not the primary any more once it was copied is no backup: the one before it stays.
func TestABackupIsOfTheServerThatIsThePrimaryAllTheTime(t *testing.T) {
	for next, fails := range map[string]bool{"1": false, "2": true} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "backup.tar")
			for name, text := range map[string]string{"docker": engine, "primary": "1", "next": next, "backup.tar": "before"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(filepath.Join(root, ".deploy/backup"), file)
			cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
			out, err := cmd.CombinedOutput()
			text, _ := os.ReadFile(file)
			if said := string(out); (err != nil) != fails || strings.Contains(said, "took over") != fails || (string(text) == "before") != fails {
				t.Errorf("%v: %s; the file has %d bytes", err, said, len(text))
			}
			if parts, _ := filepath.Glob(file + ".*"); len(parts) > 0 {
				t.Errorf("%v is left over", parts)
			}
		})
	}
}
