package load

import (
	"testing"
	"time"

	"parley/node/nodetest"
)

func TestNodesPass(t *testing.T) {
	forBothCodecs(t, func(t *testing.T, codec string) {
		for name, start := range map[string]func() *nodetest.Cluster{
			"plain": func() *nodetest.Cluster { return nodetest.Start(t, 2) },
			"TLS":   func() *nodetest.Cluster { return nodetest.StartTLS(t, 2) },
		} {
			t.Run(name, func(t *testing.T) {
				cluster := start()
				plan := small(cluster.Nodes[0].URL("/"), codec)
				plan.URLs = append(plan.URLs, cluster.Nodes[1].URL("/"))
				plan.Insecure = true
				report, err := Bench{Plan: plan}.Load(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if report.Load.Sent != 200 || report.Load.Delivered < 200*49 {
					t.Errorf("%d sent, %d delivered", report.Load.Sent, report.Load.Delivered)
				}
			})
		}
	})
}

func TestANodeThatIsKilledFailsTheRun(t *testing.T) {
	cluster := nodetest.Start(t, 2)
	plan := small(cluster.Nodes[0].URL("/"), V1)
	plan.URLs = append(plan.URLs, cluster.Nodes[1].URL("/"))
	plan.Duration, plan.Settle = 3*time.Second, time.Second
	killed := false
	b := Bench{Plan: plan, Progress: func(s Status) {
		if s.Delivered > 0 && !killed {
			killed = true
			cluster.Nodes[1].Kill()
		}
	}}
	report, err := b.Load(t.Context())
	if err == nil || report.Load.Check.Dropped != 100 || report.Load.Check.Lost == 0 {
		t.Fatalf("%v: %+v", err, report)
	}
}
