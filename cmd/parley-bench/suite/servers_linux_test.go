package suite

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/cmd/parley-bench/hub"
	"parley/cmd/parley-bench/load"
	"parley/node/nodetest"
)

// TestMain lets the test's executable serve as a worker and as the plain hub, as that of parley-bench does.
func TestMain(m *testing.M) {
	var err error
	switch args := strings.Join(os.Args[1:], " "); {
	case args == "worker":
		err = load.Work(context.Background(), os.Stdin, os.Stdout)
	case strings.HasPrefix(args, "hub --listen "):
		var ln net.Listener
		if ln, err = net.Listen("tcp", os.Args[3]); err == nil {
			err = hub.Serve(context.Background(), ln, "") // until it is killed
		}
	default:
		goleak.VerifyTestMain(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// BenchmarkServers compares what a delivery costs the bare write(2), the plain hub, and two nodes on a bus in memory, in one
// run. The generator's processes are not counted. The suite compares nodes that share a Redis, as processes of their own.
func BenchmarkServers(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		plan load.Plan
	}{
		{"room=1000", load.Plan{RoomSize: 1000, Rate: 25}},
		{"rooms=500x10", load.Plan{Rooms: 500, RoomSize: 10, Rate: 2500}},
	} {
		plan := tt.plan
		plan.Warmup, plan.Duration = 500*time.Millisecond, 2*time.Second
		b.Run(tt.name+"/floor", func(b *testing.B) {
			for b.Loop() {
				f, err := load.Floor(b.Context(), plan, 1, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(f.Cost.PerMillion(), "CPU-s/Mdeliveries")
			}
		})
		b.Run(tt.name+"/hub", func(b *testing.B) {
			servers, err := Local{Self: self}.startHub(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer servers.stop()
			plan := plan
			plan.URLs, plan.Codec = servers.urls, load.Text
			benchmarkLoad(b, plan, servers.processes)
		})
		b.Run(tt.name+"/nodes", func(b *testing.B) {
			cluster := nodetest.Start(b, 2)
			plan := plan
			plan.URLs = []string{cluster.Nodes[0].URL("/"), cluster.Nodes[1].URL("/")}
			benchmarkLoad(b, plan, []load.Process{{Name: load.Together, PID: os.Getpid()}})
		})
	}
}

func benchmarkLoad(b *testing.B, plan load.Plan, processes []load.Process) {
	for b.Loop() {
		report, err := load.Bench{Plan: plan, Servers: processes, Workers: 2}.Load(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		l := report.Load
		b.ReportMetric(l.Servers[0].PerMillion(), "CPU-s/Mdeliveries")
		b.ReportMetric(l.DeliveriesPerSecond, "deliveries/s")
		b.ReportMetric(l.Latency.P50, "p50-ms")
		b.ReportMetric(l.Latency.P99, "p99-ms")
		b.ReportMetric(report.Memory[0].PerConnection, "B/conn")
	}
}
