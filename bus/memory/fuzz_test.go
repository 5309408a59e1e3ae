package memory_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"parley/bus"
	"parley/bus/memory"
)

// FuzzMemoryPages compares what is read of a room with a log that is a plain slice. Each byte is a step.
func FuzzMemoryPages(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 65, 130, 200, 255, 0, 0, 60, 70, 140})
	f.Add([]byte("publish and read and publish again, until the ring has turned round a few times"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		const size, age = 11, time.Minute
		now := time.UnixMilli(1_700_000_000_000)
		m := memory.New(bus.Retention{Size: size, Age: age})
		m.SetClock(func() time.Time { return now })
		b := open(t, m)
		var log []bus.Message // all there ever was
		gone := 0             // so many of them are trimmed
		ctx := context.Background()
		for _, step := range steps {
			arg := int(step & 0x3f)
			switch step >> 6 {
			case 0: // publish
				body := []byte{byte(len(log))}
				prev := lastID(log)
				log = append(log, bus.Message{ID: publish(t, b, "room", bus.Draft{Body: body}), Prev: prev, Body: body})
				gone = max(gone, len(log)-size)
			case 1: // time passes
				now = now.Add(time.Duration(arg) * time.Second)
			}
			for gone < len(log) && log[gone].ID.Ms < uint64(now.Add(-age).UnixMilli()) {
				gone++
			}
			limit, at := arg%4+1, min(arg/4, len(log)) // after or before the message with that index
			switch step >> 6 {
			case 2:
				got, err := b.After(ctx, "room", lastID(log[:at]), limit, 0)
				from := max(at, gone)
				to := min(from+limit, len(log))
				same(t, got, err, bus.Page{
					Messages: log[from:to], Last: lastID(log), More: to < len(log), Complete: at >= gone || at == len(log),
				})
			case 3:
				var before bus.ID
				if at < len(log) {
					before = log[at].ID
				}
				got, err := b.Before(ctx, "room", before, limit, 0)
				to := max(at, gone)
				from := max(to-limit, gone)
				same(t, got, err, bus.Page{Messages: log[from:to], Last: lastID(log), More: from > gone})
			}
		}
	})
}

func lastID(log []bus.Message) (last bus.ID) {
	if len(log) > 0 {
		last = log[len(log)-1].ID
	}
	return last
}

func same(t *testing.T, got bus.Page, err error, want bus.Page) {
	t.Helper()
	if len(want.Messages) == 0 {
		want.Messages = nil
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v, %v\nwant %+v", got, err, want)
	}
}
