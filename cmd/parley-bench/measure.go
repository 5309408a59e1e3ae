package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/cmd/parley-bench/suite"
)

// A LocalCmd measures servers that it starts on this machine.
type LocalCmd[R report] struct {
	suite.Local
	JSON bool

	behind cli.List

	repeats string // by default, as help says it
	measure func(context.Context, suite.Local) (R, error)
}

// A report is a pointer, which is nil if nothing was measured.
type report interface {
	comparable
	Print(w io.Writer) error
}

func measureSuite() cli.Runner {
	return &LocalCmd[*suite.SuiteReport]{
		repeats: "3, with --quick 1",
		measure: func(ctx context.Context, l suite.Local) (*suite.SuiteReport, error) {
			return suite.Suite{Local: l}.Run(ctx)
		},
	}
}

func measureGrowth() cli.Runner {
	return &LocalCmd[*suite.GrowthReport]{
		repeats: "1",
		measure: func(ctx context.Context, l suite.Local) (*suite.GrowthReport, error) {
			return suite.Growth{Local: l}.Run(ctx)
		},
	}
}

func (c *LocalCmd[R]) Flags(f *pflag.FlagSet) {
	if _, ok := any(c).(*LocalCmd[*suite.SuiteReport]); ok {
		f.TextVar(&c.behind, "haproxy", cli.List(nil), "`FILE,...` Measure nodes behind HAProxy too, with each of these configurations, such as .deploy/haproxy/haproxy.cfg.")
		f.BoolVar(&c.TLS, "tls", false, "What is behind HAProxy is spoken to over TLS.")
	}
	f.BoolVar(&c.Quick, "quick", false, "Few nodes, short times and few connections: about a minute in all.")
	f.StringVar(&c.Only, "only", "", "`NAME` Measure only what has this in its name, such as idle or \"room of 1,000\".")
	f.IntVar(&c.Repeat, "repeat", 0, "How often each measurement is made, of which the median is reported (default "+c.repeats+").")
	f.StringVar(&c.Parley, "parley", "", "`PROGRAM` The parley that is measured. It is built from source, by default.")
	f.StringVar(&c.Redis, "redis-server", "redis-server", "`PROGRAM` The Redis that the nodes share is started from this program.")
	f.BoolVar(&c.JSON, "json", false, "Report as JSON.")
}

// Run measures and reports.
func (c *LocalCmd[R]) Run(env *cli.Env) error {
	var err error
	if c.Self, err = os.Executable(); err != nil {
		return err
	}
	c.Behind = c.behind
	c.Progress = func(what string) { fmt.Fprintln(env.Err, what) }
	report, err := c.measure(env.Ctx, c.Local)
	if none := *new(R); report == none {
		return err
	}
	return errors.Join(err, printReport(env.Out, report, c.JSON))
}
