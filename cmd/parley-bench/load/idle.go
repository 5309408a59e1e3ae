package load

import (
	"context"
	"fmt"
	"time"
)

// Idle connects, joins, holds the connections for the plan's duration without sending, and measures the servers' memory, and
// the processor time of pings and of looking after the rooms, in the second half. With churn, everyone then goes and comes
// again so many times. At last all go, and the memory is read once more when it has come to rest.
func (b Bench) Idle(ctx context.Context, churn int) (*Report, error) {
	s, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	idle := &IdleReport{HeldSeconds: s.plan.Duration.Seconds(), Joined: s.report.Memory}
	s.report.Idle = idle
	half := s.plan.Duration / 2
	began := s.clock.now()
	costs := s.sampleCosts(began+int64(half), began+int64(s.plan.Duration))
	if err := s.hold("holding", s.plan.Duration); err != nil {
		return nil, err
	}
	used := <-costs
	if used.err != nil {
		return nil, used.err
	}
	for _, name := range groups(s.Servers) {
		idle.Servers = append(idle.Servers, costOf(name, used.groups[name], 0, half.Seconds()))
	}
	held, err := residentOf(s.Servers)
	if err != nil {
		return nil, err
	}
	s.report.Memory = memory(s.Servers, s.before, held, s.plan.Connections())
	if idle.Dropped, err = s.missing(); err != nil {
		return nil, err
	}
	for i := range churn {
		if err := s.leave(); err != nil {
			return nil, err
		}
		if err := s.hold(fmt.Sprintf("coming back, %d of %d", i+1, churn), time.Second); err != nil {
			return nil, err
		}
		if err := s.regather(); err != nil {
			return nil, err
		}
		now, err := residentOf(s.Servers)
		if err != nil {
			return nil, err
		}
		idle.Churn = append(idle.Churn, now[Together])
	}
	if err := s.leave(); err != nil {
		return nil, err
	}
	left, err := s.atRest()
	if err != nil {
		return nil, err
	}
	idle.Left = memory(s.Servers, s.before, left, s.plan.Connections())
	if idle.Dropped > 0 {
		return s.report, fmt.Errorf("%w: the servers closed %d idle connections", ErrFailed, idle.Dropped)
	}
	return s.report, nil
}

func (s *session) leave() error {
	return s.call(func(_ int, w *workerClient) error { return w.Call("Disconnect", None{}, new(None)) })
}

// missing counts the connections that are not there any more.
func (s *session) missing() (int, error) {
	joined := 0
	for _, w := range s.fleet.workers {
		var one Status
		if err := w.Call("Progress", None{}, &one); err != nil {
			return 0, err
		}
		joined += one.Joined
	}
	return s.plan.Connections() - joined, nil
}

// hold waits, with progress.
func (s *session) hold(what string, d time.Duration) error {
	defer s.watch(what)()
	select {
	case <-time.After(d):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// atRest reads the servers' memory until it has not fallen for three times the plan's Settle: Go gives memory back bit by bit,
// and a node first lets the rooms linger.
func (s *session) atRest() (map[string]int64, error) {
	least, err := residentOf(s.Servers)
	for calm := 0; err == nil && calm < 8 && len(s.Servers) > 0; calm++ {
		if err = s.hold("waiting for memory to be given back", s.plan.Settle*3/8); err != nil {
			break
		}
		var now map[string]int64
		if now, err = residentOf(s.Servers); err == nil && now[Together] < least[Together]*99/100 {
			least, calm = now, 0
		}
	}
	return least, err
}
