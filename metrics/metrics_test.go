package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errAway = errors.New("away")

func newMetrics() (*prometheus.Registry, *Metrics) {
	reg := prometheus.NewRegistry()
	return reg, New(reg, map[string]error{"unavailable": errAway})
}

// Each observation moves the series that it is about, and only that.
func TestObservationsCount(t *testing.T) {
	tests := []struct {
		name    string
		observe func(m *Metrics)
		want    string // series and values
	}{
		{"connected", func(m *Metrics) { m.Connected("json") }, `
			parley_connections{codec="json"} 1
			parley_connections_opened_total{codec="json"} 1`},
		{"closed", func(m *Metrics) { m.Connected("plain"); m.Closed("plain", 1012) }, `
			parley_connections{codec="plain"} 0
			parley_connections_opened_total{codec="plain"} 1
			parley_connections_closed_total{code="1012"} 1`},
		{"closed with a code of the client's own", func(m *Metrics) { m.Connected("sse"); m.Closed("sse", 3123) }, `
			parley_connections{codec="sse"} 0
			parley_connections_opened_total{codec="sse"} 1
			parley_connections_closed_total{code="other"} 1`},
		{"a codec that is none", func(m *Metrics) { m.Connected("morse") }, `
			parley_connections{codec="other"} 1
			parley_connections_opened_total{codec="other"} 1`},
		{"rooms", func(m *Metrics) { m.RoomOpened(); m.RoomOpened(); m.RoomClosed() }, `
			parley_rooms 1`},
		{"received", func(m *Metrics) { m.Received("plain", 120) }, `
			parley_messages_received_total{codec="plain"} 1
			parley_received_bytes_total{codec="plain"} 120`},
		{"delivered", func(m *Metrics) { m.Delivered("sse", 8, 960) }, `
			parley_messages_delivered_total{codec="sse"} 8
			parley_delivered_bytes_total{codec="sse"} 960`},
		{"delay", func(m *Metrics) { m.DeliveryDelay(20 * time.Millisecond) }, `
			parley_delivery_delay_seconds_bucket{le="0.025"} 1
			parley_delivery_delay_least_seconds 0.02
			parley_delivery_delay_seconds_sum 0.02
			parley_delivery_delay_seconds_count 1`},
		{"a delay by a clock that lags", func(m *Metrics) { m.DeliveryDelay(-time.Second) }, `
			parley_delivery_delay_least_seconds -1
			parley_delivery_delay_seconds_bucket{le="0.0005"} 1
			parley_delivery_delay_seconds_sum 0
			parley_delivery_delay_seconds_count 1`},
		{"overflow", (*Metrics).Overflowed, `
			parley_queue_overflows_total 1`},
		{"catch-up", (*Metrics).CaughtUp, `
			parley_queue_catch_ups_total 1`},
		{"gap", (*Metrics).GapTold, `
			parley_gaps_told_total 1`},
		{"rejected", func(m *Metrics) { m.Rejected("too_large") }, `
			parley_requests_rejected_total{code="too_large"} 1`},
		{"rejected with an unknown code", func(m *Metrics) { m.Rejected("teapot") }, `
			parley_requests_rejected_total{code="other"} 1`},
		{"limited", func(m *Metrics) { m.Limited("joins") }, `
			parley_limited_total{limit="joins"} 1`},
		{"limited by what is unknown", func(m *Metrics) { m.Limited("patience") }, `
			parley_limited_total{limit="other"} 1`},
		{"published", func(m *Metrics) { m.Published(2*time.Second, nil) }, `
			parley_messages_published_total{outcome="ok"} 1
			parley_publish_duration_seconds_bucket{le="2.5"} 1
			parley_publish_duration_seconds_sum 2
			parley_publish_duration_seconds_count 1`},
		{"publish failed as named", func(m *Metrics) { m.Published(0, fmt.Errorf("publish: %w", errAway)) }, `
			parley_messages_published_total{outcome="unavailable"} 1
			parley_publish_duration_seconds_bucket{le="0.0005"} 1
			parley_publish_duration_seconds_count 1`},
		{"publish failed otherwise", func(m *Metrics) { m.Published(0, io.EOF) }, `
			parley_messages_published_total{outcome="other"} 1
			parley_publish_duration_seconds_bucket{le="0.0005"} 1
			parley_publish_duration_seconds_count 1`},
		{"repaired", func(m *Metrics) { m.Repaired(42) }, `
			parley_bus_repairs_total 1
			parley_bus_repaired_messages_total 42`},
		{"broken", (*Metrics).Broken, `
			parley_bus_breaks_total 1`},
		{"reconnected", (*Metrics).Reconnected, `
			parley_bus_reconnects_total 1`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg, m := newMetrics()
			before := scrape(t, Handler(reg))
			tt.observe(m)
			after := scrape(t, Handler(reg))
			want := make(map[string]string)
			for line := range strings.Lines(strings.TrimSpace(tt.want)) {
				series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				want[series] = value
			}
			for series, value := range want {
				if after[series] != value {
					t.Errorf("%s = %q, want %s", series, after[series], value)
				}
			}
			for series, value := range after {
				if value == before[series] || strings.HasPrefix(series, "promhttp_") {
					continue
				}
				if _, ok := want[series]; !ok && !strings.Contains(series, "_bucket{") {
					t.Errorf("%s = %s moved too", series, value)
				}
			}
		})
	}
}

