package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"

	"parley/cmd/internal/cli"
)

// These are set by the linker (-X main.version=v1.2.3 -X main.revision=0123abcd). Otherwise what the Go tool recorded speaks.
var version, revision string

// VersionCmd prints the version.
type VersionCmd struct{}

func (VersionCmd) Flags(*pflag.FlagSet) {}

// Run implements "parley version".
func (VersionCmd) Run(env *cli.Env) error {
	_, err := fmt.Fprintln(env.Out, versionLine())
	return err
}

func versionLine() string {
	v, from := build()
	line := "parley " + v
	if from != "" {
		line += " (" + from + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", line, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// build says which version this is, and from which revision it was made ("" if the Go tool was not told).
func build() (v, from string) {
	v, from = version, revision
	if info, ok := debug.ReadBuildInfo(); ok {
		modified := ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				from = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = ", modified"
			}
		}
		from += modified
		if info.Main.Version != "(devel)" {
			v = cmp.Or(v, info.Main.Version)
		}
	}
	return cmp.Or(v, "dev"), from
}
