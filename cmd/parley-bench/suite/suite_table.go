package suite

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"parley/cmd/parley-bench/load"
)

// Print writes the suite's tables in Markdown.
func (r *SuiteReport) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. CPU is seconds per million deliveries; latency counts from when a message was due.\n", r.Machine)
	for _, k := range []Kind{KindLoad, KindRamp, KindIdle} {
		var rows [][]string
		for _, row := range r.Rows {
			if row.kind() == k {
				rows = append(rows, append([]string{row.Scenario, row.Server}, row.cells()...))
			}
		}
		if len(rows) > 0 {
			b.WriteString("\n" + table(append([]string{"scenario", "server"}, suiteHeads[k]...), rows))
		}
	}
	var commands [][]string
	for _, row := range r.Rows {
		commands = append(commands, []string{row.Scenario, row.Server, "`" + row.Command + "`"})
	}
	b.WriteString("\n" + table([]string{"scenario", "server", "command"}, commands))
	_, err := io.WriteString(w, b.String())
	return err
}

var suiteHeads = map[Kind][]string{
	KindLoad: {"CPU", "user", "system", "Redis", "balancer", "deliveries/s", "p50 ms", "p99 ms", "check", "generator CPU"},
	KindRamp: {"messages/s", "deliveries/s", "p99 ms", "CPU", "Redis", "generator CPU", "generator cores"},
	KindIdle: {"KB per connection", "balancer", "connected/s", "joined/s", "µs to come and join", "Redis, µs"},
}

func (r SuiteRow) cells() []string {
	if f := r.Floor; f != nil {
		return []string{
			load.Short(f.Cost.PerMillion()), load.Short(f.Cost.UserPerMillion), load.Short(f.Cost.SystemPerMillion),
			"", "", "", "", "", "", "",
		}
	}
	switch r.kind() {
	case KindRamp:
		l := r.Report.Load
		return []string{
			load.Short(l.Rate), load.Short(l.DeliveriesPerSecond), load.Short(l.Latency.P99), load.Short(r.cost().PerMillion()), r.part(redisProcess),
			load.Short(l.Self.PerMillion()), load.Short(l.Self.Cores),
		}
	case KindIdle:
		joins := "with connecting"
		if r.Report.Join.Count > 0 {
			joins = load.Short(r.Report.Join.PerSecond())
		}
		balancer := ""
		if m := load.MemoryNamed(r.Report.Memory, balancerProcess); m.Name != "" {
			balancer = load.Short(m.PerConnection / 1024)
		}
		return []string{
			load.Short(r.memory() / 1024), balancer, load.Short(r.Report.Connect.PerSecond()), joins,
			load.Short(costIn(r.Report.Arrival).PerMillion()), partOf(r.Report.Arrival, redisProcess),
		}
	}
	l, cost := r.Report.Load, r.cost()
	return []string{
		load.Short(cost.PerMillion()), load.Short(cost.UserPerMillion), load.Short(cost.SystemPerMillion), r.part(redisProcess), r.part(balancerProcess),
		load.Short(l.DeliveriesPerSecond), load.Short(l.Latency.P50), load.Short(l.Latency.P99), outcome(l.Check), load.Short(l.Self.PerMillion()),
	}
}

func (r SuiteRow) kind() Kind {
	switch {
	case r.Report != nil && r.Report.Idle != nil:
		return KindIdle
	case r.Report != nil && len(r.Report.Steps) > 0:
		return KindRamp
	}
	return KindLoad
}

// cost is what the chat servers used, without Redis and the load balancer.
func (r SuiteRow) cost() load.Cost { return costIn(r.Report.Load.Servers) }

func costIn(servers []load.Cost) load.Cost {
	return cmp.Or(load.CostNamed(servers, nodeProcess), servers[0])
}

// part is what one of the other processes used per million deliveries.
func (r SuiteRow) part(name string) string { return partOf(r.Report.Load.Servers, name) }

func partOf(servers []load.Cost, name string) string {
	if c := load.CostNamed(servers, name); c.Name != "" {
		return load.Short(c.PerMillion())
	}
	return ""
}

// memory is what the chat servers hold for a connection, in bytes.
func (r SuiteRow) memory() float64 {
	return cmp.Or(load.MemoryNamed(r.Report.Memory, nodeProcess), r.Report.Memory[0]).PerConnection
}

func outcome(c load.Check) string {
	if c.Count() == 0 {
		return "nothing lost"
	}
	return c.String()
}
