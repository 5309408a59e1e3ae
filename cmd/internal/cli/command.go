// Package cli is what the programs in cmd have in common: a command line of commands and flags, a variable of the environment
// for each flag, values that flags can have, help, and what a program's exit status says.
//
// A program is made of runners, one a command, by Command and Program, and run by Main. No other package reads flags or the
// environment.
package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Env is what a command has of the world around it.
type Env struct {
	Ctx  context.Context // done when the process is told to end
	Args []string        // what the command line has besides flags
	In   io.Reader
	Out  io.Writer
	Err  io.Writer

	Settings []Setting // of all flags, in their order
}

// A Runner is what a command does. With a method Validate it refuses values that its flags can't have.
type Runner interface {
	Flags(f *pflag.FlagSet) // adds those that set its fields
	Run(env *Env) error
}

// A failure is an error of a command that was understood.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// Command makes a command that takes no arguments but flags.
func Command(use, short string, r Runner) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: AtMost(0)}
	c.Flags().SortFlags = false
	r.Flags(c.Flags())
	c.RunE = func(c *cobra.Command, args []string) error {
		env := &Env{Ctx: c.Context(), Args: args, In: c.InOrStdin(), Out: c.OutOrStdout(), Err: c.ErrOrStderr()}
		if asked, _ := c.Flags().GetBool("version"); asked {
			_, err := fmt.Fprintln(env.Out, c.Root().Annotations[versionLine])
			return err
		}
		if err := readEnvironment(c.Flags()); err != nil {
			return err
		}
		if v, ok := r.(interface{ Validate() error }); ok {
			if err := v.Validate(); err != nil {
				return err
			}
		}
		env.Settings = settings(c.Flags())
		if err := r.Run(env); err != nil {
			return failure{err}
		}
		return nil
	}
	return c
}

// AtMost refuses arguments past the first n.
func AtMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("unexpected argument %s", args[n])
		}
		return nil
	}
}

const versionLine = "version" // annotates a program's root with what --version prints

// Program makes a program of its commands; root is what it does without one. Its name begins the names of the variables. A
// version is what --version prints: without one there is no such flag.
func Program(version string, root *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	root.AddCommand(commands...)
	prefix := strings.ToUpper(strings.ReplaceAll(root.Name(), "-", "_")) + "_"
	for _, c := range append(commands, root) {
		c.Flags().VisitAll(func(f *pflag.Flag) { note(f, prefix) })
	}
	if version != "" {
		root.Annotations = map[string]string{versionLine: version}
		root.PersistentFlags().Bool("version", false, "Print the version and exit.")
	}
	root.PersistentFlags().BoolP("help", "h", false, "Print this.")
	root.SetHelpFunc(printHelp)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return explain(err) })
	root.SilenceErrors, root.SilenceUsage = true, true
	return root
}
