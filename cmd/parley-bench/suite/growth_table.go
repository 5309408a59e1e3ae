package suite

import (
	"fmt"
	"io"
	"strings"

	"parley/cmd/parley-bench/load"
)

// Print writes the report's tables in Markdown.
func (r *GrowthReport) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. CPU is seconds per million deliveries; latency counts from when a message was due.\n", r.Machine)
	for _, k := range []Kind{KindLoad, KindRamp, KindIdle} {
		if table := r.Table(k); table != "" {
			b.WriteString("\n" + table)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Table is the table of the rows of a kind, "" if there are none.
func (r *GrowthReport) Table(k Kind) string {
	var rows [][]string
	for _, row := range r.Rows {
		if row.Kind == k {
			rows = append(rows, row.cells())
		}
	}
	return table(growthHeads[k], rows)
}

var growthHeads = map[Kind][]string{
	KindLoad: {
		"members", "rooms", "nodes", "messages/s", "deliveries/s", "nodes' CPU", "Redis' CPU", "p50 ms", "p99 ms", "KB per connection", "check",
	},
	KindRamp: {
		"nodes", "messages/s", "deliveries/s", "p99 ms", "nodes' CPU", "nodes' cores", "Redis' cores", "generator's cores", "check",
	},
	KindIdle: {
		"connections", "nodes", "KB each", "Redis, KB", "connected/s", "joined/s", "µs to come and join", "Redis, µs",
		"cores at rest", "Redis, cores", "MB of all, held", "come again", "gone", "check",
	},
}

func (r GrowthRow) cells() []string {
	kb := func(bytes float64) string { return load.Short(bytes / 1024) }
	mb := func(bytes int64) string { return load.Short(float64(bytes) / (1 << 20)) }
	switch r.Kind {
	case KindRamp:
		return []string{
			load.Grouped(r.Nodes), load.Short(r.Rate), load.Short(r.Deliveries), load.Short(r.P99), load.Short(r.NodesCPU),
			load.Short(r.NodesCores), load.Short(r.RedisCores), load.Short(r.GeneratorCores), outcome(r.Check),
		}
	case KindIdle:
		again := ""
		if n := len(r.Churn); n > 0 {
			again = fmt.Sprintf("%s, at last %s", mb(r.Churn[0]), mb(r.Churn[n-1]))
		}
		return []string{
			r.Name, load.Grouped(r.Nodes), kb(r.NodesMemory), kb(r.RedisMemory), load.Short(r.Connected), load.Short(r.Joined), load.Short(r.NodesArrival), load.Short(r.RedisArrival),
			load.Short(r.NodesCores), load.Short(r.RedisCores), mb(r.Held), again, mb(r.Left), outcome(r.Check),
		}
	}
	return []string{
		load.Grouped(r.RoomSize), load.Grouped(r.Rooms), load.Grouped(r.Nodes), load.Short(r.Rate), load.Short(r.Deliveries), load.Short(r.NodesCPU),
		load.Short(r.RedisCPU), load.Short(r.P50), load.Short(r.P99), kb(r.NodesMemory), outcome(r.Check),
	}
}
