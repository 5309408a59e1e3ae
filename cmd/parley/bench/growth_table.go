package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
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
	var b strings.Builder
	for _, row := range r.Rows {
		if row.Kind != k {
			continue
		}
		cells := row.cells()
		if b.Len() == 0 {
			writeRow(&b, growthHeads[k])
			writeRow(&b, slices.Repeat([]string{"---"}, len(cells)))
		}
		writeRow(&b, cells)
	}
	return b.String()
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
	kb := func(bytes float64) string { return short(bytes / 1024) }
	mb := func(bytes int64) string { return short(float64(bytes) / (1 << 20)) }
	switch r.Kind {
	case KindRamp:
		return []string{
			Grouped(r.Nodes), short(r.Rate), short(r.Deliveries), short(r.P99), short(r.NodesCPU),
			short(r.NodesCores), short(r.RedisCores), short(r.GeneratorCores), outcome(r.Check),
		}
	case KindIdle:
		again := ""
		if n := len(r.Churn); n > 0 {
			again = fmt.Sprintf("%s, at last %s", mb(r.Churn[0]), mb(r.Churn[n-1]))
		}
		return []string{
			r.Name, Grouped(r.Nodes), kb(r.NodesMemory), kb(r.RedisMemory), short(r.Connected), short(r.Joined), short(r.NodesArrival), short(r.RedisArrival),
			short(r.NodesCores), short(r.RedisCores), mb(r.Held), again, mb(r.Left), outcome(r.Check),
		}
	}
	return []string{
		Grouped(r.RoomSize), Grouped(r.Rooms), Grouped(r.Nodes), short(r.Rate), short(r.Deliveries), short(r.NodesCPU),
		short(r.RedisCPU), short(r.P50), short(r.P99), kb(r.NodesMemory), outcome(r.Check),
	}
}

func writeRow(b *strings.Builder, cells []string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}
