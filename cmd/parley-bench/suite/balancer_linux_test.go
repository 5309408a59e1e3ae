package suite

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"parley/cmd/parley-bench/load"
)

// What stands in .deploy is what is measured, with TLS and without.
func TestNodesAreMeasuredBehindHAProxy(t *testing.T) {
	for _, program := range []string{"haproxy", "redis-server"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skipf("no %s: apt-get install haproxy redis-server", program)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := Suite{Local{Self: self}}
	remove, err := s.build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	plan := load.Plan{Rooms: 2, RoomSize: 10, Rate: 100, Warmup: 100 * time.Millisecond, Duration: 500 * time.Millisecond}
	for _, config := range []string{"haproxy", "haproxy-tcp"} {
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprint(config, " tls=", tls), func(t *testing.T) {
				s := s
				s.TLS = tls
				behind := s.contenderBehind(filepath.Join("../../../.deploy", config, "haproxy.cfg"))
				row, err := s.measureServers(t.Context(), scenario{"a few", KindLoad, plan}, behind)
				if err != nil {
					t.Fatal(err)
				}
				if row.part(balancerProcess) == "" || row.part(redisProcess) == "" || row.cost().Name != nodeProcess {
					t.Errorf("it does not tell what each part used: %+v", row.Report.Load.Servers)
				}
				if row.Report.Load.DeliveriesPerSecond <= 0 {
					t.Errorf("%.0f deliveries a second", row.Report.Load.DeliveriesPerSecond)
				}
			})
		}
	}
}
