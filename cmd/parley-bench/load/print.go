package load

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Print writes a report for people to read.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(what, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", what, fmt.Sprintf(format, args...)) }

	row("load", "%s rooms of %s, %s servers, %s, generator of %d processes",
		Grouped(r.Rooms), Grouped(r.RoomSize), Grouped(len(r.URLs)), r.Codec, r.Workers)
	row("connected", "%s in %s s: %s/s", Grouped(r.Connect.Count), Short(r.Connect.Seconds), Short(r.Connect.PerSecond()))
	if r.Join.Count > 0 {
		row("joined", "%s in %s s: %s/s", Grouped(r.Join.Count), Short(r.Join.Seconds), Short(r.Join.PerSecond()))
	}
	for _, c := range r.Arrival {
		row(c.Name+" CPU", "%s µs per connection that came and joined", Short(c.PerMillion()))
	}
	for _, step := range r.Steps {
		verdict := "passed"
		if !step.Passed {
			verdict = "failed"
		}
		row("tried", "%s messages/s: %s deliveries/s, p99 %s ms, generator %s cores, %s: %s", Short(step.Rate),
			Short(step.DeliveriesPerSecond), Short(step.Latency.P99), Short(step.Self.Cores), verdict, step.Check)
	}
	if l := r.Load; l != nil {
		if len(r.Steps) > 0 {
			row("highest rate", "%s messages/s at p99 < %s ms", Short(l.Rate), Short(r.Bound))
		}
		l.print(row, r.Size)
	}
	if r.Idle != nil {
		r.Idle.print(row)
	}
	for _, m := range r.Memory {
		row(m.Name+" memory", "%s KB per connection: %s MB before, %s MB after",
			Short(m.PerConnection/1024), Short(float64(m.Before)/(1<<20)), Short(float64(m.After)/(1<<20)))
	}
	return t.Flush()
}

func (l *LoadReport) print(row func(what, format string, args ...any), size int) {
	row("sent", "%s messages of %d bytes: %s/s of %s/s", Grouped(l.Sent), size, Short(l.SendsPerSecond), Short(l.Rate))
	row("delivered", "%s: %s/s", Grouped(l.Delivered), Short(l.DeliveriesPerSecond))
	row("latency, ms", "%s", l.Latency)
	if l.Answers != nil {
		row("answers, ms", "%s", *l.Answers)
	}
	row("check", "%s", l.Check)
	for _, c := range append(l.Servers, l.Self) {
		row(c.Name+" CPU", "%s", c)
	}
}

func (i *IdleReport) print(row func(what, format string, args ...any)) {
	row("held", "%v, %s connections dropped", time.Duration(i.HeldSeconds*float64(time.Second)), Grouped(i.Dropped))
	for _, c := range i.Servers {
		row(c.Name+" CPU", "%s cores while idle", Short(c.Cores))
	}
	for n, bytes := range i.Churn {
		row(fmt.Sprintf("came back %d", n+1), "%s MB", Short(float64(bytes)/(1<<20)))
	}
	for _, m := range i.Left {
		row(m.Name+" left", "%s MB after everyone has gone", Short(float64(m.After)/(1<<20)))
	}
}

func (l Latency) String() string {
	return fmt.Sprintf("p50 %s  p90 %s  p99 %s  p99.9 %s  max %s",
		Short(l.P50), Short(l.P90), Short(l.P99), Short(l.P999), Short(l.Max))
}

func (c Cost) String() string {
	return fmt.Sprintf("%s s per million deliveries: %s user, %s system; %s cores",
		Short(c.PerMillion()), Short(c.UserPerMillion), Short(c.SystemPerMillion), Short(c.Cores))
}

// Print writes a report of the floor for people to read.
func (f FloorReport) Print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "floor  %s sockets, frames of %d bytes, %d in a write: %s\n",
		Grouped(f.Sockets), f.FrameBytes, f.Batch, f.Cost)
	return err
}
