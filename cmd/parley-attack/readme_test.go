package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The page beside this file has a row for every attack.
func TestThePageListsEveryAttack(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed, made []string
	for line := range strings.Lines(string(text)) {
		name, _, row := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if row && strings.HasPrefix(line, "| ") && name != "attack" && name != "---" {
			listed = append(listed, name)
		}
	}
	for _, a := range attacks {
		made = append(made, a.name)
	}
	k := startKeyServer()
	defer k.stop()
	for _, a := range accessAttacks(k) {
		made = append(made, a.name)
	}
	slices.Sort(listed)
	slices.Sort(made)
	if !slices.Equal(listed, made) {
		t.Errorf("the page lists %q\nand there are %q", listed, made)
	}
}
