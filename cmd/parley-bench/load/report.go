package load

import (
	"errors"
	"fmt"
	"strings"
)

// ErrFailed is the error of a run in which the servers did not deliver as they should. The report is there all the same.
var ErrFailed = errors.New("the check of delivery failed")

// A Report is what a run measured.
type Report struct {
	Server      string   `json:"server,omitempty"` // what is measured, where several are compared
	URLs        []string `json:"urls"`
	Codec       string   `json:"codec"`
	Connections int      `json:"connections"`
	Rooms       int      `json:"rooms"`
	RoomSize    int      `json:"room_size"`
	Senders     int      `json:"senders_per_room"`
	Size        int      `json:"message_bytes"`
	Workers     int      `json:"generator_processes"`

	Connect PhaseReport `json:"connect"`
	Join    PhaseReport `json:"join"`
	Arrival []Cost      `json:"arrival,omitempty"` // what both cost each group of servers, by the million connections

	Load  *LoadReport   `json:"load,omitempty"`  // of the step that counts: the only one, or the best of a ramp
	Steps []*LoadReport `json:"steps,omitempty"` // of a ramp
	Bound float64       `json:"ramp_p99_bound_ms,omitempty"`
	Idle  *IdleReport   `json:"idle,omitempty"`

	Memory []Memory `json:"memory,omitempty"` // of the servers, in groups
}

// A LoadReport is one step of sending and receiving.
type LoadReport struct {
	Rate    float64 `json:"rate"` // messages a second that were due
	Seconds float64 `json:"seconds"`

	Sent                int64   `json:"sent"` // warm-up included
	Answered            int64   `json:"answered,omitempty"`
	Delivered           int64   `json:"delivered"`
	SendsPerSecond      float64 `json:"sends_per_second"` // in the time measured
	DeliveriesPerSecond float64 `json:"deliveries_per_second"`

	Latency Latency  `json:"latency_ms"`                  // of a delivery, from when its message was due
	Answers *Latency `json:"answer_latency_ms,omitempty"` // of the answer to a send, likewise

	Check   Check  `json:"check"`
	Servers []Cost `json:"servers,omitempty"` // what each group of processes used; first of all together
	Self    Cost   `json:"generator"`         // what the generator used

	Passed bool `json:"passed"` // the check, and in a ramp the bound
}

// Latency is a distribution, in milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Check counts what was wrong.
type Check struct {
	Lost       int64 `json:"lost"`         // deliveries that did not come
	Duplicated int64 `json:"duplicated"`   // deliveries that came again
	OutOfOrder int64 `json:"out_of_order"` // deliveries that contradict the order in which the room's others got them
	Foreign    int64 `json:"foreign"`      // messages and answers that nobody asked for
	Damaged    int64 `json:"damaged"`      // deliveries that are not what was sent
	Gaps       int64 `json:"gaps"`         // losses that the server told
	Unsent     int64 `json:"unsent"`       // messages that could not be sent, as the server did not read or was gone
	Refused    int64 `json:"refused"`      // sends that were answered with an error
	Unanswered int64 `json:"unanswered"`   // sends that were not answered
	Dropped    int64 `json:"dropped"`      // connections that the server closed

	Problem string `json:"problem,omitempty"` // the first, in words
}

func (c *Check) add(o Check) {
	c.Lost += o.Lost
	c.Duplicated += o.Duplicated
	c.OutOfOrder += o.OutOfOrder
	c.Foreign += o.Foreign
	c.Damaged += o.Damaged
	c.Gaps += o.Gaps
	c.Unsent += o.Unsent
	c.Refused += o.Refused
	c.Unanswered += o.Unanswered
	c.Dropped += o.Dropped
	if c.Problem == "" {
		c.Problem = o.Problem
	}
}

