// Parley-bench loads chat servers, measures what their deliveries and connections cost, and checks every delivery as it does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"parley/cmd/internal/cli"
	"parley/cmd/parley-bench/hub"
	"parley/cmd/parley-bench/load"
)

func main() { cli.Main(newRoot()) }

func newRoot() *cobra.Command {
	root := newLoad("parley-bench [url...]", "Measure nodes, or other chat servers, under load.")
	root.Long = root.Short + "\n\nWithout a command, what follows are the URLs and flags of a load: see parley-bench load --help."
	one := newLoad("load [url...]", "Load servers and measure them. This is what parley-bench does without a command.")
	one.Long = one.Short + "\n\nA URL is that of a node, such as ws://127.0.0.1:8765; the members of each room are spread over all."
	hub := cli.Command("hub", "Run the plain chat server that nodes are compared with.", new(HubCmd))
	worker := cli.Command("worker", "Serve as a process of the generator.", WorkerCmd{})
	hub.Hidden, worker.Hidden = true, true
	return cli.Program("", root,
		one,
		cli.Command("suite", "Measure two local nodes in a few scenarios, beside the bare write(2) and a plain hub.", measureSuite()),
		cli.Command("growth", "Measure how cost, latency and memory grow with nodes and rooms, on one to six local nodes.", measureGrowth()),
		hub, worker,
	)
}

func newLoad(use, short string) *cobra.Command {
	c := cli.Command(use, short, new(LoadCmd))
	c.Args = cobra.ArbitraryArgs
	return c
}

// LoadCmd is a load and what is to be found out with it.
type LoadCmd struct {
	URLs []string

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
	Settle      time.Duration
	ConnectRate float64
	Insecure    bool
	Workers     int

	PID   processes
	Ramp  bool
	Bound time.Duration
	Idle  bool
	Churn int
	Floor bool
	Batch int
	JSON  bool
}

func (c *LoadCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Codec, "codec", "parley.v1", "`CODEC` parley.v1, or text for any relay that passes on what it gets in ?room=.")
	f.IntVar(&c.Connections, "connections", 0, "Number of connections; a whole number of rooms.")
	f.IntVar(&c.Rooms, "rooms", 0, "Number of rooms, if not given by --connections (default 1).")
	f.IntVar(&c.RoomSize, "room-size", 1000, "Members of each room.")
	f.IntVar(&c.Senders, "senders", 0, "Members of each room that send (default half of them, 10 at most).")
	f.Float64Var(&c.Rate, "rate", 25, "Messages a second that are sent into all rooms together; a ramp begins here.")
	f.Float64Var(&c.RoomRate, "room-rate", 0, "Messages a second that are sent into each room, instead of --rate.")
	f.IntVar(&c.Size, "size", 120, "`BYTES` Bytes of a message's text.")
	f.DurationVar(&c.Duration, "duration", 10*time.Second, "Time measured; of each step of a ramp; for how long an idle run holds.")
	f.DurationVar(&c.Warmup, "warmup", 2*time.Second, "Time of sending before it.")
	f.DurationVar(&c.Settle, "settle", 5*time.Second, "How long to wait at the end, while nothing comes, for what is missing.")
	f.Float64Var(&c.ConnectRate, "connect-rate", 0, "Connections opened a second (default as fast as they are accepted).")
	f.BoolVar(&c.Insecure, "insecure", false, "Take any certificate.")
	f.IntVar(&c.Workers, "workers", 0, "Processes of the generator (default as many as its sockets need).")

	f.TextVar(&c.PID, "pid", processes(nil), "`[NAME=]PID,...` Processes of servers, whose CPU time and memory are measured; those of one name are added up. Repeatable.")
	f.BoolVar(&c.Ramp, "ramp", false, "Search the highest rate at which nothing is lost and p99 is below --bound.")
	f.DurationVar(&c.Bound, "bound", 200*time.Millisecond, "What a ramp allows the 99th percentile.")
	f.BoolVar(&c.Idle, "idle", false, "Send nothing: connect, join, hold, and measure memory.")
	f.IntVar(&c.Churn, "churn", 0, "In an idle run, how often all go and come again.")
	f.BoolVar(&c.Floor, "floor", false, "Measure the bare write(2) of such deliveries to as many sockets; alone if no URL is given, otherwise before the load.")
	f.IntVar(&c.Batch, "batch", 1, "For the floor, messages that share a write.")
	f.BoolVar(&c.JSON, "json", false, "Report as JSON.")
}

