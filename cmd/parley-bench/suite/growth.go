package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/cmd/parley-bench/load"
)

// A Growth measures how cost, latency and memory grow with the number of nodes and the size of the rooms, on local nodes that
// share a Redis. By default each measurement is made once.
type Growth struct{ Local }

// A GrowthReport is a Growth's result.
type GrowthReport struct {
	Machine string      `json:"machine"`
	Rows    []GrowthRow `json:"rows"`
}

// A GrowthRow is what one measurement found. What does not belong to its kind is zero. CPU is in seconds per million
// deliveries, cores are those that were busy on average, latency is in milliseconds and memory, which is resident, in bytes.
type GrowthRow struct {
	Name     string  `json:"name"`
	Kind     Kind    `json:"kind"`
	Nodes    int     `json:"nodes"`
	TLS      bool    `json:"tls,omitempty"`
	Rooms    int     `json:"rooms"`
	RoomSize int     `json:"room_size"`
	Rate     float64 `json:"messages_per_second,omitempty"`

	Deliveries float64 `json:"deliveries_per_second,omitempty"`
	P50        float64 `json:"p50_ms,omitempty"`
	P99        float64 `json:"p99_ms,omitempty"`
	NodesCPU   float64 `json:"nodes_cpu_seconds_per_million,omitempty"`
	RedisCPU   float64 `json:"redis_cpu_seconds_per_million,omitempty"`

	NodesCores     float64 `json:"nodes_cores"`
	RedisCores     float64 `json:"redis_cores"`
	GeneratorCores float64 `json:"generator_cores,omitempty"`

	NodesMemory  float64 `json:"nodes_bytes_per_connection"`
	RedisMemory  float64 `json:"redis_bytes_per_connection"`
	Connected    float64 `json:"connected_per_second"`
	Joined       float64 `json:"joined_per_second"`
	NodesArrival float64 `json:"nodes_cpu_us_per_arrival"` // CPU time of a connection that comes and joins
	RedisArrival float64 `json:"redis_cpu_us_per_arrival"`

	Held  int64   `json:"held_bytes,omitempty"`  // of all servers, in an idle run: everyone is there,
	Churn []int64 `json:"churn_bytes,omitempty"` // has come again, each time,
	Left  int64   `json:"left_bytes,omitempty"`  // and has gone

	Check load.Check `json:"check"`
}

// A growthRun is a measurement to be made.
type growthRun struct {
	scenario
	nodes  int
	tls    bool
	search load.Search // of a ramp
	churn  int         // how often all go and come again, in an idle run
}

// longestRun bounds one measurement.
const longestRun = 5 * time.Minute

// runs are the measurements: rooms of every size on so many nodes, the highest rates, and connections at rest. The rates make
// for the same number of deliveries a second in each.
func (g Growth) runs() (all []growthRun) {
	times := load.Plan{Warmup: 2 * time.Second, Duration: 10 * time.Second}
	step := load.Search{Step: 3 * time.Second, Close: 1.1}
	nodes, sizes, connections, deliveries := []int{1, 2, 4, 6}, []int{10, 100, 1000, 10_000, 20_000}, 10_000, 25_000
	holding, crowd, churn := 20*time.Second, 100_000, 10
	if g.Quick {
		times = load.Plan{Warmup: 500 * time.Millisecond, Duration: time.Second}
		step = load.Search{Step: 500 * time.Millisecond, Close: 2}
		nodes, sizes, connections, deliveries = []int{1, 2}, []int{10, 100}, 1000, 5000
		holding, crowd, churn = time.Second, 3000, 2
	}
	for _, size := range sizes {
		for _, n := range nodes {
			p := times
			p.Rooms, p.RoomSize, p.Rate = max(1, connections/size), size, float64(deliveries)/float64(size)
			name := fmt.Sprintf("rooms of %s on %s", load.Grouped(size), counted(n))
			all = append(all, growthRun{scenario: scenario{name, KindLoad, p}, nodes: n})
		}
	}
	for _, n := range nodes {
		p := load.Plan{Rooms: 1, RoomSize: 1000, Rate: 500, Warmup: times.Warmup}
		all = append(all, growthRun{scenario: scenario{"highest rate on " + counted(n), KindRamp, p}, nodes: n, search: step})
	}
	resting := func(what string, connections int) scenario {
		p := load.Plan{Rooms: connections / 10, RoomSize: 10, Duration: holding, Settle: 5 * times.Warmup / 2}
		return scenario{load.Grouped(connections) + " " + what, KindIdle, p}
	}
	most := nodes[len(nodes)-1]
	return append(all,
		growthRun{scenario: resting("idle", connections), nodes: 2},
		growthRun{scenario: resting("idle, with TLS", connections), nodes: 2, tls: true},
		growthRun{scenario: resting("idle", crowd/2), nodes: most / 2},
		growthRun{scenario: resting("idle", crowd), nodes: most},
		growthRun{scenario: resting(fmt.Sprintf("come and go %d times", churn), connections), nodes: 2, churn: churn},
	)
}

func counted(nodes int) string {
	if nodes == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", nodes)
}

