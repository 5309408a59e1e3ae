// Parley is a chat service: many nodes, one conversation.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	cobra.EnableCommandSorting = false // help lists them as they are declared
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-signals
		signal.Stop(signals) // before anyone can know of the first signal, a second one ends the process at once
		cancel()
	}()

	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "parley:", err)
		if errors.As(err, new(failure)) {
			os.Exit(1)
		}
		os.Exit(2)
	}
}

// run is the whole of the program. An error is one line for the user: a failure, or a mistake in the command line.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) error {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	return root.ExecuteContext(ctx)
}

// newRoot makes the command line. Flags and environment variables are read here and nowhere else.
func newRoot() *cobra.Command {
	root := newCommand("parley", "Parley is a chat service: many nodes, one conversation.", new(ServeCmd))
	root.AddCommand(
		newCommand("serve", "Run a node. This is what parley does without a command.", new(ServeCmd)),
		newChat(),
		newBench(),
		newCommand("health", "Ask a node how it is.", new(HealthCmd)),
		newCommand("version", "Print the version.", VersionCmd{}),
	)
	root.PersistentFlags().Bool("version", false, "Print the version and exit.")
	root.PersistentFlags().BoolP("help", "h", false, "Print this.")
	root.SetHelpFunc(printHelp)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return explain(err) })
	root.SilenceErrors, root.SilenceUsage = true, true
	return root
}
