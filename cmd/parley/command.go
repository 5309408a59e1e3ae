package main

import (
	"context"
	"fmt"
	"io"

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
}

// A runner is what a command does. With a method Validate it refuses values that its flags can't have.
type runner interface {
	flags(f *pflag.FlagSet) // adds those that set its fields
	Run(env *Env) error
}

// A failure is an error of a command that was understood.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// newCommand makes a command that takes no arguments but flags. What its flags are called in help and in the environment
// is noted on them.
func newCommand(use, short string, r runner) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: atMost(0)}
	c.Flags().SortFlags = false
	r.flags(c.Flags())
	c.Flags().VisitAll(note)
	c.RunE = func(c *cobra.Command, args []string) error {
		env := &Env{Ctx: c.Context(), Args: args, In: c.InOrStdin(), Out: c.OutOrStdout(), Err: c.ErrOrStderr()}
		if asked, _ := c.Flags().GetBool("version"); asked {
			return VersionCmd{}.Run(env)
		}
		if err := readEnvironment(c.Flags()); err != nil {
			return err
		}
		if v, ok := r.(interface{ Validate() error }); ok {
			if err := v.Validate(); err != nil {
				return err
			}
		}
		if err := r.Run(env); err != nil {
			return failure{err}
		}
		return nil
	}
	return c
}

// atMost refuses arguments past the first n.
func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("unexpected argument %s", args[n])
		}
		return nil
	}
}
