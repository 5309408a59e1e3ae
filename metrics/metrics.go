// Package metrics counts what a node and its bus tell, for Prometheus to scrape.
//
// Metrics implements the observers of the packages node and bus without knowing either. Every series exists from the start,
// at zero, and no label takes a value from outside: what is unknown counts as "other".
package metrics

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// other is the label's value for what a label has no value for.
const other = "other"

// What the labels may say. Keep in step with the package node's contract.
var (
	codecs      = []string{"plain", "json", "sse", other}
	closeCodes  = []int{1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4401, 4403, 4408}
	rejectCodes = []string{
		"bad_request", "unauthorized", "expired", "forbidden", "not_joined", "not_found", "conflict", "too_large", "rate_limited",
		"unavailable", "unsupported",
	}
	limits = []string{
		"connections", "address_connections", "address_attempts", "address_requests", "address_rooms", "messages", "joins", "rooms",
		"user_messages", "user_connections",
	}
)

// Metrics are the collectors of one node. All methods may be called concurrently. They allocate nothing, but for a
// histogram bucket seen for the first time.
type Metrics struct {
	// Static after construction: the children of all labels, resolved.

	connections    [4]prometheus.Gauge // by codec, as are the next five
	opened         [4]prometheus.Counter
	received       [4]prometheus.Counter
	receivedBytes  [4]prometheus.Counter
	delivered      [4]prometheus.Counter
	deliveredBytes [4]prometheus.Counter
	closed         map[int]prometheus.Counter
	closedOther    prometheus.Counter
	rejected       map[string]prometheus.Counter
	rejectedOther  prometheus.Counter
	limited        map[string]prometheus.Counter
	limitedOther   prometheus.Counter

	rooms         prometheus.Gauge
	overflows     prometheus.Counter
	catchUps      prometheus.Counter
	gaps          prometheus.Counter
	deliveryDelay prometheus.Histogram
	leastDelay    least

	published       prometheus.Counter
	failures        []failure
	publishFailed   prometheus.Counter
	publishDuration prometheus.Histogram
	repairs         prometheus.Counter
	repaired        prometheus.Counter
	breaks          prometheus.Counter
	reconnects      prometheus.Counter
}

// A failure is one way in which a publish ends without an id.
type failure struct {
	err     error
	counter prometheus.Counter
}

// New registers the collectors. failures names the errors that a publish can end with; any other counts as "other".
func New(reg prometheus.Registerer, failures map[string]error) *Metrics {
	f := factory{reg}

	connections := f.gauges("connections", "Clients connected now.", "codec")
	opened := f.counters("connections_opened_total", "Clients that connected.", "codec")
	received := f.counters("messages_received_total", "Requests and plain texts that came from clients.", "codec")
	receivedBytes := f.counters("received_bytes_total", "Bytes of what came from clients.", "codec")
	delivered := f.counters("messages_delivered_total", "Messages delivered, counted once per client.", "codec")
	deliveredBytes := f.counters("delivered_bytes_total", "Bytes of the messages delivered.", "codec")
	closed := f.counters("connections_closed_total", "Connections that ended, by WebSocket close code; 1006 is none.", "code")
	rejected := f.counters("requests_rejected_total", "Requests answered with an error.", "code")
	limited := f.counters("limited_total", "Times that what a client wanted was over a limit.", "limit")
	published := f.counters("messages_published_total", "Messages handed to the bus, by what came of it.", "outcome")

	m := &Metrics{
		closed:        make(map[int]prometheus.Counter),
		closedOther:   closed.WithLabelValues(other),
		rejected:      make(map[string]prometheus.Counter),
		rejectedOther: rejected.WithLabelValues(other),
		limited:       make(map[string]prometheus.Counter),
		limitedOther:  limited.WithLabelValues(other),

		rooms:     f.gauge("rooms", "Rooms with members on this node."),
		overflows: f.counter("queue_overflows_total", "Times that a client's queue was full, and the log took over."),
		catchUps:  f.counter("queue_catch_ups_total", "Times that such a client was live again."),
		gaps:      f.counter("gaps_told_total", "Times that a client was told of messages lost for good."),
		deliveryDelay: f.histogram("delivery_delay_seconds",
			"From a message's id, made by the bus, to its delivery by this node."),

		published:       published.WithLabelValues("ok"),
		publishFailed:   published.WithLabelValues(other),
		publishDuration: f.histogram("publish_duration_seconds", "From handing a message to the bus to its outcome."),
		repairs:         f.counter("bus_repairs_total", "Times that a room was made whole from the log."),
		repaired:        f.counter("bus_repaired_messages_total", "Messages that the transport lost and the log gave back."),
		breaks:          f.counter("bus_breaks_total", "Times that the log was found to have lost messages."),
		reconnects:      f.counter("bus_reconnects_total", "Connections to the bus for what is said that had to be replaced."),
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace,
		Name:      "delivery_delay_least_seconds",
		Help:      "The least of the last two minutes. By what it is far from 0, below or above, the bus's clock is ahead of the node's, or behind.",
	}, func() float64 { return m.leastDelay.value(time.Now()).Seconds() }))
	for i, codec := range codecs {
		m.connections[i] = connections.WithLabelValues(codec)
		m.opened[i] = opened.WithLabelValues(codec)
		m.received[i] = received.WithLabelValues(codec)
		m.receivedBytes[i] = receivedBytes.WithLabelValues(codec)
		m.delivered[i] = delivered.WithLabelValues(codec)
		m.deliveredBytes[i] = deliveredBytes.WithLabelValues(codec)
	}
	for _, code := range closeCodes {
		m.closed[code] = closed.WithLabelValues(strconv.Itoa(code))
	}
	for _, code := range rejectCodes {
		m.rejected[code] = rejected.WithLabelValues(code)
	}
	for _, limit := range limits {
		m.limited[limit] = limited.WithLabelValues(limit)
	}
	for _, name := range slices.Sorted(maps.Keys(failures)) {
		m.failures = append(m.failures, failure{failures[name], published.WithLabelValues(name)})
	}
	return m
}

