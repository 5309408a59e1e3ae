// Parley is a chat service: many nodes, one conversation.
package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"parley/cmd/internal/cli"
)

func main() { cli.Main(newRoot()) }

// run is the whole of the program.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) error {
	return cli.Run(ctx, newRoot(), args, in, out, errw)
}

// newRoot makes the command line. Flags and environment variables are read by it and nowhere else.
func newRoot() *cobra.Command {
	return cli.Program(versionLine(),
		cli.Command("parley", "Parley is a chat service: many nodes, one conversation.", new(ServeCmd)),
		cli.Command("serve", "Run a node. This is what parley does without a command.", new(ServeCmd)),
		newChat(),
		cli.Command("token", "Make a token, or read one.", new(TokenCmd)),
		newAdmin(),
		cli.Command("health", "Ask a node how it is.", new(HealthCmd)),
		cli.Command("version", "Print the version.", VersionCmd{}),
	)
}