func TestHealthIsAskedAtEachScrape(t *testing.T) {
	reg := prometheus.NewRegistry()
	var deaf error
	age := 2500 * time.Millisecond
	RegisterHealth(reg, func() error { return deaf }, func() time.Duration { return age })

	if got := scrape(t, Handler(reg)); got["parley_ready"] != "1" || got["parley_bus_heartbeat_age_seconds"] != "2.5" {
		t.Errorf("scraped %v", got)
	}
	deaf, age = errors.New("deaf"), 8*time.Second
	if got := scrape(t, Handler(reg)); got["parley_ready"] != "0" || got["parley_bus_heartbeat_age_seconds"] != "8" {
		t.Errorf("scraped %v", got)
	}
}

func TestProcessIsDescribed(t *testing.T) {
	reg := prometheus.NewRegistry()
	RegisterProcess(reg, "ada", "v1.2.3", "abc")
	got := scrape(t, Handler(reg))
	for _, prefix := range []string{`parley_build_info{goversion="go`, "go_goroutines", "go_sched_latencies_seconds_sum"} {
		if !hasPrefix(got, prefix) {
			t.Errorf("no series begins with %s", prefix)
		}
	}
}

// delayBuckets is how many buckets the histogram of delays has.
func delayBuckets(t *testing.T, reg prometheus.Gatherer) (classic, native int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "parley_delivery_delay_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			return len(h.GetBucket()), len(h.GetPositiveDelta())
		}
	}
	t.Fatal("there is no histogram of delays")
	return 0, 0
}

// A scrape that asks for protocol buffers gets the native histograms, one that asks for text the classic ones.
func TestHistogramsAreNativeAndClassic(t *testing.T) {
	reg, m := newMetrics()
	m.DeliveryDelay(3 * time.Millisecond)
	if classic, native := delayBuckets(t, reg); classic != len(latencyBuckets) || native != 1 {
		t.Errorf("%d classic and %d native buckets", classic, native)
	}
}

func TestNamesFollowTheConventions(t *testing.T) {
	reg, _ := newMetrics()
	RegisterHealth(reg, func() error { return nil }, func() time.Duration { return 0 })
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestObservingAllocatesNothing(t *testing.T) {
	_, m := newMetrics()
	for name, observe := range observations(m) {
		observe() // the first observation of a size may make a native bucket
		if n := testing.AllocsPerRun(100, observe); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	_, m := newMetrics()
	for name, observe := range observations(m) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				observe()
			}
		})
	}
}

// observations are all that happens while clients talk.
func observations(m *Metrics) map[string]func() {
	wrapped := fmt.Errorf("publish: %w", errAway)
	return map[string]func(){
		"connected":     func() { m.Connected("json") },
		"closed":        func() { m.Closed("json", 1001) },
		"received":      func() { m.Received("json", 120) },
		"delivered":     func() { m.Delivered("json", 1000, 240_000) },
		"delay":         func() { m.DeliveryDelay(3 * time.Millisecond) },
		"published":     func() { m.Published(400*time.Microsecond, nil) },
		"publishFailed": func() { m.Published(2*time.Second, wrapped) },
		"rejected":      func() { m.Rejected("unavailable") },
		"repaired":      func() { m.Repaired(12) },
		"overflowed":    m.Overflowed,
		"caughtUp":      m.CaughtUp,
	}
}

// scrape reads what h exports as text: a value by series.
func scrape(t *testing.T, h http.Handler) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	series := make(map[string]string)
	for line := range strings.Lines(w.Body.String()) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			series[line[:i]] = strings.TrimSpace(line[i+1:])
		}
	}
	return series
}

func hasPrefix(series map[string]string, prefix string) bool {
	for s := range series {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// However different delays are, a histogram holds so many native buckets at most.
func TestAHistogramIsBounded(t *testing.T) {
	reg, m := newMetrics()
	for d := time.Microsecond; d < 1000*time.Hour; d += d / 50 {
		m.DeliveryDelay(d)
	}
	if _, buckets := delayBuckets(t, reg); buckets == 0 || buckets > 160 {
		t.Errorf("it has %d native buckets", buckets)
	}
}

// Who asks for OpenMetrics, as Prometheus does, gets it.
func TestAScrapeMayAskForOpenMetrics(t *testing.T) {
	reg, _ := newMetrics()
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	w := httptest.NewRecorder()
	Handler(reg).ServeHTTP(w, req)
	if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("it is answered as %s", kind)
	}
}
