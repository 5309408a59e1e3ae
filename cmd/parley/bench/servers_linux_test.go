package bench

import (
	"os"
	"testing"
	"time"

	"parley/node/nodetest"
)

// BenchmarkServers compares what a delivery costs the bare write(2), the plain hub, and two nodes on a bus in memory, in one
// run. The generator's processes are not counted. The suite compares nodes that share a Redis, as processes of their own.
func BenchmarkServers(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, load := range []struct {
		name string
		plan Plan
	}{
		{"room=1000", Plan{RoomSize: 1000, Rate: 25}},
		{"rooms=500x10", Plan{Rooms: 500, RoomSize: 10, Rate: 2500}},
	} {
		plan := load.plan
		plan.Warmup, plan.Duration = 500*time.Millisecond, 2*time.Second
		b.Run(load.name+"/floor", func(b *testing.B) {
			for b.Loop() {
				f, err := Floor(b.Context(), plan, 1, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(f.Cost.PerMillion(), "CPU-s/Mdeliveries")
			}
		})
		b.Run(load.name+"/hub", func(b *testing.B) {
			servers, err := Local{Program: self}.startHub(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer servers.stop()
			plan := plan
			plan.URLs, plan.Codec = servers.urls, Text
			benchmarkLoad(b, plan, servers.processes)
		})
		b.Run(load.name+"/nodes", func(b *testing.B) {
			cluster := nodetest.Start(b, 2)
			plan := plan
			plan.URLs = []string{cluster.Nodes[0].URL("/"), cluster.Nodes[1].URL("/")}
			benchmarkLoad(b, plan, []Process{{Together, os.Getpid()}})
		})
	}
}

func benchmarkLoad(b *testing.B, plan Plan, processes []Process) {
	for b.Loop() {
		report, err := Bench{Plan: plan, Servers: processes, Workers: 2}.Load(b.Context())
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
