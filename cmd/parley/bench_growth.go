package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"parley/cmd/parley/bench"
)

// BenchGrowthCmd measures how cost grows with nodes and rooms.
type BenchGrowthCmd struct {
	Quick  bool
	Only   string
	Repeat int
	Server string
	JSON   bool
}

func (c *BenchGrowthCmd) flags(f *pflag.FlagSet) {
	f.BoolVar(&c.Quick, "quick", false, "Few nodes, short times and few connections: about half a minute in all.")
	f.StringVar(&c.Only, "only", "", "`NAME` Measure only what has this in its name, such as \"rooms of 10 on\", highest, idle or TLS.")
	f.IntVar(&c.Repeat, "repeat", 1, "How often each measurement is made, of which the median is reported.")
	f.StringVar(&c.Server, "redis-server", "redis-server", "`PROGRAM` The Redis that the nodes share is started from this program.")
	f.BoolVar(&c.JSON, "json", false, "Report as JSON.")
}

// Run measures and reports.
func (c *BenchGrowthCmd) Run(env *Env) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	growth := bench.Growth{
		Quick: c.Quick, Only: c.Only, Repeat: c.Repeat, Program: self, Redis: c.Server,
		Progress: func(what string) { fmt.Fprintln(env.Err, what) },
	}
	report, err := growth.Run(env.Ctx)
	if report == nil {
		return err
	}
	return errors.Join(err, printReport(env.Out, report, c.JSON))
}
