package load

import "github.com/HdrHistogram/hdrhistogram-go"

// What the coordinator and its workers tell each other. A worker's methods are those of Worker.

// An Assignment is a worker's share of a plan: the connections First to First+Count-1.
type Assignment struct {
	Plan         Plan
	First, Count int
}

// A Step is a time of sending at one rate. Times are nanoseconds of the monotonic clock.
type Step struct {
	Number          int     // from 1 on
	Start, From, To int64   // sending begins, measuring begins, both end
	Rate            float64 // messages a second of all workers together
	Worker, Workers int
}

// stepBits bounds the messages that a sender may send in a step, so that every step has sequence numbers of its own.
const stepBits = 24

// base is the sequence number of each sender's first message in the step.
func (s Step) base() uint32 { return uint32(s.Number) << stepBits }

// Sent is what the senders of one or of all workers sent in a step.
type Sent struct {
	Counts  map[uint32]uint32 // per connection number
	Refused []uint64          // connection number and message, 32 bits each
}

// An Outcome is a worker's share of a step's result.
type Outcome struct {
	Latency, Answers *hdrhistogram.Snapshot // microseconds

	Sent, Answered, Delivered       int64
	SentMeasured, DeliveredMeasured int64 // within the time measured

	Self    CPU            // used by the worker in the time measured
	Check   Check          // what was wrong
	Digests map[int]uint64 // of the order in those rooms that have members in other workers too
}

// A PhaseReport says how fast connections were opened, or rooms joined.
type PhaseReport struct {
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
}

// PerSecond is the rate.
func (p PhaseReport) PerSecond() float64 {
	if p.Seconds <= 0 {
		return 0
	}
	return float64(p.Count) / p.Seconds
}

// Status is how far a worker, or a run, has come.
type Status struct {
	What      string // is being done; set by the coordinator
	Open      int    // connections
	Joined    int
	Sent      int64
	Delivered int64
	Problems  int64
}

func (s *Status) add(o Status) {
	s.Open += o.Open
	s.Joined += o.Joined
	s.Sent += o.Sent
	s.Delivered += o.Delivered
	s.Problems += o.Problems
}

// None is what a method without an argument takes, or without a result gives.
type None struct{}