// codecIndex is where codec stands in codecs.
func codecIndex(codec string) int {
	switch codec {
	case "plain":
		return 0
	case "json":
		return 1
	case "sse":
		return 2
	}
	return 3
}

// Connected counts a client that came.
func (m *Metrics) Connected(codec string) {
	i := codecIndex(codec)
	m.opened[i].Inc()
	m.connections[i].Inc()
}

// Closed counts a client that went.
func (m *Metrics) Closed(codec string, code int) {
	m.connections[codecIndex(codec)].Dec()
	if c, ok := m.closed[code]; ok {
		c.Inc()
	} else {
		m.closedOther.Inc()
	}
}

// RoomOpened counts a room in.
func (m *Metrics) RoomOpened() { m.rooms.Inc() }

// RoomClosed counts a room out.
func (m *Metrics) RoomClosed() { m.rooms.Dec() }

// Received counts a message from a client.
func (m *Metrics) Received(codec string, bytes int) {
	i := codecIndex(codec)
	m.received[i].Inc()
	m.receivedBytes[i].Add(float64(bytes))
}

// Delivered counts messages to clients.
func (m *Metrics) Delivered(codec string, messages, bytes int) {
	i := codecIndex(codec)
	m.delivered[i].Add(float64(messages))
	m.deliveredBytes[i].Add(float64(bytes))
}

// DeliveryDelay observes how long a message took. Clocks that differ can make d negative, which counts as nothing, and shows in the
// least.
func (m *Metrics) DeliveryDelay(d time.Duration) {
	m.deliveryDelay.Observe(max(0, d).Seconds())
	m.leastDelay.observe(d, time.Now())
}

// Overflowed counts a client that fell behind its queue.
func (m *Metrics) Overflowed() { m.overflows.Inc() }

// CaughtUp counts one that is live again.
func (m *Metrics) CaughtUp() { m.catchUps.Inc() }

// GapTold counts a gap that a client was told of.
func (m *Metrics) GapTold() { m.gaps.Inc() }

// Rejected counts an error that a client was answered with.
func (m *Metrics) Rejected(code string) {
	if c, ok := m.rejected[code]; ok {
		c.Inc()
	} else {
		m.rejectedOther.Inc()
	}
}

// Limited counts what was over a limit.
func (m *Metrics) Limited(limit string) {
	if c, ok := m.limited[limit]; ok {
		c.Inc()
	} else {
		m.limitedOther.Inc()
	}
}

// Published counts a publish by its outcome, and observes how long it took.
func (m *Metrics) Published(took time.Duration, err error) {
	m.publishDuration.Observe(max(0, took).Seconds())
	m.outcome(err).Inc()
}

func (m *Metrics) outcome(err error) prometheus.Counter {
	if err == nil {
		return m.published
	}
	for _, f := range m.failures {
		if errors.Is(err, f.err) {
			return f.counter
		}
	}
	return m.publishFailed
}

// Repaired counts a room made whole.
func (m *Metrics) Repaired(messages int) {
	m.repairs.Inc()
	m.repaired.Add(float64(max(0, messages)))
}

// Broken counts a log that lost messages.
func (m *Metrics) Broken() { m.breaks.Inc() }

// Reconnected counts a connection to the bus that was replaced.
func (m *Metrics) Reconnected() { m.reconnects.Inc() }
