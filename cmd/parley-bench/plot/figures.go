package main

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/plot/plotter"

	"parley/cmd/parley-bench/load"
	"parley/cmd/parley-bench/suite"
)

// A figure is a drawing to be made.
type figure struct {
	file        string
	title, x, y string
	logX, logY  bool
	left        bool // the lines leave room for the legend at the top left, otherwise at the top right
	lines       []line
}

// A line is what one name stands for, from left to right.
type line struct {
	name   string
	points plotter.XYs
}

func figures(rows []suite.GrowthRow) []figure {
	loads := of(rows, suite.KindLoad)
	const members, nodes = "members of a room", "nodes"
	at := ""
	if len(loads) > 0 { // the same in all of them
		at = fmt.Sprintf(" at %s deliveries a second", load.Grouped(int(math.Round(loads[0].Rate*size(loads[0])))))
	}
	return []figure{
		{
			file: "cpu.svg", title: "What a delivery costs the nodes", x: members, y: "CPU seconds per million deliveries", logX: true,
			lines: lines(loads, nodesOf, size, func(r suite.GrowthRow) float64 { return r.NodesCPU }),
		},
		{
			file: "latency.svg", title: "Latency" + at, x: members, y: "99th percentile, ms", logX: true, logY: true, left: true,
			lines: lines(loads, nodesOf, size, func(r suite.GrowthRow) float64 { return r.P99 }),
		},
		{
			file: "redis.svg", title: "What a message costs Redis, in rooms of ten", x: nodes, y: "CPU time per message, µs",
			lines: lines(small(loads), unnamed, count, func(r suite.GrowthRow) float64 { return r.RedisCPU * float64(r.RoomSize) }),
		},
		{
			file: "memory.svg", title: "Memory of the nodes", x: nodes, y: "KB per connection", left: true,
			lines: lines(loads, sizeOf, count, func(r suite.GrowthRow) float64 { return r.NodesMemory / 1024 }),
		},
		{
			file: "ramp.svg", title: "The most in a room of 1,000, on one machine", x: nodes, y: "million deliveries/s with p99 < 200 ms",
			lines: lines(of(rows, suite.KindRamp), unnamed, count, func(r suite.GrowthRow) float64 { return r.Deliveries / 1e6 }),
		},
	}
}

// lines puts the rows into lines by name, in the order in which they come.
func lines(rows []suite.GrowthRow, name func(suite.GrowthRow) string, x, y func(suite.GrowthRow) float64) (all []line) {
	number := map[string]int{}
	for _, r := range rows {
		i, known := number[name(r)]
		if !known {
			i = len(all)
			number[name(r)] = i
			all = append(all, line{name: name(r)})
		}
		all[i].points = append(all[i].points, plotter.XY{X: x(r), Y: y(r)})
	}
	return all
}

func size(r suite.GrowthRow) float64  { return float64(r.RoomSize) }
func count(r suite.GrowthRow) float64 { return float64(r.Nodes) }

func nodesOf(r suite.GrowthRow) string {
	if r.Nodes == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", r.Nodes)
}

func unnamed(suite.GrowthRow) string { return "" }

func sizeOf(r suite.GrowthRow) string { return "rooms of " + load.Grouped(r.RoomSize) }

func of(rows []suite.GrowthRow, k suite.Kind) (kept []suite.GrowthRow) {
	for _, r := range rows {
		if r.Kind == k {
			kept = append(kept, r)
		}
	}
	return kept
}

// small leaves out large rooms: so few messages are said in them that what Redis does besides outweighs them.
func small(rows []suite.GrowthRow) []suite.GrowthRow {
	return slices.DeleteFunc(slices.Clone(rows), func(r suite.GrowthRow) bool { return r.RoomSize > 10 })
}
