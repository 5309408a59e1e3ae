package wire

import (
	"testing"
	"time"
)

// A client reads when its token ends, though that is years away, and takes no time for one that is over.
func TestATimeFarAwayIsRead(t *testing.T) {
	for _, want := range []time.Duration{time.Millisecond, 30 * 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
		if f, err := ParseFrame(Welcome{Expires: want}.Append(nil)); err != nil || f.Expires != want {
			t.Errorf("of %v is read %v, %v", want, f.Expires, err)
		}
	}
	f, err := ParseFrame([]byte(`{"op":"welcome","expires":18446744073709551615}`))
	if err != nil || f.Expires < 10*365*24*time.Hour {
		t.Errorf("of the largest number is read %v, %v", f.Expires, err)
	}
}
