package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// The table stands between these lines of a file.
const tableBegins, tableEnds = "<!-- faults -->\n", "<!-- end of faults -->\n"

// writeTable puts the table of rows in its place in a file.
func writeTable(file string, rows []result) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), tableBegins)
	_, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no %sand %s", file, tableBegins, strings.TrimSpace(tableEnds))
	}
	var w strings.Builder
	w.WriteString(before + tableBegins)
	table(&w, rows)
	w.WriteString(tableEnds + after)
	return os.WriteFile(file, []byte(w.String()), 0o644)
}

// table prints the rows as Markdown.
func table(w io.Writer, rows []result) {
	fmt.Fprintln(w, "| fault | destroyed | said | acknowledged | missing | twice | out of order | gaps told, of them true | misled | late | ghosts | members missing | longest wait for an answer | not ready after, ready again after | |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for i := range rows {
		fmt.Fprintln(w, rows[i].row())
	}
}

func (r *result) row() string {
	cells := []string{
		r.name, r.destroyed(), number(r.said), number(r.Acked), number(r.Missing), number(r.Twice), number(r.Disordered + r.Strange),
		fmt.Sprint(r.Gaps, ", ", r.Gaps-r.FalseGaps), number(r.Misled), number(r.Late), number(r.Ghosts), number(r.Unlisted), seconds(r.slowest),
		r.readiness(), r.verdict(),
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

func (r *result) readiness() string {
	if r.unready == 0 {
		return "ready throughout"
	}
	return seconds(r.unready) + ", " + seconds(max(0, r.ready))
}

func (r *result) verdict() string {
	switch {
	case r.unrun != "":
		return "not run: " + r.unrun
	case !r.ok() && len(r.failed) > 0:
		return "FAILED: " + r.failed[0]
	case !r.ok():
		return "FAILED"
	}
	return cmp.Or(r.note, "holds")
}

// A report is a row as JSON tells it.
type report struct {
	Name    string `json:"name"`
	Holds   bool   `json:"holds"`
	Verdict string `json:"verdict"` // of the table
	Details string `json:"details"` // what it counted, in some lines
}

func reports(rows []result) []report {
	told := make([]report, len(rows))
	for i := range rows {
		r := &rows[i]
		told[i] = report{r.name, r.ok(), r.verdict(), r.String()}
	}
	return told
}

func number(n int) string { return fmt.Sprint(n) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// A lockedWriter is written to by all rows.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
