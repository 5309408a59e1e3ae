package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"parley/cmd/parley/bench"
)

// A BenchLocalCmd measures servers that it starts on this machine.
type BenchLocalCmd[R report] struct {
	bench.Local
	JSON bool

	repeats string // by default, as help says it
	measure func(context.Context, bench.Local) (R, error)
}

// A report is a pointer, which is nil if nothing was measured.
type report interface {
	comparable
	Print(w io.Writer) error
}

func benchSuite() runner {
	return &BenchLocalCmd[*bench.SuiteReport]{
		repeats: "3, with --quick 1",
		measure: func(ctx context.Context, l bench.Local) (*bench.SuiteReport, error) {
			return bench.Suite{Local: l}.Run(ctx)
		},
	}
}

func benchGrowth() runner {
	return &BenchLocalCmd[*bench.GrowthReport]{
		repeats: "1",
		measure: func(ctx context.Context, l bench.Local) (*bench.GrowthReport, error) {
			return bench.Growth{Local: l}.Run(ctx)
		},
	}
}

func (c *BenchLocalCmd[R]) flags(f *pflag.FlagSet) {
	f.BoolVar(&c.Quick, "quick", false, "Few nodes, short times and few connections: about a minute in all.")
	f.StringVar(&c.Only, "only", "", "`NAME` Measure only what has this in its name, such as idle or \"room of 1,000\".")
	f.IntVar(&c.Repeat, "repeat", 0, "How often each measurement is made, of which the median is reported (default "+c.repeats+").")
	f.StringVar(&c.Redis, "redis-server", "redis-server", "`PROGRAM` The Redis that the nodes share is started from this program.")
	f.BoolVar(&c.JSON, "json", false, "Report as JSON.")
}

// Run measures and reports.
func (c *BenchLocalCmd[R]) Run(env *Env) error {
	var err error
	if c.Program, err = os.Executable(); err != nil {
		return err
	}
	c.Progress = func(what string) { fmt.Fprintln(env.Err, what) }
	report, err := c.measure(env.Ctx, c.Local)
	if none := *new(R); report == none {
		return err
	}
	return errors.Join(err, printReport(env.Out, report, c.JSON))
}
