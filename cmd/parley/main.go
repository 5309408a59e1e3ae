// Parley is a chat service: many nodes, one conversation.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Env is what a command has of the world around it.
type Env struct {
	Ctx context.Context // done when the process is told to end
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// cli is the command line. Flags and environment variables are read here and nowhere else.
type cli struct {
	Serve   ServeCmd   `cmd:"" default:"withargs" help:"Run a node. This is what parley does without a command."`
	Chat    ChatCmd    `cmd:"" help:"Talk in a room, at a terminal or in a pipe."`
	Bench   BenchCmd   `cmd:"" help:"Measure nodes, or other chat servers, under load."`
	Health  HealthCmd  `cmd:"" help:"Ask a node how it is."`
	Version VersionCmd `cmd:"" help:"Print the version."`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version and exit." env:"-"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on a second signal ends the process at once

	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "parley:", err)
		if errors.As(err, new(*kong.ParseError)) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// run is the whole of the program. An error is one line for the user.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) error {
	helped := false // --help or --version did it all
	parser, err := newParser(new(cli), kong.Writers(out, errw), kong.Exit(func(int) { helped = true }))
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	switch {
	case helped:
		return nil
	case err != nil:
		return err
	}
	return command.Run(&Env{Ctx: ctx, In: in, Out: out, Err: errw})
}

func newParser(c *cli, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(c, append([]kong.Option{
		kong.Name("parley"),
		kong.Description("Parley is a chat service: many nodes, one conversation."),
		kong.DefaultEnvars("PARLEY"),
		kong.Vars{"version": versionLine()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.ValueFormatter(flagHelp),
	}, options...)...)
}

// flagHelp is a flag's help line: what it does, its default, and its environment variable.
func flagHelp(v *kong.Value) string {
	var notes []string
	if v.HasDefault && v.Default != "" {
		notes = append(notes, "default "+v.Default)
	}
	for _, name := range v.Tag.Envs {
		notes = append(notes, "$"+name)
	}
	if len(notes) == 0 {
		return v.Help
	}
	return v.Help + " (" + strings.Join(notes, ", ") + ")"
}
