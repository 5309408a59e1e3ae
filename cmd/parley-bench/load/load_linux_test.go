package load

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the test's executable serve as a worker, as that of parley-bench does.
func TestMain(m *testing.M) {
	var err error
	switch args := strings.Join(os.Args[1:], " "); {
	case args == "worker":
		err = Work(context.Background(), os.Stdin, os.Stdout)
	default:
		goleak.VerifyTestMain(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// small is 200 connections in rooms of 50, and 200 messages in half a second.
func small(url, codec string) Plan {
	return Plan{
		URLs: []string{url}, Codec: codec, Rooms: 4, RoomSize: 50, Senders: 5, Rate: 400,
		Warmup: 100 * time.Millisecond, Duration: 400 * time.Millisecond,
	}
}

func forBothCodecs(t *testing.T, test func(t *testing.T, codec string)) {
	for _, codec := range []string{Text, V1} {
		t.Run(codec, func(t *testing.T) { test(t, codec) })
	}
}

func TestAFaithfulServerPasses(t *testing.T) {
	forBothCodecs(t, func(t *testing.T, codec string) {
		url := new(relay).serve(t)
		report, err := Bench{Plan: small(url, codec), Servers: []Process{{Together, os.Getpid()}}}.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		receivers := int64(49)
		if codec == V1 {
			receivers = 50
			if report.Join.Count != 200 || report.Load.Answered != 200 {
				t.Errorf("%d joined, %d answered", report.Join.Count, report.Load.Answered)
			}
		}
		if report.Connect.Count != 200 || report.Load.Sent != 200 || report.Load.Delivered != 200*receivers {
			t.Errorf("%d connected, %d sent, %d delivered", report.Connect.Count, report.Load.Sent, report.Load.Delivered)
		}
		l := report.Load
		if !l.Passed || l.Latency.P50 <= 0 || l.Latency.Max < l.Latency.P50 || l.DeliveriesPerSecond <= 0 {
			t.Errorf("%+v", l)
		}
		if a := report.Arrival; len(a) != 1 || a[0].PerMillion() <= 0 {
			t.Errorf("arriving cost %+v", a)
		}
		if len(l.Servers) != 1 || l.Servers[0].PerMillion() <= 0 || l.Self.PerMillion() <= 0 || report.Memory[0].After <= 0 {
			t.Errorf("costs %+v and %+v, memory %+v", l.Servers, l.Self, report.Memory)
		}
	})
}

func TestEveryFaultFailsTheRun(t *testing.T) {
	found := map[fault]func(c Check) int64{
		drop:     func(c Check) int64 { return c.Lost },
		twice:    func(c Check) int64 { return c.Duplicated },
		swap:     func(c Check) int64 { return c.OutOfOrder },
		truncate: func(c Check) int64 { return c.Damaged },
		hangUp:   func(c Check) int64 { return c.Dropped },
	}
	forBothCodecs(t, func(t *testing.T, codec string) {
		for f, count := range found {
			t.Run(string(f), func(t *testing.T) {
				t.Parallel()
				disturb := func(n int) fault {
					if n%1000 == 500 {
						return f
					}
					return none
				}
				plan := small((&relay{fault: disturb}).serve(t), codec)
				plan.Settle = time.Second
				report, err := Bench{Plan: plan}.Load(t.Context())
				if !errors.Is(err, ErrFailed) || report.Load.Passed {
					t.Fatal(err)
				}
				if n := count(report.Load.Check); n < 1 || n > 10 {
					t.Error(report.Load.Check)
				}
			})
		}
	})
}

func TestRefusedSendsFailTheRunButAreNotLost(t *testing.T) {
	url := (&relay{refuse: func(n int) bool { return n%40 == 20 }}).serve(t)
	report, err := Bench{Plan: small(url, V1)}.Load(t.Context())
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "not now") {
		t.Fatal(err)
	}
	if c := report.Load.Check; c.Refused != 5 || c.Lost != 0 || c.OutOfOrder != 0 || c.Unanswered != 0 {
		t.Error(c)
	}
}

// A server that stands still for a while must show in the latency of all messages that were due meanwhile, though none of
// them could be delivered: that is the omission that is to be avoided.
func TestLatencyCountsFromWhenAMessageWasDue(t *testing.T) {
	still := false
	stall := func(n int) {
		if n > 1000 && !still {
			still = true
			time.Sleep(time.Second) // the event itself: the server stands still
		}
	}
	plan := small((&relay{before: stall}).serve(t), Text)
	plan.Duration = 2 * time.Second
	plan.Rate = 100
	report, err := Bench{Plan: plan}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Half of what is measured was due while it stood still, and waited half a second on average.
	if l := report.Load.Latency; l.P90 < 500 || l.Max < 900 || l.Mean < 150 {
		t.Errorf("%s, mean %g", l, l.Mean)
	}
}

func TestWorkersShareARoomAndCompareWhatTheySaw(t *testing.T) {
	forBothCodecs(t, func(t *testing.T, codec string) {
		plan := small(new(relay).serve(t), codec)
		plan.Rooms, plan.RoomSize = 1, 200
		report, err := Bench{Plan: plan, Workers: 3}.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := int64(200 * 199)
		if codec == V1 {
			want += 200
		}
		if report.Workers != 3 || report.Load.Sent != 200 || report.Load.Delivered != want {
			t.Errorf("%d workers, %d sent, %d delivered", report.Workers, report.Load.Sent, report.Load.Delivered)
		}
	})
}

func TestConnectionsAreSpreadOverSourceAddresses(t *testing.T) {
	p := Plan{URLs: []string{"ws://a", "ws://b"}, Rooms: 10_000, RoomSize: 10}
	perTarget := map[int]int{}
	ports := map[string]int{}
	for n := range p.Connections() {
		target := p.targetOf(n)
		perTarget[target]++
		ports[fmt.Sprint(target, p.sourceOf(n, 0))]++
		if p.sourceOf(n, 0) == p.sourceOf(n, 1) {
			t.Fatal("a connection comes again from where it came before")
		}
	}
	if perTarget[0] != 50_000 || perTarget[1] != 50_000 {
		t.Errorf("targets have %v", perTarget)
	}
	for pair, n := range ports {
		if n > portsPerSource+10 {
			t.Errorf("%d ports for %s", n, pair)
		}
	}
}

func TestAnIdleRunMeasuresMemory(t *testing.T) {
	plan := small(new(relay).serve(t), V1)
	plan.Settle = time.Second
	report, err := Bench{Plan: plan, Servers: []Process{{Together, os.Getpid()}}}.Idle(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if i := report.Idle; len(i.Servers) != 1 || len(i.Churn) != 2 || i.Dropped != 0 || len(i.Left) != 1 || i.Left[0].After <= 0 {
		t.Errorf("%+v", i)
	}
	if report.Connect.Count != 200 || report.Join.Count != 200 {
		t.Errorf("%+v, %+v", report.Connect, report.Join)
	}
}

func TestARampEndsAtTheRateThatTheServerBears(t *testing.T) {
	bearable := 1000
	slow := &relay{}
	slow.before = func(int) { time.Sleep(time.Second / time.Duration(bearable)) } // the event itself: the server's work
	plan := small(slow.serve(t), Text)
	plan.Rooms, plan.RoomSize, plan.Senders = 1, 10, 2
	search := Search{Bound: 100 * time.Millisecond, Step: 500 * time.Millisecond, Close: 1.5}
	report, err := Bench{Plan: plan}.Ramp(t.Context(), search)
	if err != nil {
		t.Fatal(err)
	}
	if l := report.Load; l == nil || l.Rate > 1.5*float64(bearable) {
		t.Errorf("the best is %+v", l)
	}
}

func TestACancelledRunEnds(t *testing.T) {
	plan := small(new(relay).serve(t), V1)
	plan.Duration = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	b := Bench{Plan: plan, Progress: func(s Status) {
		if s.Delivered > 0 {
			cancel()
		}
	}}
	if _, err := b.Load(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestWhatCannotBeReachedIsSaid(t *testing.T) {
	for url, want := range map[string]string{
		"ws://127.0.0.1:1": "connection refused",
		"ftp://127.0.0.1":  "begins with ws://",
		"ws://":            "names no host",
	} {
		_, err := Bench{Plan: Plan{URLs: []string{url}}}.Load(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestConnectingKeepsToItsRate(t *testing.T) {
	plan := small(new(relay).serve(t), Text)
	plan.ConnectRate = 400
	report, err := Bench{Plan: plan, Workers: 2}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := report.Connect; c.Count != 200 || c.PerSecond() > 420 {
		t.Errorf("%d connected, %g a second", c.Count, c.PerSecond())
	}
}

func TestPingsAreAnswered(t *testing.T) {
	r := new(relay)
	if _, err := (Bench{Plan: small(r.serve(t), V1)}).Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.pongs.Load(); n != 200 {
		t.Errorf("%d pongs for 200 pings", n)
	}
}

func TestTLS(t *testing.T) {
	forBothCodecs(t, func(t *testing.T, codec string) {
		plan := small(new(relay).start(t, (*httptest.Server).StartTLS), codec)
		if _, err := (Bench{Plan: plan}).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Fatalf("an unknown certificate: %v", err)
		}
		plan.Insecure = true
		report, err := Bench{Plan: plan}.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if report.Load.Sent != 200 || report.Load.Check.Count() != 0 {
			t.Errorf("%+v", report.Load)
		}
	})
}

func TestTheFloorIsMeasured(t *testing.T) {
	plan := small("", V1)
	for _, batch := range []int{1, 8} {
		f, err := Floor(t.Context(), plan, batch, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f.Sockets != 200 || f.Batch != batch || f.Deliveries != 8000 || f.Cost.PerMillion() <= 0 || f.FrameBytes < 200 {
			t.Errorf("%+v", f)
		}
	}
}
