// Package suite measures nodes that it starts on this machine, and what they are compared with: a Suite in a few scenarios, a
// Growth with ever more nodes and rooms. Both start their servers (Local) and load them with package load.
package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"parley/cmd/parley-bench/load"
)

// A Suite measures two local nodes that share a Redis in a few scenarios, each beside the floor, a plain hub, and two hubs
// that share a Redis, in the same run. By default each measurement is made three times, if quick once.
type Suite struct{ Local }

// A SuiteReport is a suite's result.
type SuiteReport struct {
	Machine string     `json:"machine"`
	Rows    []SuiteRow `json:"rows"`
}

// A SuiteRow is one server in one scenario. What was not measured there is nil.
type SuiteRow struct {
	Scenario string            `json:"scenario"`
	Server   string            `json:"server"`
	Command  string            `json:"command"` // that measures the same on servers of one's own
	Floor    *load.FloorReport `json:"floor,omitempty"`
	Report   *load.Report      `json:"report,omitempty"`
}

// A scenario is a load and what it is to show.
type scenario struct {
	name string
	kind Kind
	plan load.Plan
}

// A Kind says what is to be found out.
type Kind string

// The kinds of scenarios.
const (
	KindLoad Kind = "load" // cost and latency at a rate
	KindRamp Kind = "ramp" // the highest rate
	KindIdle Kind = "idle" // memory
)

func (s Suite) scenarios() []scenario {
	times := load.Plan{Warmup: 3 * time.Second, Duration: 12 * time.Second}
	idlers := 10_000
	if s.Quick {
		times, idlers = load.Plan{Warmup: 500 * time.Millisecond, Duration: 1500 * time.Millisecond}, 2000
	}
	with := func(rooms, size int, rate float64) load.Plan {
		p := times
		p.Rooms, p.RoomSize, p.Rate = rooms, size, rate
		return p
	}
	large := with(1, 10_000, 2.5)
	large.Duration = max(large.Duration, 2*time.Second) // at least five messages
	if len(s.Behind) > 0 {
		large.RoomSize, idlers = min(large.RoomSize, mostBehind), min(idlers, mostBehind)
	}
	idling := with(idlers/10, 10, 0)
	idling.Duration = 3 * times.Warmup
	if s.Quick {
		idling.Settle = time.Second
	}
	return []scenario{
		{"room of 1,000, 25 messages/s", KindLoad, with(1, 1000, 25)},
		{"room of " + load.Grouped(large.RoomSize) + ", 2.5 messages/s", KindLoad, large},
		{"500 rooms of 10, 2,500 messages/s", KindLoad, with(500, 10, 2500)},
		{"highest rate, room of 1,000", KindRamp, with(1, 1000, 0)},
		{"idle, " + load.Grouped(idlers) + " in rooms of 10", KindIdle, idling},
	}
}

