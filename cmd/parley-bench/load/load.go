// Package load loads chat servers and measures what their deliveries and connections cost, and checks every delivery as it
// does: a server that loses, repeats or reorders messages fails the run.
//
// Many sockets are driven by one goroutine per process that waits for all of them (loop), since the generator shares the
// machine with what it measures. It says what it costs itself.
package load

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Bench is a run to be made.
type Bench struct {
	Plan     Plan
	Servers  []Process    // whose cost is measured
	Workers  int          // processes of the generator; default as many as the limit of open files asks for
	Command  []string     // that starts a worker; default this executable with "worker"
	Progress func(Status) // is called about once a second; default not at all
}

// Load connects, joins, sends at the plan's rate, and reports. The error is an ErrFailed if the check found something.
func (b Bench) Load(ctx context.Context) (*Report, error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	s.report.Load, err = s.step(s.plan.Rate, s.plan.Warmup, s.plan.Duration)
	if err != nil {
		return nil, err
	}
	return s.report, s.report.Load.Check.Err()
}

// A session is a run under way: its connections are there.
type session struct {
	Bench
	ctx    context.Context
	plan   Plan
	fleet  *fleet
	clock  clock
	report *Report
	before map[string]int64 // resident memory
	steps  int
	cancel context.CancelFunc
}

// open starts the workers, connects and joins.
func (b Bench) open(ctx context.Context) (*session, error) {
	plan, err := b.Plan.WithDefaults()
	if err != nil {
		return nil, err
	}
	s := &session{Bench: b, plan: plan, clock: newClock()}
	s.ctx, s.cancel = context.WithCancel(ctx)
	if s.before, err = residentOf(b.Servers); err != nil {
		return nil, err
	}
	workers := cmp.Or(b.Workers, workersFor(plan, MaxSockets()))
	if s.fleet, err = muster(s.ctx, plan, workers, b.Command); err != nil {
		return nil, err
	}
	s.report = &Report{
		URLs: plan.URLs, Codec: plan.Codec, Connections: plan.Connections(), Rooms: plan.Rooms, RoomSize: plan.RoomSize,
		Senders: plan.Senders, Size: plan.Size, Workers: len(s.fleet.workers),
	}
	if err := s.arrive(); err != nil {
		s.close()
		return nil, err
	}
	after, err := residentOf(b.Servers)
	if err != nil {
		s.close()
		return nil, err
	}
	s.report.Memory = memory(b.Servers, s.before, after, plan.Connections())
	return s, nil
}

func (s *session) close() {
	s.cancel()
	s.fleet.dismiss()
}

// afterwards is how long servers have for what is left to do once all have joined, such as telling others of them.
const afterwards = 250 * time.Millisecond

// arrive has all connect and join, and reports what that costs the servers.
func (s *session) arrive() error {
	before, err := cpuOf(s.Servers)
	if err != nil {
		return err
	}
	if err := s.gather(); err != nil {
		return err
	}
	if err := s.hold("settling", afterwards); err != nil {
		return err
	}
	after, err := cpuOf(s.Servers)
	if err != nil {
		return err
	}
	seconds := s.report.Connect.Seconds + s.report.Join.Seconds
	for _, name := range groups(s.Servers) {
		used := after[name].minus(before[name])
		s.report.Arrival = append(s.report.Arrival, costOf(name, used, int64(s.plan.Connections()), seconds))
	}
	return nil
}

// gather connects and joins whoever is not there.
func (s *session) gather() (err error) {
	rate := s.plan.ConnectRate / float64(len(s.fleet.workers))
	s.report.Connect, err = s.phase("connecting", "Connect", rate)
	if err == nil && s.plan.Codec != Text {
		s.report.Join, err = s.phase("joining", "Join", None{})
	}
	return err
}

// phase has all workers connect or join.
func (s *session) phase(what, method string, argument any) (PhaseReport, error) {
	defer s.watch(what)()
	reports := make([]PhaseReport, len(s.fleet.workers))
	began := s.clock.now()
	err := s.call(func(i int, w *workerClient) error { return w.Call(method, argument, &reports[i]) })
	total := PhaseReport{Seconds: float64(s.clock.now()-began) / 1e9}
	for _, r := range reports {
		total.Count += r.Count
	}
	return total, err
}

// call calls all workers, and gives up when the run is cancelled.
func (s *session) call(call func(i int, w *workerClient) error) error {
	number := map[*workerClient]int{}
	for i, w := range s.fleet.workers {
		number[w] = i
	}
	done := make(chan error, 1)
	go func() { done <- s.fleet.each(func(w *workerClient) error { return call(number[w], w) }) }()
	select {
	case err := <-done:
		return err
	case <-s.ctx.Done():
		for _, w := range s.fleet.workers {
			w.Close() // which ends the calls
		}
		<-done
		return s.ctx.Err()
	}
}

