// Plot draws what parley-bench growth measured: plot GROWTH.json DIRECTORY writes an SVG of each figure there. It is a program
// of its own, so that the other one does not carry what draws.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"parley/cmd/parley-bench/suite"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: plot GROWTH.json DIRECTORY")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var report suite.GrowthReport
	if err := json.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	for _, f := range figures(report.Rows) {
		if len(f.lines) == 0 {
			continue // not measured
		}
		drawing, err := f.svg()
		if err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
		if err := os.WriteFile(filepath.Join(args[1], f.file), drawing, 0o644); err != nil {
			return err
		}
	}
	return nil
}
