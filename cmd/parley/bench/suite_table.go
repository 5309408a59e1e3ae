package bench

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

// Print writes the suite's tables in Markdown.
func (r *SuiteReport) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. CPU is seconds per million deliveries; latency counts from when a message was due.\n", r.Machine)
	r.table(&b, KindLoad, "scenario | server | CPU | user | system | Redis | deliveries/s | p50 ms | p99 ms | check | generator CPU",
		func(row SuiteRow) string {
			if f := row.Floor; f != nil {
				return fmt.Sprintf("%s | %s | %s | | | | | | ",
					short(f.Cost.PerMillion()), short(f.Cost.UserPerMillion), short(f.Cost.SystemPerMillion))
			}
			l := row.Report.Load
			cost := row.cost()
			return fmt.Sprintf("%s | %s | %s | %s | %s | %s | %s | %s | %s",
				short(cost.PerMillion()), short(cost.UserPerMillion), short(cost.SystemPerMillion), row.redis(),
				short(l.DeliveriesPerSecond), short(l.Latency.P50), short(l.Latency.P99), outcome(l.Check), short(l.Self.PerMillion()))
		})
	r.table(&b, KindRamp, "scenario | server | messages/s | deliveries/s | p99 ms | CPU | Redis | generator CPU | generator cores",
		func(row SuiteRow) string {
			l := row.Report.Load
			return fmt.Sprintf("%s | %s | %s | %s | %s | %s | %s",
				short(l.Rate), short(l.DeliveriesPerSecond), short(l.Latency.P99), short(row.cost().PerMillion()), row.redis(),
				short(l.Self.PerMillion()), short(l.Self.Cores))
		})
	r.table(&b, KindIdle, "scenario | server | KB per connection | connected/s | joined/s",
		func(row SuiteRow) string {
			joins := "with connecting"
			if row.Report.Join.Count > 0 {
				joins = short(row.Report.Join.PerSecond())
			}
			return fmt.Sprintf("%s | %s | %s", short(row.memory()/1024), short(row.Report.Connect.PerSecond()), joins)
		})
	b.WriteString("\n| scenario | server | command |\n| --- | --- | --- |\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", row.Scenario, row.Server, row.Command)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table writes the rows of a kind, if there are any.
func (r *SuiteReport) table(b *strings.Builder, k Kind, head string, cells func(SuiteRow) string) {
	for i, row := range r.Rows {
		if row.kind() != k {
			continue
		}
		if head != "" {
			fmt.Fprintf(b, "\n| %s |\n|%s\n", head, strings.Repeat(" --- |", strings.Count(head, "|")+1))
			head = ""
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", r.Rows[i].Scenario, row.Server, cells(row))
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

// cost is what the chat servers used, without Redis.
func (r SuiteRow) cost() Cost {
	servers := r.Report.Load.Servers
	return cmp.Or(costNamed(servers, nodeProcess), servers[0])
}

// redis is what Redis used per million deliveries.
func (r SuiteRow) redis() string {
	if c := costNamed(r.Report.Load.Servers, redisProcess); c.Name != "" {
		return short(c.PerMillion())
	}
	return ""
}

// memory is what the chat servers hold for a connection, in bytes.
func (r SuiteRow) memory() float64 {
	return cmp.Or(memoryNamed(r.Report.Memory, nodeProcess), r.Report.Memory[0]).PerConnection
}

func outcome(c Check) string {
	if c.Count() == 0 {
		return "nothing lost"
	}
	return c.String()
}