// Validate refuses an unknown codec.
func (c *LoadCmd) Validate() error { return cli.OneOf("--codec", c.Codec, "parley.v1", "text") }

// Run runs the load and reports.
func (c *LoadCmd) Run(env *cli.Env) error {
	c.URLs = env.Args
	plan, err := c.plan()
	if err != nil {
		return err
	}
	var floor *load.FloorReport
	if c.Floor {
		report, err := load.Floor(env.Ctx, plan, c.Batch, nil)
		if err != nil {
			return err
		}
		if len(c.URLs) == 0 {
			return printReport(env.Out, report, c.JSON)
		}
		floor = &report
	}
	progress := newProgress(env.Err)
	defer progress.end()
	b := load.Bench{Plan: plan, Servers: c.PID, Workers: c.Workers, Progress: progress.show}

	var report *load.Report
	switch {
	case c.Idle:
		report, err = b.Idle(env.Ctx, c.Churn)
	case c.Ramp:
		report, err = b.Ramp(env.Ctx, load.Search{Bound: c.Bound, Step: c.Duration})
	default:
		report, err = b.Load(env.Ctx)
	}
	progress.end()
	if report == nil {
		return err
	}
	report.Floor = floor
	return errors.Join(err, printReport(env.Out, report, c.JSON))
}

func (c *LoadCmd) plan() (load.Plan, error) {
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
		URLs: c.URLs, Codec: c.Codec, Rooms: rooms, RoomSize: c.RoomSize, Senders: c.Senders, Rate: rate, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration, Settle: c.Settle, ConnectRate: c.ConnectRate, Insecure: c.Insecure,
	}, nil
}

func printReport(w io.Writer, report interface{ Print(io.Writer) error }, asJSON bool) error {
	if !asJSON {
		return report.Print(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(report)
}

// processes are those of servers on the command line: PIDs that commas part, each after the name of its group or of the one
// before it: 1,2 or node=1,2,redis=3. Those of a flag that is repeated add up.
type processes []load.Process

// MarshalText implements encoding.TextMarshaler.
func (p processes) MarshalText() ([]byte, error) {
	var list cli.List
	for _, one := range p {
		list = append(list, fmt.Sprintf("%s=%d", one.Name, one.PID))
	}
	return list.MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *processes) UnmarshalText(text []byte) error {
	name := load.Together
	for s := range strings.SplitSeq(string(text), ",") {
		digits := s
		if before, after, named := strings.Cut(s, "="); named {
			name, digits = before, after
		}
		pid, err := strconv.Atoi(digits)
		if err != nil || pid <= 0 || name == "" {
			return fmt.Errorf("%q is neither PID nor NAME=PID", s)
		}
		*p = append(*p, load.Process{Name: name, PID: pid})
	}
	return nil
}

// A progress shows how far a run has come: on a terminal in one line that is written anew, elsewhere in a line every few
// seconds.
type progress struct {
	w        io.Writer
	terminal bool
	width    int // of the line that stands there
	told     int // how many statuses there were
}

const plainEvery = 5

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

func (p *progress) show(s load.Status) {
	line := fmt.Sprintf("%s: %d connections, %d joined", s.What, s.Open, s.Joined)
	if s.Sent > 0 {
		line += fmt.Sprintf(", %d sent, %d delivered, %d problems", s.Sent, s.Delivered, s.Problems)
	}
	p.told++
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r%-*s", p.width, line)
		p.width = len(line)
	case p.told%plainEvery == 0:
		fmt.Fprintln(p.w, line)
	}
}

// end takes the line away.
func (p *progress) end() {
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
		p.width = 0
	}
}

// WorkerCmd is a process of the generator.
type WorkerCmd struct{}

func (WorkerCmd) Flags(*pflag.FlagSet) {}

// Run serves until standard input ends.
func (WorkerCmd) Run(env *cli.Env) error { return load.Work(env.Ctx, env.In, env.Out) }

// HubCmd is the plain chat server.
type HubCmd struct {
	Listen string
}

func (c *HubCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8766", "`ADDR` Where to listen.")
}

// Run serves until the process is told to end.
func (c *HubCmd) Run(env *cli.Env) error {
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: hub.New(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(env.Ctx, func() { server.Close() })
	fmt.Fprintf(env.Out, "plain hub on ws://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
