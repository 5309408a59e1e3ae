package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"parley/cmd/parley-bench/load"
)

// A progress shows how far a run has come: on a terminal in one line that is written anew, elsewhere in a line every few
// seconds.
type progress struct {
	w        io.Writer
	terminal bool
	width    int // of the line that stands there
	told     int // how many statuses there were
}

const plainEvery = 5

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

func (p *progress) show(s load.Status) {
	line := fmt.Sprintf("%s: %d connections, %d joined", s.What, s.Open, s.Joined)
	if s.Sent > 0 {
		line += fmt.Sprintf(", %d sent, %d delivered, %d problems", s.Sent, s.Delivered, s.Problems)
	}
	p.told++
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r%-*s", p.width, line)
		p.width = len(line)
	case p.told%plainEvery == 0:
		fmt.Fprintln(p.w, line)
	}
}

// end takes the line away.
func (p *progress) end() {
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
		p.width = 0
	}
}