// Run measures everything. A server that fails the check fails the suite, but the rest is measured all the same.
func (s Suite) Run(ctx context.Context) (*SuiteReport, error) {
	if s.Repeat == 0 {
		s.Repeat = 3
		if s.Quick {
			s.Repeat = 1
		}
	}
	scenarios := slices.DeleteFunc(s.scenarios(), func(sc scenario) bool { return !strings.Contains(sc.name, s.Only) })
	if len(scenarios) == 0 {
		return nil, fmt.Errorf("no scenario's name has %q in it", s.Only)
	}
	remove, err := s.build(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	report := &SuiteReport{Machine: machine()}
	var failed []error
	for _, sc := range scenarios {
		rows, err := s.measure(ctx, sc)
		if err != nil && !errors.Is(err, load.ErrFailed) {
			return nil, fmt.Errorf("%s: %w", sc.name, err)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", sc.name, err))
		}
		report.Rows = append(report.Rows, rows...)
	}
	return report, errors.Join(failed...)
}

// find finds out what a kind says: with a search for a ramp, and with churn in an idle run.
func find(ctx context.Context, b load.Bench, k Kind, search load.Search, churn int) (*load.Report, error) {
	switch k {
	case KindRamp:
		return b.Ramp(ctx, search)
	case KindIdle:
		return b.Idle(ctx, churn)
	}
	return b.Load(ctx)
}

// machine says what is measured on.
func machine() string {
	return fmt.Sprintf("%d cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
}

// measure makes the measurements of a scenario, the servers taking turns, and picks each server's median.
func (s Suite) measure(ctx context.Context, sc scenario) (rows []SuiteRow, err error) {
	var measures []func() (SuiteRow, error)
	if sc.kind == KindLoad { // the floor is a cost at a rate
		measures = append(measures, func() (SuiteRow, error) { return s.measureFloor(ctx, sc) })
	}
	for _, c := range s.contenders(sc.kind) {
		measures = append(measures, func() (SuiteRow, error) { return s.measureServers(ctx, sc, c) })
	}
	all := make([][]SuiteRow, len(measures))
	for range s.Repeat {
		for i, measure := range measures {
			row, err1 := measure()
			if err1 != nil && !errors.Is(err1, load.ErrFailed) {
				return nil, err1
			}
			err = cmp.Or(err, err1)
			all[i] = append(all[i], row)
		}
	}
	for _, same := range all {
		rows = append(rows, median(same))
	}
	return rows, err
}

// median is the one in the middle, by what they are ordered by. It sorts them.
func median[R interface{ figure() float64 }](rows []R) R {
	slices.SortFunc(rows, func(a, b R) int { return cmp.Compare(a.figure(), b.figure()) })
	return rows[len(rows)/2]
}

// figure is what the repetitions of a measurement are ordered by.
func (r SuiteRow) figure() float64 {
	switch {
	case r.Floor != nil:
		return r.Floor.Cost.PerMillion()
	case r.Report.Idle != nil:
		return costIn(r.Report.Arrival).PerMillion()
	case len(r.Report.Steps) > 0:
		return r.Report.Load.DeliveriesPerSecond
	}
	return r.Report.Load.Servers[0].PerMillion()
}

func (s Suite) measureFloor(ctx context.Context, sc scenario) (SuiteRow, error) {
	s.tell("%s: floor", sc.name)
	f, err := load.Floor(ctx, sc.plan, 1, s.worker())
	return SuiteRow{Scenario: sc.name, Server: "floor", Floor: &f, Command: "parley-bench floor" + sc.flags()}, err
}

// A contender is servers that are measured.
type contender struct {
	name  string
	codec string
	first float64 // messages a second that a ramp begins at
	start func(context.Context) (*servers, error)
}

func (s Suite) contenders(k Kind) []contender {
	nodes := func(count int) func(context.Context) (*servers, error) {
		return func(ctx context.Context) (*servers, error) { return s.startNodes(ctx, count, false) }
	}
	all := []contender{
		{"plain hub", load.Text, 50, s.startHub},
		{"two hubs with Redis", load.Text, 50, func(ctx context.Context) (*servers, error) { return s.startShared(ctx, 2) }},
		{"two nodes", "", 500, nodes(2)},
	}
	if k == KindIdle { // coming also costs what is said to who comes, which is nothing to a hub's client
		all = append(
			all,
			contender{"one node", "", 500, nodes(1)},
			contender{"one node, the hub's client", load.Text, 500, nodes(1)},
			contender{"two nodes, the hub's client", load.Text, 500, nodes(2)},
		)
	}
	for _, config := range s.Behind {
		all = append(all, s.contenderBehind(config))
	}
	return all
}

func (s Suite) contenderBehind(config string) contender {
	name := "two nodes behind " + config
	if s.TLS {
		name += ", TLS"
	}
	return contender{name, "", 500, func(ctx context.Context) (*servers, error) { return s.behind(ctx, config) }}
}

func (s Suite) measureServers(ctx context.Context, sc scenario, c contender) (SuiteRow, error) {
	s.tell("%s: %s", sc.name, c.name)
	sc.plan.Codec = c.codec
	servers, err := c.start(ctx)
	if err != nil {
		return SuiteRow{}, err
	}
	defer servers.stop()
	return s.run(ctx, sc, c.name, servers, c.first)
}

// run measures servers in a scenario; a ramp begins at first messages a second.
func (s Suite) run(ctx context.Context, sc scenario, name string, servers *servers, first float64) (SuiteRow, error) {
	row := SuiteRow{Scenario: sc.name, Server: name, Command: "parley-bench " + string(sc.kind)}
	for i := range servers.urls {
		row.Command += fmt.Sprintf(" $URL%d --pid $PID%d", i+1, i+1)
	}
	row.Command += sc.flags()
	plan := sc.plan
	plan.URLs, plan.Insecure = servers.urls, strings.HasPrefix(servers.urls[0], "wss:")
	b := load.Bench{Plan: plan, Servers: servers.processes, Command: s.worker()}
	search := load.Search{Step: plan.Duration / 2}
	if sc.kind == KindRamp {
		b.Plan.Rate = first
		if s.Quick {
			search.Close = 1.5
		}
	}
	var err error
	row.Report, err = find(ctx, b, sc.kind, search, 0)
	if row.Report != nil {
		row.Report.Server = name
	} else if err == nil || errors.Is(err, load.ErrFailed) {
		err = errors.New("no report")
	}
	return row, err
}

// flags are what a scenario is on the command line.
func (sc scenario) flags() string {
	p := sc.plan
	flags := fmt.Sprintf(" --rooms %d --room-size %d", p.Rooms, p.RoomSize)
	if p.Rate > 0 {
		flags += fmt.Sprintf(" --rate %g", p.Rate)
	}
	if p.Codec != "" {
		flags += " --codec " + p.Codec
	}
	switch sc.kind {
	case KindRamp:
		flags += fmt.Sprintf(" --duration %v", p.Duration/2)
	case KindIdle:
		flags += fmt.Sprintf(" --duration %v", p.Duration)
	default:
		flags += fmt.Sprintf(" --warmup %v --duration %v", p.Warmup, p.Duration)
	}
	return flags
}