// Run measures everything that the limit of open files allows. What fails, as nodes do that do not deliver everything, makes
// it fail, but the rest is measured all the same.
func (g Growth) Run(ctx context.Context) (*GrowthReport, error) {
	nothing := fmt.Errorf("nothing that can be measured has %q in its name", g.Only)
	runs := slices.DeleteFunc(g.runs(), func(run growthRun) bool { return !strings.Contains(run.name, g.Only) })
	if len(runs) == 0 {
		return nil, nothing
	}
	remove, err := g.build(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	report := &GrowthReport{Machine: machine()}
	var failed []error
	for _, run := range runs {
		if most := load.MaxSockets(); run.plan.Connections() > most*run.nodes {
			g.tell("%s: left out, as a node may have %s connections", run.name, load.Grouped(most))
			continue
		}
		row, err := g.measure(ctx, run)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", run.name, err))
		}
		if row.Name != "" {
			report.Rows = append(report.Rows, row)
		}
		if ctx.Err() != nil || len(report.Rows) == 0 {
			break // nothing else would go better
		}
	}
	switch {
	case len(report.Rows) > 0:
		return report, errors.Join(failed...)
	case failed != nil:
		return nil, errors.Join(failed...)
	}
	return nil, nothing
}

// measure makes a measurement as often as it is to be, and picks the median.
func (g Growth) measure(ctx context.Context, run growthRun) (row GrowthRow, err error) {
	var rows []GrowthRow
	for range max(1, g.Repeat) {
		g.tell("%s", run.name)
		row, err1 := g.once(ctx, run)
		if err1 != nil && !errors.Is(err1, load.ErrFailed) {
			return row, err1
		}
		err = cmp.Or(err, err1)
		rows = append(rows, row)
	}
	return median(rows), err
}

// once starts the servers, measures them and stops them.
func (g Growth) once(ctx context.Context, run growthRun) (GrowthRow, error) {
	ctx, cancel := context.WithTimeout(ctx, longestRun)
	defer cancel()
	servers, err := g.startNodes(ctx, run.nodes, run.tls)
	if err != nil {
		return GrowthRow{}, err
	}
	defer servers.stop()
	b := load.Bench{Plan: run.plan, Servers: servers.processes, Command: g.worker()}
	b.Plan.URLs, b.Plan.Insecure = servers.urls, run.tls

	report, err := find(ctx, b, run.kind, run.search, run.churn)
	if report == nil {
		return GrowthRow{}, err
	}
	return run.row(report), err
}

// row takes from a report what is to be compared.
func (run growthRun) row(r *load.Report) GrowthRow {
	row := GrowthRow{
		Name: run.name, Kind: run.kind, Nodes: run.nodes, TLS: run.tls, Rooms: r.Rooms, RoomSize: r.RoomSize,
		NodesMemory: load.MemoryNamed(r.Memory, nodeProcess).PerConnection, RedisMemory: load.MemoryNamed(r.Memory, redisProcess).PerConnection,
		Connected: r.Connect.PerSecond(), Joined: r.Join.PerSecond(),
		NodesArrival: load.CostNamed(r.Arrival, nodeProcess).PerMillion(), RedisArrival: load.CostNamed(r.Arrival, redisProcess).PerMillion(),
	}
	if l := r.Load; l != nil {
		nodes, redis := load.CostNamed(l.Servers, nodeProcess), load.CostNamed(l.Servers, redisProcess)
		row.Rate, row.Deliveries, row.P50, row.P99, row.Check = l.Rate, l.DeliveriesPerSecond, l.Latency.P50, l.Latency.P99, l.Check
		row.NodesCPU, row.RedisCPU = nodes.PerMillion(), redis.PerMillion()
		row.NodesCores, row.RedisCores, row.GeneratorCores = nodes.Cores, redis.Cores, l.Self.Cores
	}
	if i := r.Idle; i != nil {
		row.NodesCores, row.RedisCores = load.CostNamed(i.Servers, nodeProcess).Cores, load.CostNamed(i.Servers, redisProcess).Cores
		row.Held, row.Churn, row.Left = load.MemoryNamed(r.Memory, load.Together).After, i.Churn, load.MemoryNamed(i.Left, load.Together).After
		row.Check.Dropped = int64(i.Dropped)
	}
	row.round()
	return row
}

// round keeps four digits of each figure, more than a measurement is good for.
func (r *GrowthRow) round() {
	for _, f := range []*float64{
		&r.Rate, &r.Deliveries, &r.P50, &r.P99, &r.NodesCPU, &r.RedisCPU, &r.NodesCores, &r.RedisCores, &r.GeneratorCores,
		&r.NodesMemory, &r.RedisMemory, &r.Connected, &r.Joined, &r.NodesArrival, &r.RedisArrival,
	} {
		*f, _ = strconv.ParseFloat(strconv.FormatFloat(*f, 'g', 4, 64), 64)
	}
}

// figure is what the repetitions of a measurement are ordered by.
func (r GrowthRow) figure() float64 {
	switch r.Kind {
	case KindRamp:
		return r.Deliveries
	case KindIdle:
		return r.NodesMemory
	}
	return r.NodesCPU
}
