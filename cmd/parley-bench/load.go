package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/cmd/parley-bench/load"
)

// A crowd is the connections of a run, and what they say.
type crowd struct {
	Codec       string
	Connections int
	Rooms       int
	RoomSize    int
	Senders     int
	Rate        float64
	RoomRate    float64
	Size        int
	Duration    time.Duration
	Warmup      time.Duration
	JSON        bool
}

func (c *crowd) connectionFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Codec, "codec", "parley.v1", "`CODEC` parley.v1, or text for any relay that passes on what it gets in ?room=.")
	f.IntVar(&c.Connections, "connections", 0, "Number of connections; a whole number of rooms.")
	f.IntVar(&c.Rooms, "rooms", 0, "Number of rooms, if not given by --connections (default 1).")
	f.IntVar(&c.RoomSize, "room-size", 1000, "Members of each room.")
	f.BoolVar(&c.JSON, "json", false, "Report as JSON.")
}

func (c *crowd) sendingFlags(f *pflag.FlagSet, rate, duration string) {
	f.Float64Var(&c.Rate, "rate", 25, "Messages a second that are sent into all rooms together"+rate+".")
	f.Float64Var(&c.RoomRate, "room-rate", 0, "Messages a second that are sent into each room, instead of --rate.")
	f.IntVar(&c.Size, "size", 120, "`BYTES` Bytes of a message's text.")
	f.DurationVar(&c.Duration, "duration", 10*time.Second, duration)
	f.DurationVar(&c.Warmup, "warmup", 2*time.Second, "Time of sending before it.")
}

// Validate refuses an unknown codec, and numbers that mean nothing.
func (c *crowd) Validate() error {
	_, err := c.plan()
	return cmp.Or(
		cli.OneOf("--codec", c.Codec, "parley.v1", "text"),
		atLeast("--connections", c.Connections, 0), atLeast("--rooms", c.Rooms, 0), atLeast("--room-size", c.RoomSize, 1),
		atLeast("--senders", c.Senders, 0), atLeast("--rate", c.Rate, 0), atLeast("--room-rate", c.RoomRate, 0),
		atLeast("--size", c.Size, 0), atLeast("--duration", c.Duration, 0), atLeast("--warmup", c.Warmup, 0),
		err,
	)
}

// atLeast refuses a flag's value that is less.
func atLeast[N cmp.Ordered](flag string, value, least N) error {
	if value < least {
		return fmt.Errorf("%s must be at least %v", flag, least)
	}
	return nil
}

func (c *crowd) plan() (load.Plan, error) {
	rooms := max(1, c.Rooms)
	if c.Connections > 0 {
		if rooms = c.Connections / max(1, c.RoomSize); rooms*c.RoomSize != c.Connections {
			return load.Plan{}, fmt.Errorf("--connections=%d is no whole number of rooms of %d", c.Connections, c.RoomSize)
		}
		if c.Rooms > 0 && c.Rooms != rooms {
			return load.Plan{}, fmt.Errorf("--connections=%d and --rooms=%d of %d do not agree", c.Connections, c.Rooms, c.RoomSize)
		}
	}
	rate := c.Rate
	if c.RoomRate > 0 {
		rate = c.RoomRate * float64(rooms)
	}
	return load.Plan{
		Codec: c.Codec, Rooms: rooms, RoomSize: c.RoomSize, Senders: c.Senders, Rate: rate, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration,
	}, nil
}

// ServersCmd runs a crowd on servers, to find something out.
type ServersCmd struct {
	crowd
	Settle      time.Duration
	ConnectRate float64
	Insecure    bool
	Workers     int
	PID         processes

	bound time.Duration
	churn int

	flags func(f *pflag.FlagSet) // that only this command has
	find  func(context.Context, load.Bench) (*load.Report, error)
}

func newLoad() *ServersCmd {
	c := new(ServersCmd)
	c.flags = func(f *pflag.FlagSet) {
		f.IntVar(&c.Senders, "senders", 0, "Members of each room that send (default half of them, 10 at most).")
		c.sendingFlags(f, "", "Time measured.")
	}
	c.find = func(ctx context.Context, b load.Bench) (*load.Report, error) { return b.Load(ctx) }
	return c
}

