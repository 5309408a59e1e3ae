package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// drawn are an SVG's texts, and how many lines there are of each colour.
func drawn(t *testing.T, file string) (texts []string, strokes map[string]int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	strokes = map[string]int{}
	d := xml.NewDecoder(f)
	for within := ""; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts, strokes
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			within = token.Name.Local
			for _, a := range token.Attr {
				if _, colour, ok := strings.Cut(a.Value, "stroke:#"); ok && a.Name.Local == "style" {
					strokes[colour[:6]]++
				}
			}
		case xml.CharData:
			if within == "text" {
				texts = append(texts, strings.TrimSpace(string(token)))
			}
		}
	}
}

func TestEveryFigureIsDrawn(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{"testdata/growth.json", dir}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]string{
		"cpu.svg":     {"members of a room", "CPU seconds per million deliveries", "1 node", "2 nodes", "10", "1,000"},
		"latency.svg": {"Latency at 25,000 deliveries a second", "99th percentile, ms", "1 node", "2 nodes"},
		"redis.svg":   {"nodes", "CPU time per message, µs", "1", "2"},
		"memory.svg":  {"KB per connection", "rooms of 10", "rooms of 1,000"},
		"ramp.svg":    {"million deliveries/s with p99 < 200 ms", "1", "2"},
	} {
		texts, strokes := drawn(t, filepath.Join(dir, file))
		lines := 0
		for _, text := range want {
			if !slices.Contains(texts, text) {
				t.Errorf("%s has no %q: %q", file, text, texts)
			}
			if strings.Contains(text, " node") || strings.HasPrefix(text, "rooms of") {
				lines++
			}
		}
		for i, c := range []string{"0072B2", "D55E00"} {
			if i < max(1, lines) && strokes[c] == 0 {
				t.Errorf("%s has no line of colour %s: %v", file, c, strokes)
			}
		}
	}
}

func TestWhatWasNotMeasuredIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	report := filepath.Join(dir, "growth.json")
	one := `{"rows": [{"kind": "ramp", "nodes": 2, "deliveries_per_second": 1910000}]}`
	if err := os.WriteFile(report, []byte(one), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{report, dir}); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.svg")); len(files) != 1 || filepath.Base(files[0]) != "ramp.svg" {
		t.Error(files)
	}
}

func TestMarksAreRoundFigures(t *testing.T) {
	for most, want := range map[float64]string{
		47.3: "0 10 20 30 40", 4.5: "0 1 2 3 4", 0.9: "0 0.2 0.4 0.6 0.8", 16.1: "0 5 10 15", 230: "0 50 100 150 200",
	} {
		var got []string
		for _, tick := range rounded(0, most) {
			got = append(got, tick.Label)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("up to %g: %s, not %s", most, got, want)
		}
	}
}
