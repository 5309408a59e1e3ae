package cli

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

// Main runs a program as the command line says, and ends the process if it fails: with 1 if a command did, with 2 if there is
// a mistake in the command line. The first SIGINT, SIGTERM or, unless it is ignored (nohup), SIGHUP tells the command to end.
func Main(program *cobra.Command) {
	cobra.EnableCommandSorting = false // help lists them as they are declared
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	signal.Notify(signals, ends...)
	go func() { // ends with the process
		<-signals
		signal.Stop(signals) // before anyone can know of the first signal, a second one ends the process at once
		cancel()
	}()

	if err := Run(ctx, program, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program.Name(), err)
		if errors.As(err, new(failure)) {
			os.Exit(1)
		}
		os.Exit(2)
	}
}

// Run runs a program. An error is one line for the user: a failure, or a mistake in the command line.
func Run(ctx context.Context, program *cobra.Command, args []string, in io.Reader, out, errw io.Writer) error {
	program.SetArgs(args)
	program.SetIn(in)
	program.SetOut(out)
	program.SetErr(errw)
	return program.ExecuteContext(ctx)
}
