package suite

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
)

const results = "../results/"

var update = flag.Bool("update", false, "write the tables of SCALE.md anew")

// results/SCALE.md shows what growth.json there holds.
func TestSCALEShowsWhatWasMeasured(t *testing.T) {
	text, err := os.ReadFile(results + "growth.json")
	if err != nil {
		t.Fatal(err)
	}
	var report GrowthReport
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(results + "SCALE.md")
	if err != nil {
		t.Fatal(err)
	}
	now := string(page)
	for _, k := range []Kind{KindLoad, KindRamp, KindIdle} {
		begin, end := "<!-- "+string(k)+" -->\n", "<!-- end of "+string(k)+" -->\n"
		before, rest, ok1 := strings.Cut(now, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("SCALE.md has no %s and %s", strings.TrimSpace(begin), strings.TrimSpace(end))
		}
		now = before + begin + report.Table(k) + end + after
	}
	if now == string(page) {
		return
	}
	if !*update {
		t.Fatal("SCALE.md shows something else than growth.json; write its tables anew with: make plots")
	}
	if err := os.WriteFile(results+"SCALE.md", []byte(now), 0o644); err != nil {
		t.Fatal(err)
	}
}
