// Parley-faults breaks a cluster of nodes in every way that it knows, and compares what clients heard with what was
// acknowledged: real processes on loopback, a real redis-server, and a judge that shares no code with either.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
)

func main() { cli.Main(newRoot()) }

func newRoot() *cobra.Command {
	c := cli.Command("parley-faults [fault...]", "Break a cluster in every way, and show what that did to its clients.", new(FaultsCmd))
	c.Long = c.Short + "\n\nA fault is a part of a row's name, such as promoted. Without one, all rows are run."
	c.Args = cobra.ArbitraryArgs
	return cli.Program("", c)
}

// FaultsCmd runs rows of the table.
type FaultsCmd struct {
	Parley   string
	Short    bool
	Parallel int
	List     bool
	Verbose  bool
	Race     bool
	JSON     bool
	Previous string
	Write    string
	Mixes    time.Duration
	Seed     uint64
}

func (c *FaultsCmd) Flags(f *pflag.FlagSet) {
	f.BoolVar(&c.List, "list", false, "Only name the faults.")
	f.BoolVar(&c.Short, "short", false, "Fewer clients, faults that last half as long, and, where none is named, without those that take longest.")
	f.DurationVar(&c.Mixes, "mixes", 0, "For so long, random mixes of faults instead of each alone.")
	f.Uint64Var(&c.Seed, "seed", 0, "Of the first mix; the next one's is one more. Random, by default.")
	f.IntVar(&c.Parallel, "parallel", 3, "Rows that are run at a time.")
	f.BoolVar(&c.Race, "race", false, "Build nodes with the race detector.")
	f.BoolVar(&c.JSON, "json", false, "Report as JSON.")
	f.BoolVar(&c.Verbose, "verbose", false, "Tell what nodes and Redis logged in rows that fail.")
	f.StringVar(&c.Write, "write", "", "`FILE` Where the table is to replace the one that stands there.")
	f.StringVar(&c.Previous, "previous", "HEAD^", "`REVISION` The revision whose nodes share Redis with those to judge, in rollout and rollback.")
	f.StringVar(&c.Parley, "parley", "", "`FILE` The program to judge. What is in this directory's module, by default.")
}

// Run prints the table.
func (c *FaultsCmd) Run(env *cli.Env) error {
	if c.List {
		for _, f := range c.choose(env.Args, versions("", "", nil)) {
			fmt.Fprintln(env.Out, f.name)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "pf")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	parley := c.Parley
	if parley == "" {
		var flags []string
		if c.Race {
			flags = append(flags, "-race")
		}
		if parley, err = build(env.Ctx, dir, ".", flags...); err != nil {
			return err
		}
	}
	chosen := c.choose(env.Args, versions("", "", nil))
	if len(chosen) == 0 {
		return errors.New("there is no such fault")
	}
	if c.Mixes == 0 && slices.ContainsFunc(chosen, func(f fault) bool { return strings.HasPrefix(f.name, "roll") && f.mix == "" }) {
		previous, err := buildRevision(env.Ctx, dir, c.Previous)
		chosen = c.choose(env.Args, versions(parley, previous, err))
	}
	size := full
	if c.Short {
		size = short
	}
	errw := &lockedWriter{w: env.Err}
	run := func(f fault) result {
		var log io.Writer = io.Discard
		if c.Verbose {
			log = errw
		}
		r := f.perform(size, parley, log)
		r.report(errw)
		return r
	}
	var rows []result
	if c.Mixes > 0 {
		seed := c.Seed
		if seed == 0 {
			seed = rand.Uint64N(1e6)
		}
		fmt.Fprintf(errw, "mixes from seed %d on\n", seed)
		wrong, sum := runMixes(env.Ctx, seed, c.Mixes, c.Parallel, run)
		rows = append(wrong, sum)
	} else {
		rows = runAll(env.Ctx, chosen, c.Parallel, run)
	}
	if c.JSON {
		if err := json.NewEncoder(env.Out).Encode(reports(rows)); err != nil {
			return err
		}
	} else {
		table(env.Out, rows)
	}
	if c.Write != "" {
		if err := writeTable(c.Write, rows); err != nil {
			return err
		}
	}
	for i := range rows {
		if !rows[i].ok() {
			return errors.New("not all rows hold")
		}
	}
	return nil
}

// report says what became of a row.
func (r *result) report(w *lockedWriter) { w.Write([]byte(r.String())) }

// String says what became of a row, in some lines.
func (r *result) String() string {
	var said strings.Builder
	fmt.Fprintf(&said, "%s: %s (%s; %s; %s)\n    %v\n", r.name, r.verdict(), r.took.Round(time.Second), r.destroyed(), r.readiness(), &r.Verdict)
	for why, n := range r.cuts {
		fmt.Fprintf(&said, "    %d clients cut: %s\n", n, why)
	}
	for _, note := range r.failed {
		fmt.Fprintf(&said, "    ! %s\n", note)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&said, "    - %s\n", note)
	}
	return said.String()
}

// choose gives the rows that are named.
func (c *FaultsCmd) choose(names []string, versions []fault) []fault {
	all := append(faults(), versions...)
	if c.Short && len(names) == 0 {
		all = slices.DeleteFunc(all, func(f fault) bool { return f.large })
	}
	return choose(all, names)
}

// choose gives the faults that are named, in part.
func choose(all []fault, names []string) (chosen []fault) {
	for _, f := range all {
		named := len(names) == 0
		for _, n := range names {
			named = named || strings.Contains(f.name, n)
		}
		if named {
			chosen = append(chosen, f)
		}
	}
	return chosen
}

// runAll runs rows, so many at a time, until ctx is done.
func runAll(ctx context.Context, chosen []fault, parallel int, run func(fault) result) []result {
	rows := make([]result, len(chosen))
	free := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, f := range chosen {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			if ctx.Err() != nil {
				rows[i] = result{name: f.name, unrun: ctx.Err().Error()}
				return
			}
			rows[i] = run(f)
		})
	}
	wg.Wait()
	return rows
}

// build builds the program from the module in a directory.
func build(ctx context.Context, dir, module string, flags ...string) (string, error) {
	program := filepath.Join(dir, "parley")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-o", program, "parley/cmd/parley")...)
	cmd.Dir = module
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build parley: %w\n%s", err, said)
	}
	return program, nil
}
