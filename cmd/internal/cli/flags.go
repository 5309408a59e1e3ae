package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// Annotations of a flag.
const (
	placeholder = "placeholder" // what stands for its value in help, or ""
	variable    = "variable"    // of the environment, which sets it too
	source      = "source"      // what set it, where that is not its default
	secret      = "secret"      // it is never shown, and not taken from the command line
)

// kinds is what is known of values by the type that pflag gives them.
var kinds = map[string]struct{ placeholder, expected string }{
	"bool":     {"", "true or false"},
	"int":      {"COUNT", "a whole number"},
	"float64":  {"NUMBER", "a number"},
	"duration": {"TIME", "a duration such as 300ms, 10s or 1h30m"},
}

// note annotates a flag. A placeholder other than that of its type begins its usage, in backquotes; a variable other than
// prefix and its name was set by SetVariable.
func note(f *pflag.Flag, prefix string) {
	notes := map[string][]string{
		placeholder: {kinds[f.Value.Type()].placeholder},
		variable:    {prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))},
	}
	if rest, ok := strings.CutPrefix(f.Usage, "`"); ok {
		notes[placeholder][0], f.Usage, _ = strings.Cut(rest, "` ")
	}
	maps.Copy(notes, f.Annotations)
	f.Annotations = notes
}

// SetVariable gives a flag a variable of another name than its own.
func SetVariable(flags *pflag.FlagSet, flag, name string) {
	flags.SetAnnotation(flag, variable, []string{name})
}

// SetSecret makes a flag's value one that is never shown: the command line, which other users of the machine see, cannot set it, but
// its variable can, or a file that the variable with _FILE behind it names.
func SetSecret(flags *pflag.FlagSet, flag string) {
	flags.SetAnnotation(flag, secret, []string{"true"})
}

// Variable is the variable that sets a flag too.
func Variable(f *pflag.Flag) string { return noted(f, variable) }

// noted is what a flag's annotation says, or "".
func noted(f *pflag.Flag, key string) string {
	return strings.Join(f.Annotations[key], "")
}

// Default is a flag's default as one would write it, or "".
func Default(f *pflag.Flag) string {
	if slices.Contains([]string{"0", "0s", "false"}, f.DefValue) {
		return ""
	}
	return strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(f.DefValue) // of a duration
}

// readEnvironment sets the flags that the command line doesn't. An empty variable is none. A variable with _FILE behind it names a file
// that holds the value, such as a Docker secret, and must hold one.
func readEnvironment(flags *pflag.FlagSet) (err error) {
	variables := map[string]bool{}
	flags.VisitAll(func(f *pflag.Flag) { variables[Variable(f)] = true })
	flags.VisitAll(func(f *pflag.Flag) {
		name := Variable(f)
		value := os.Getenv(name)
		if f.Changed {
			flags.SetAnnotation(f.Name, source, []string{"flag"})
		}
		if err == nil && f.Changed && noted(f, secret) != "" {
			err = fmt.Errorf("--%s would show the secret to all users of the machine: set $%s, or $%s_FILE to a file's name", f.Name, name, name)
		}
		if err != nil || f.Changed {
			return
		}
		if file := os.Getenv(name + "_FILE"); file != "" && !variables[name+"_FILE"] {
			if value != "" {
				err = fmt.Errorf("$%s and $%s_FILE are both set", name, name)
				return
			}
			name += "_FILE"
			text, bad := os.ReadFile(file)
			if bad != nil {
				err = fmt.Errorf("%w (from $%s)", bad, name)
				return
			}
			if value = strings.TrimRight(string(text), "\r\n"); value == "" { // which would be no secret at all, and a service open to all
				err = fmt.Errorf("%s is empty (from $%s)", file, name)
				return
			}
		}
		if value == "" {
			return
		}
		flags.SetAnnotation(f.Name, source, []string{"$" + name})
		if err = flags.Set(f.Name, value); err != nil {
			err = fmt.Errorf("%w (from $%s)", explain(err), name)
		}
	})
	return err
}

// A Setting is a flag's value, and what set it: a flag, a variable such as $PARLEY_PING, or the default.
type Setting struct{ Flag, Value, From string }

// settings lists what all flags are set to.
func settings(flags *pflag.FlagSet) (list []Setting) {
	flags.VisitAll(func(f *pflag.Flag) {
		value := f.Value.String()
		if value != "" && noted(f, secret) != "" {
			value = "(not shown)"
		}
		list = append(list, Setting{f.Name, value, cmp.Or(noted(f, source), "default")})
	})
	return list
}

// explain says in our words what pflag refuses.
func explain(err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		dashes := "--"
		if e.GetSpecifiedShortnames() != "" {
			dashes = "-"
		}
		return fmt.Errorf("unknown flag %s%s", dashes, e.GetSpecifiedName())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("--%s needs a value", e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if kind, ok := kinds[e.GetFlag().Value.Type()]; ok {
			return fmt.Errorf("--%s: expected %s but got %q", e.GetFlag().Name, kind.expected, e.GetValue())
		}
		return fmt.Errorf("--%s: %w", e.GetFlag().Name, e.Unwrap())
	}
	return err
}

// OneOf refuses a value that is not among those allowed.
func OneOf(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	var list []string
	for _, s := range allowed {
		list = append(list, strconv.Quote(s))
	}
	return fmt.Errorf("%s must be one of %s but got %q", flag, strings.Join(list, ","), value)
}
