package web_test

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/tracing"
	"github.com/chromedp/chromedp"
)

// tasks traces the tab while f runs, and gives what each task of its main thread took of the processor, the longest first:
// waiting for the processor is not in it. A trace is of the whole browser, so only one test may want one.
func (p *tab) tasks(f func()) []time.Duration {
	p.t.Helper()
	type event struct {
		Name string `json:"name"`
		Pid  int    `json:"pid"`
		Tid  int    `json:"tid"`
		TDur int64  `json:"tdur"` // µs
	}
	var events []event
	ended := make(chan bool, 1)
	p.command(func(context.Context) error {
		return chromedp.Listen(p.ctx, func(ev any) {
			switch e := ev.(type) {
			case *tracing.EventDataCollected:
				for _, value := range e.Value {
					var one event
					if json.Unmarshal(value, &one) == nil {
						events = append(events, one)
					}
				}
			case *tracing.EventTracingComplete:
				select {
				case ended <- e.DataLossOccurred:
				default: // another trace of this tab's
				}
			}
		})
	})
	config := tracing.TraceConfig{IncludedCategories: []string{"blink.user_timing", "disabled-by-default-devtools.timeline"}, ExcludedCategories: []string{"*"}}
	p.command(func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, tracing.Start, tracing.StartParams{TraceConfig: &config})
		return err
	})
	p.run(`performance.mark("this tab")`)
	f()
	p.command(func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, tracing.End, cdp.Empty{})
		return err
	})
	select {
	case lossy := <-ended:
		if lossy {
			p.t.Fatal("the trace is not whole")
		}
	case <-time.After(patience):
		p.t.Fatal("the trace does not end")
	}
	mark := slices.IndexFunc(events, func(e event) bool { return e.Name == "this tab" })
	if mark < 0 {
		p.t.Fatalf("the trace lacks this tab, among %d events", len(events))
	}
	var took []time.Duration
	for _, e := range events {
		if e.Pid == events[mark].Pid && e.Tid == events[mark].Tid && e.Name == "RunTask" {
			took = append(took, time.Duration(e.TDur)*time.Microsecond)
		}
	}
	slices.SortFunc(took, func(a, b time.Duration) int { return int(b - a) })
	return took
}
