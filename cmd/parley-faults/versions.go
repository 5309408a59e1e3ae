package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// versions are rows of two versions that share a Redis. Each is built already, or why it is not.
func versions(parley, previous string, missing error) []fault {
	row := func(name, from, to string) fault {
		return fault{
			name: name, must: clients, parley: from, missing: missing,
			strike: func(tr *trial) { replaceNodes(tr, to) },
		}
	}
	return []fault{
		row("rollout: nodes of the revision before become nodes of this one", previous, parley),
		row("rollback: nodes of this revision become nodes of the one before", parley, previous),
	}
}

// replaceNodes replaces the nodes one after the other by ones of another program, which may refuse to share Redis, in one
// line that says why.
func replaceNodes(tr *trial, program string) {
	for _, st := range tr.stations {
		tr.urge()
		st.drain()
		before := st.parley
		st.parley = program
		if err := st.tryStart(); err != nil {
			said := st.lastLine()
			if !strings.Contains(said, "layout") {
				tr.Fatalf("%v: %s", err, said)
			}
			tr.Logf("refused: %s", said)
			tr.refusal("layout")
			st.parley = before
			st.start()
		}
		tr.pass()
	}
}

// lastLine is the last that a node logged.
func (st *station) lastLine() string {
	said := st.lastWords()
	return said[strings.LastIndex(said, "\n")+1:]
}

var errNoHistory = errors.New("there is no such revision here")

// buildRevision builds the program as it was at a revision.
func buildRevision(ctx context.Context, dir, revision string) (string, error) {
	git := func(args ...string) ([]byte, error) {
		return exec.CommandContext(ctx, "git", args...).Output()
	}
	top, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return "", errNoHistory
	}
	root := strings.TrimSpace(string(top))
	if _, err := git("-C", root, "rev-parse", "--verify", "--quiet", revision+"^{commit}"); err != nil {
		return "", fmt.Errorf("%s: %w", revision, errNoHistory)
	}
	archive, err := git("-C", root, "archive", "--format=tar", revision)
	if err != nil {
		return "", fmt.Errorf("git archive %s: %w", revision, err)
	}
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		return "", err
	}
	untar := exec.CommandContext(ctx, "tar", "-x", "-C", source)
	untar.Stdin = bytes.NewReader(archive)
	if said, err := untar.CombinedOutput(); err != nil {
		return "", fmt.Errorf("tar: %w\n%s", err, said)
	}
	built := filepath.Join(dir, "previous")
	if err := os.Mkdir(built, 0o700); err != nil {
		return "", err
	}
	return build(ctx, built, source)
}
