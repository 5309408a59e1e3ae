package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// A Search is how a ramp looks for the highest rate.
type Search struct {
	Bound time.Duration // on the 99th percentile of the latency; default 200 ms
	Step  time.Duration // how long each rate is tried, after the warm-up; default 5 s
	Close float64       // ends it, once the best rate that passed and the least that failed are so close; default 1.05
}

const maxSteps = 40

// Ramp looks for the highest rate at which everything is delivered and the latency stays within the bound: from the plan's
// rate it doubles until a step fails, and then halves the distance. A rate that is only too slow gets a second chance, as the
// machine may have had something else to do. The report's Load is the best step.
func (b Bench) Ramp(ctx context.Context, search Search) (*Report, error) {
	search.Bound = cmp.Or(search.Bound, 200*time.Millisecond)
	search.Step = cmp.Or(search.Step, 5*time.Second)
	search.Close = cmp.Or(search.Close, 1.05)
	s, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	s.report.Bound = float64(search.Bound.Microseconds()) / 1000

	rate, passed, failed := s.plan.Rate, 0.0, math.Inf(1)
	for range maxSteps {
		step, err := s.try(rate, search)
		if err == nil && !step.Passed && step.Check.Count() == 0 {
			step, err = s.try(rate, search)
		}
		if err != nil {
			return nil, err
		}
		if step.Passed {
			passed, s.report.Load = rate, step
		} else {
			failed = rate
		}
		switch {
		case passed == 0 && rate < 0.1:
			return s.report, fmt.Errorf("%w at every rate, at last: %s", ErrFailed, step.Check)
		case passed == 0:
			rate /= 4
		case math.IsInf(failed, 1):
			rate *= 2
		case failed <= passed*search.Close:
			return s.report, nil
		default:
			rate = math.Sqrt(passed * failed)
		}
		if !step.Passed {
			if err := s.regather(); err != nil {
				return s.report, err
			}
		}
	}
	return s.report, errors.New("the search did not come to an end")
}

// try sends at a rate and compares the latency with the bound.
func (s *session) try(rate float64, search Search) (*LoadReport, error) {
	r, err := s.step(rate, min(s.plan.Warmup, search.Step/4), search.Step)
	if err != nil {
		return nil, err
	}
	r.Passed = r.Passed && r.Latency.P99 < float64(search.Bound.Microseconds())/1000
	s.report.Steps = append(s.report.Steps, r)
	return r, nil
}

// regather brings back who was lost, keeping the report of how fast it went at first.
func (s *session) regather() error {
	connect, join := s.report.Connect, s.report.Join
	err := s.gather()
	s.report.Connect, s.report.Join = connect, join
	return err
}