// Count adds up all that was wrong.
func (c Check) Count() int64 {
	return c.Lost + c.Duplicated + c.OutOfOrder + c.Foreign + c.Damaged + c.Gaps +
		c.Unsent + c.Refused + c.Unanswered + c.Dropped
}

// Err is nil if nothing was wrong, and otherwise an ErrFailed that says what.
func (c Check) Err() error {
	if c.Count() == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrFailed, c)
}

// String lists what was wrong; lost, duplicated and out of order in any case.
func (c Check) String() string {
	words := []string{
		Grouped(c.Lost) + " lost", Grouped(c.Duplicated) + " duplicated", Grouped(c.OutOfOrder) + " out of order",
	}
	for _, more := range []struct {
		count int64
		what  string
	}{
		{c.Foreign, "foreign"},
		{c.Damaged, "damaged"},
		{c.Gaps, "told gaps"},
		{c.Unsent, "unsent"},
		{c.Refused, "refused"},
		{c.Unanswered, "unanswered"},
		{c.Dropped, "connections dropped"},
	} {
		if more.count > 0 {
			words = append(words, Grouped(more.count)+" "+more.what)
		}
	}
	s := strings.Join(words, ", ")
	if c.Problem != "" {
		s += " (" + c.Problem + ")"
	}
	return s
}

// CPU is processor time, in seconds.
type CPU struct {
	User   float64 `json:"user_seconds"`
	System float64 `json:"system_seconds"`
}

func (c CPU) minus(d CPU) CPU { return CPU{c.User - d.User, c.System - d.System} }
func (c CPU) plus(d CPU) CPU  { return CPU{c.User + d.User, c.System + d.System} }

// Total is the processor time in both modes.
func (c CPU) Total() float64 { return c.User + c.System }

// A Cost is what a group of processes used for a number of deliveries, or of connections.
type Cost struct {
	Name string `json:"name"`
	CPU
	UserPerMillion   float64 `json:"user_seconds_per_million"`
	SystemPerMillion float64 `json:"system_seconds_per_million"`
	Cores            float64 `json:"cores"` // that were busy, on average
}

func costOf(name string, used CPU, deliveries int64, seconds float64) Cost {
	c := Cost{Name: name, CPU: used}
	if deliveries > 0 {
		c.UserPerMillion = used.User / float64(deliveries) * 1e6
		c.SystemPerMillion = used.System / float64(deliveries) * 1e6
	}
	if seconds > 0 {
		c.Cores = used.Total() / seconds
	}
	return c
}

// PerMillion is the processor time for a million deliveries, in seconds.
func (c Cost) PerMillion() float64 { return c.UserPerMillion + c.SystemPerMillion }

// CostNamed is the cost of a group, or of nobody if there is none of that name.
func CostNamed(all []Cost, name string) Cost {
	for _, c := range all {
		if c.Name == name {
			return c
		}
	}
	return Cost{}
}

// Memory is what a group of processes holds resident, in bytes.
type Memory struct {
	Name          string  `json:"name"`
	Before        int64   `json:"before_bytes"` // connecting
	After         int64   `json:"after_bytes"`  // joining, and with Idle the hold
	PerConnection float64 `json:"bytes_per_connection"`
}

// MemoryNamed is the memory of a group, or of nobody if there is none of that name.
func MemoryNamed(all []Memory, name string) Memory {
	for _, m := range all {
		if m.Name == name {
			return m
		}
	}
	return Memory{}
}

// An IdleReport is what a run without sending saw.
type IdleReport struct {
	HeldSeconds float64  `json:"held_seconds"`
	Servers     []Cost   `json:"servers,omitempty"`     // what each group of processes used in the second half
	Joined      []Memory `json:"joined"`                // right after joining
	Churn       []int64  `json:"churn_bytes,omitempty"` // of all servers, when everyone had come again, each time
	Left        []Memory `json:"left"`                  // after everyone had gone
	Dropped     int      `json:"dropped"`               // connections that the server closed meanwhile
}
