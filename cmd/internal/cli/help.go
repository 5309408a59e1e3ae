package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Columns of help.
const (
	helpWidth = 80
	helpLeft  = 26 // what names a flag or a command takes at most, without breaking the line
)

// printHelp says what a command is for, and lists its flags; or the commands that it has, as one of them is its default.
func printHelp(c *cobra.Command, _ []string) {
	w, usage, flags := c.OutOrStdout(), c.UseLine(), c.Flags()
	if c.HasAvailableSubCommands() {
		usage, flags = c.CommandPath()+" <command> [flags]", c.Root().PersistentFlags()
	}
	fmt.Fprintf(w, "Usage: %s\n\n", usage)
	for line := range strings.Lines(cmp.Or(c.Long, c.Short)) {
		fmt.Fprintln(w, strings.Join(wrap(strings.TrimRight(line, "\n"), helpWidth), "\n"))
	}

	var entries []entry
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			entries = append(entries, entry{strings.TrimPrefix(sub.CommandPath(), c.Root().Name()+" "), sub.Short})
		}
	}
	printEntries(w, "Commands", entries)

	entries = nil
	flags.VisitAll(func(f *pflag.Flag) { entries = append(entries, entry{flagName(f), flagHelp(f)}) })
	printEntries(w, "Flags", entries)

	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nRun \"%s <command> --help\" for more on a command.\n", c.CommandPath())
	}
}

// An entry is a name, and what is said of it.
type entry struct{ name, text string }

func printEntries(w io.Writer, title string, entries []entry) {
	if len(entries) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	left := 0
	for _, e := range entries {
		if len(e.name) <= helpLeft {
			left = max(left, len(e.name))
		}
	}
	for _, e := range entries {
		name := e.name
		if len(name) > left {
			fmt.Fprintf(w, "  %s\n", name)
			name = ""
		}
		for _, line := range wrap(e.text, helpWidth-left-4) {
			fmt.Fprintf(w, "  %-*s  %s\n", left, name, line)
			name = ""
		}
	}
}

// flagName is a flag as one would write it.
func flagName(f *pflag.Flag) string {
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if value := noted(f, placeholder); value != "" {
		name += "=" + value
	}
	return name
}

// flagHelp is a flag's help line: what it does, its default, and its environment variable.
func flagHelp(f *pflag.Flag) string {
	var notes []string
	if value := Default(f); value != "" {
		notes = append(notes, "default "+value)
	}
	if name := Variable(f); name != "" {
		notes = append(notes, "$"+name)
	}
	if len(notes) == 0 {
		return f.Usage
	}
	return f.Usage + " (" + strings.Join(notes, ", ") + ")"
}

// wrap breaks text into lines of at most width where words allow. What fits is left as it is.
func wrap(text string, width int) []string {
	if len(text) <= width {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}