func newRamp() *ServersCmd {
	c := new(ServersCmd)
	c.flags = func(f *pflag.FlagSet) {
		f.DurationVar(&c.bound, "bound", 200*time.Millisecond, "What the 99th percentile of the latency may be.")
		f.IntVar(&c.Senders, "senders", 0, "Members of each room that send (default half of them, 10 at most).")
		c.sendingFlags(f, ", at first", "Time measured, at each rate.")
	}
	c.find = func(ctx context.Context, b load.Bench) (*load.Report, error) {
		return b.Ramp(ctx, load.Search{Bound: c.bound, Step: c.Duration})
	}
	return c
}

func newIdle() *ServersCmd {
	c := new(ServersCmd)
	c.flags = func(f *pflag.FlagSet) {
		f.DurationVar(&c.Duration, "duration", 10*time.Second, "How long to hold the connections.")
		f.IntVar(&c.churn, "churn", 0, "How often all go and come again.")
	}
	c.find = func(ctx context.Context, b load.Bench) (*load.Report, error) { return b.Idle(ctx, c.churn) }
	return c
}

// Flags implements cli.Runner.
func (c *ServersCmd) Flags(f *pflag.FlagSet) {
	c.connectionFlags(f)
	c.flags(f)
	f.DurationVar(&c.Settle, "settle", 5*time.Second, "How long to wait at the end, while nothing comes, for what is missing.")
	f.Float64Var(&c.ConnectRate, "connect-rate", 0, "Connections opened a second (default as fast as they are accepted).")
	f.BoolVar(&c.Insecure, "insecure", false, "Take any certificate.")
	f.IntVar(&c.Workers, "workers", 0, "Processes of the generator (default as many as its sockets need).")
	f.TextVar(&c.PID, "pid", processes(nil), "`[NAME=]PID,...` Processes of servers, whose CPU time and memory are measured; those of one name are added up. Repeatable.")
}

// Validate refuses what crowd's does, and more of the same.
func (c *ServersCmd) Validate() error {
	return cmp.Or(
		c.crowd.Validate(),
		atLeast("--settle", c.Settle, 0), atLeast("--connect-rate", c.ConnectRate, 0), atLeast("--workers", c.Workers, 0),
		atLeast("--bound", c.bound, 0), atLeast("--churn", c.churn, 0),
	)
}

// Run measures and reports.
func (c *ServersCmd) Run(env *cli.Env) error {
	plan, err := c.plan()
	if err != nil {
		return err
	}
	plan.URLs, plan.Settle, plan.ConnectRate, plan.Insecure = env.Args, c.Settle, c.ConnectRate, c.Insecure
	progress := newProgress(env.Err)
	defer progress.end()
	report, err := c.find(env.Ctx, load.Bench{Plan: plan, Servers: c.PID, Workers: c.Workers, Progress: progress.show})
	progress.end()
	if report == nil {
		return err
	}
	return errors.Join(err, printReport(env.Out, report, c.JSON))
}

// FloorCmd measures what no server can go below.
type FloorCmd struct {
	crowd
	Batch int
}

// Flags implements cli.Runner.
func (c *FloorCmd) Flags(f *pflag.FlagSet) {
	c.connectionFlags(f)
	c.sendingFlags(f, "", "Time measured.")
	f.IntVar(&c.Batch, "batch", 1, "Messages that share a write.")
}

// Validate refuses what crowd's does, and batches of nothing.
func (c *FloorCmd) Validate() error {
	return cmp.Or(c.crowd.Validate(), atLeast("--batch", c.Batch, 1))
}

// Run measures and reports.
func (c *FloorCmd) Run(env *cli.Env) error {
	plan, err := c.plan()
	if err != nil {
		return err
	}
	report, err := load.Floor(env.Ctx, plan, c.Batch, nil)
	if err != nil {
		return err
	}
	return printReport(env.Out, report, c.JSON)
}

func printReport(w io.Writer, report interface{ Print(io.Writer) error }, asJSON bool) error {
	if !asJSON {
		return report.Print(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(report)
}