// step sends at a rate and waits for everything to arrive.
func (s *session) step(rate float64, warmup, duration time.Duration) (*LoadReport, error) {
	defer s.watch(fmt.Sprintf("%s messages/s", Short(rate)))()
	s.steps++
	start := s.clock.now() + int64(100*time.Millisecond)
	from := start + int64(warmup)
	to := from + int64(duration)

	costs := s.sampleCosts(from, to)
	order := Step{Number: s.steps, Start: start, From: from, To: to, Rate: rate, Workers: len(s.fleet.workers)}
	all, err := s.collect(func(i int, w *workerClient, sent *Sent) error {
		order := order
		order.Worker = i
		return w.Call("Load", order, sent)
	})
	used := <-costs
	if err = cmp.Or(err, used.err); err != nil {
		return nil, err
	}
	all, err = s.collect(func(_ int, w *workerClient, sent *Sent) error { return w.Call("Settle", all, sent) })
	if err != nil {
		return nil, err
	}
	outcomes := make([]Outcome, len(s.fleet.workers))
	if err := s.call(func(i int, w *workerClient) error { return w.Call("Judge", all, &outcomes[i]) }); err != nil {
		return nil, err
	}
	return s.judge(rate, duration, outcomes, used), nil
}

// collect calls all workers and puts together what they have sent.
func (s *session) collect(call func(i int, w *workerClient, sent *Sent) error) (Sent, error) {
	sent := make([]Sent, len(s.fleet.workers))
	err := s.call(func(i int, w *workerClient) error { return call(i, w, &sent[i]) })
	all := Sent{Counts: map[uint32]uint32{}}
	for _, one := range sent {
		maps.Copy(all.Counts, one.Counts)
		all.Refused = append(all.Refused, one.Refused...)
	}
	return all, err
}

// usage is what the servers used between two points of time.
type usage struct {
	groups map[string]CPU
	err    error
}

// sampleCosts reads the servers' processor time at both points, and sends the difference.
func (s *session) sampleCosts(from, to int64) <-chan usage {
	result := make(chan usage, 1)
	go func() {
		var first map[string]CPU
		for _, at := range []int64{from, to} {
			select {
			case <-time.After(time.Duration(at - s.clock.now())):
			case <-s.ctx.Done():
				result <- usage{err: s.ctx.Err()}
				return
			}
			now, err := cpuOf(s.Servers)
			if err != nil {
				result <- usage{err: err}
				return
			}
			if first == nil {
				first = now
				continue
			}
			for name := range now {
				now[name] = now[name].minus(first[name])
			}
			result <- usage{groups: now}
		}
	}()
	return result
}

// judge puts the workers' outcomes together.
func (s *session) judge(rate float64, duration time.Duration, outcomes []Outcome, used usage) *LoadReport {
	seconds := duration.Seconds()
	r := &LoadReport{Rate: rate, Seconds: seconds}
	latency, answers := newHistogram(), newHistogram()
	digests := map[int]uint64{}
	var deliveries, sends int64
	var self CPU
	for _, o := range outcomes {
		latency.Merge(hdrhistogram.Import(o.Latency))
		answers.Merge(hdrhistogram.Import(o.Answers))
		r.Sent += o.Sent
		r.Answered += o.Answered
		r.Delivered += o.Delivered
		deliveries += o.DeliveredMeasured
		sends += o.SentMeasured
		self = self.plus(o.Self)
		r.Check.add(o.Check)
		for room, digest := range o.Digests {
			if other, ok := digests[room]; ok && other != digest && o.Check.Lost == 0 {
				r.Check.OutOfOrder++ // at least: the room's members in two processes saw different orders
			}
			digests[room] = digest
		}
	}
	r.SendsPerSecond = float64(sends) / seconds
	r.DeliveriesPerSecond = float64(deliveries) / seconds
	r.Latency = latencyOf(latency)
	if answers.TotalCount() > 0 {
		l := latencyOf(answers)
		r.Answers = &l
	}
	for _, name := range groups(s.Servers) {
		r.Servers = append(r.Servers, costOf(name, used.groups[name], deliveries, seconds))
	}
	r.Self = costOf("generator", self, deliveries, seconds)
	r.Passed = r.Check.Count() == 0
	return r
}

// newHistogram counts microseconds, up to two minutes, to three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, 3) }

const longest = 120_000_000

// record counts a time given in nanoseconds.
func record(h *hdrhistogram.Histogram, ns int64) { h.RecordValue(min(max(1, ns/1000), longest)) }

func latencyOf(h *hdrhistogram.Histogram) Latency {
	ms := func(quantile float64) float64 { return float64(h.ValueAtQuantile(quantile)) / 1000 }
	return Latency{
		Mean: h.Mean() / 1000, P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(h.Max()) / 1000,
	}
}

// watch reports progress until the function that it returns is called.
func (s *session) watch(what string) (stop func()) {
	if s.Progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-quit:
				return
			}
			total := Status{What: what}
			for _, w := range s.fleet.workers {
				var one Status
				if w.Call("Progress", None{}, &one) != nil {
					return
				}
				total.add(one)
			}
			s.Progress(total)
		}
	}()
	return func() { close(quit); <-done }
}
