// Parley-bench loads chat servers, measures what their deliveries and connections cost, and checks every delivery as it does.
package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
	"parley/cmd/parley-bench/hub"
	"parley/cmd/parley-bench/load"
)

func main() { cli.Main(newRoot()) }

func newRoot() *cobra.Command {
	root := onServers("parley-bench", "Measure nodes, or other chat servers, under load.", newLoad())
	root.Long = root.Short + "\n\nWithout a command, what follows are the URLs and flags of a load: see parley-bench load --help."
	hub := cli.Command("hub", "Run the plain chat server that nodes are compared with.", new(HubCmd))
	worker := cli.Command("worker", "Serve as a process of the generator.", WorkerCmd{})
	hub.Hidden, worker.Hidden = true, true
	return cli.Program("", root,
		onServers("load", "Load servers and measure them. This is what parley-bench does without a command.", newLoad()),
		onServers("ramp", "Search the highest rate at which nothing is lost and p99 is below --bound.", newRamp()),
		onServers("idle", "Send nothing: connect, join, hold, and measure memory.", newIdle()),
		cli.Command("floor", "Measure the bare write(2) of a load's deliveries to as many sockets, without a server.", new(FloorCmd)),
		cli.Command("suite", "Measure two local nodes in a few scenarios, beside the bare write(2) and a plain hub.", measureSuite()),
		cli.Command("growth", "Measure how cost, latency and memory grow with nodes and rooms, on one to six local nodes.", measureGrowth()),
		hub, worker,
	)
}

// onServers makes a command that takes the URLs of servers.
func onServers(name, short string, r cli.Runner) *cobra.Command {
	c := cli.Command(name+" [url...]", short, r)
	c.Long = c.Short + "\n\nA URL is that of a node, such as ws://127.0.0.1:8765; the members of each room are spread over all."
	c.Args = cobra.ArbitraryArgs
	return c
}

// WorkerCmd is a process of the generator.
type WorkerCmd struct{}

func (WorkerCmd) Flags(*pflag.FlagSet) {}

// Run serves until standard input ends.
func (WorkerCmd) Run(env *cli.Env) error { return load.Work(env.Ctx, env.In, env.Out) }

// HubCmd is the plain chat server.
type HubCmd struct {
	Listen, Redis string
}

func (c *HubCmd) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8766", "`ADDR` Where to listen.")
	f.StringVar(&c.Redis, "redis", "", "`URL` The Redis that joins hubs. By default there is one hub.")
}

// Run serves until the process is told to end.
func (c *HubCmd) Run(env *cli.Env) error {
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "plain hub on ws://%s\n", listener.Addr())
	return hub.Serve(env.Ctx, listener, c.Redis)
}
