package suite

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestTheNodeIsBuiltAndRemoved(t *testing.T) {
	var l Local
	remove, err := l.build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(l.Parley, "version").Output(); err != nil || !strings.HasPrefix(string(out), "parley ") {
		t.Errorf("%v: %s", err, out)
	}
	remove()
	if _, err := os.Stat(l.Parley); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
