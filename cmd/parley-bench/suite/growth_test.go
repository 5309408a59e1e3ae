package suite

import (
	"strings"
	"testing"

	"parley/cmd/parley-bench/load"
)

// What is compared must differ in nothing else: as many deliveries a second everywhere, and as many connections as the size
// of a room permits.
func TestGrowthComparesLikeWithLike(t *testing.T) {
	for _, quick := range []bool{false, true} {
		runs := Growth{Local{Quick: quick}}.runs()
		names := map[string]bool{}
		first := runs[0].plan
		for _, run := range runs {
			if names[run.name] {
				t.Errorf("%s is there twice", run.name)
			}
			names[run.name] = true
			p := run.plan
			if _, err := (load.Plan{
				URLs: []string{"ws://a"}, Rooms: p.Rooms, RoomSize: p.RoomSize, Rate: p.Rate,
			}).WithDefaults(); err != nil {
				t.Errorf("%s: %v", run.name, err)
			}
			if run.kind != KindLoad {
				continue
			}
			if got, want := p.Rate*float64(p.RoomSize), first.Rate*float64(first.RoomSize); got != want {
				t.Errorf("%s: %g deliveries/s, not %g", run.name, got, want)
			}
			if got, want := p.Connections(), max(first.Connections(), p.RoomSize); got != want {
				t.Errorf("%s: %d connections, not %d", run.name, got, want)
			}
		}
	}
}

func TestGrowthPrintsATableOfEachKind(t *testing.T) {
	report := GrowthReport{Machine: "2 cores", Rows: []GrowthRow{
		{
			Name: "rooms of 10 on 2 nodes", Kind: KindLoad, Nodes: 2, Rooms: 1000, RoomSize: 10, Rate: 2500, Deliveries: 25_010,
			NodesCPU: 31.26, RedisCPU: 3, P50: 0.61, P99: 8.84, NodesMemory: 6451,
		},
		{Name: "rooms of 10 on 4 nodes", Kind: KindLoad, Nodes: 4, Rooms: 1000, RoomSize: 10, Rate: 2500, Check: load.Check{Lost: 3}},
		{Name: "highest rate on 2 nodes", Kind: KindRamp, Nodes: 2, Rate: 1910, Deliveries: 1_910_000, P99: 65, NodesCores: 0.8},
		{
			Name: "10,000 come and go 3 times", Kind: KindIdle, Nodes: 2, NodesMemory: 6451, Connected: 9000, Joined: 12_000, NodesArrival: 81.3,
			Held: 100 << 20, Churn: []int64{110 << 20, 105 << 20, 112 << 20}, Left: 80 << 20,
		},
	}}
	var b strings.Builder
	if err := report.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n\n| members | rooms | nodes | messages/s | deliveries/s | nodes' CPU | Redis' CPU | p50 ms | p99 ms | KB per connection | check |\n" +
			"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n" +
			"| 10 | 1,000 | 2 | 2,500 | 25,010 | 31.3 | 3.00 | 0.61 | 8.84 | 6.30 | nothing lost |\n" +
			"| 10 | 1,000 | 4 |",
		"| 3 lost, 0 duplicated, 0 out of order |\n",
		"\n| 2 | 1,910 | 1,910,000 | 65.0 | 0 | 0.80 |",
		"\n| 10,000 come and go 3 times | 2 | 6.30 | 0 | 9,000 | 12,000 | 81.3 | 0 | 0 | 0 | 100 | 110, at last 112 | 80.0 | nothing lost |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %q in\n%s", want, b.String())
		}
	}
}
