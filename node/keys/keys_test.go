package keys

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/node/rights"
)

var one, two, three = strings.Repeat("1", 32), strings.Repeat("2", 40), strings.Repeat("3", 32)

func TestKeysAreOfTheirApplications(t *testing.T) {
	ring, err := Parse("# comment\n\n backend\t" + one + "\r\nreporter   " + two + "  news-*:history;a room:join\nbackend " + three + " *:*")
	if err != nil {
		t.Fatal(err)
	}
	for secret, name := range map[string]string{one: "backend", two: "reporter", three: "backend", one[1:]: "", one + "1": "", "": "", "backend": ""} {
		if a, ok := ring.App(secret); a.Name != name || ok != (name != "") {
			t.Errorf("%q is of %q, %v", secret, a.Name, ok)
		}
	}
	if a, _ := ring.App(one); !a.Rights.Of("anything").Has(rights.All) {
		t.Error("a key without rights may not do everything")
	}
	if a, _ := ring.App(two); a.Rights.Of("news-1") != rights.History || a.Rights.Of("a room") != rights.Join || a.Rights.Of("x") != 0 {
		t.Error("a key's rights are others")
	}
}

func TestLinesThatAreNoKeysAreRefusedWithoutTellingThem(t *testing.T) {
	for _, text := range []string{"", "# only", "backend", "backend short-secret", "a/b " + one, "guest-x " + one, "backend " + one + " lobby", "backend " + one + " lobby:fly"} {
		_, err := Parse(text)
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), one) || strings.Contains(err.Error(), "short-secret") {
			t.Errorf("the error tells the key: %v", err)
		}
		const before = "# keys\n\n"
		if _, err := Parse(before + text); text != "" && text[0] != '#' && (err == nil || !strings.Contains(err.Error(), "line 3: ")) {
			t.Errorf("%q is in line 3: %v", text, err)
		}
	}
}

func TestAFileIsReadAgainWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("backend " + one)
	var log bytes.Buffer
	f, err := Open(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	f.now = func() time.Time { return now }
	known := func(secret string) bool { _, ok := f.App(secret); return ok }
	write("backend " + two)
	if now = now.Add(100 * time.Millisecond); !known(one) || known(two) {
		t.Error("it was looked at too soon")
	}
	if now = now.Add(2 * time.Second); known(one) || !known(two) {
		t.Error("the new key is not known, or the old one still is")
	}
	write("broken")
	if now = now.Add(100 * time.Millisecond); !known(two) || strings.Contains(log.String(), "line 1") {
		t.Error("it was looked at again too soon")
	}
	for range 3 {
		if now = now.Add(2 * time.Second); !known(two) {
			t.Error("a broken file took the keys away")
		}
	}
	if got := log.String(); strings.Count(got, "were read again") != 1 || strings.Count(got, "line 1: ") != 1 {
		t.Errorf("each change is told once, not %s", got)
	}
	os.Remove(path)
	for range 3 {
		if now = now.Add(2 * time.Second); !known(two) {
			t.Error("a file that has gone took the keys away")
		}
	}
	if got := log.String(); strings.Count(got, "no such file") != 1 {
		t.Errorf("that it has gone is told once, not %s", got)
	}
	write("backend " + three)
	if now = now.Add(2 * time.Second); !known(three) {
		t.Error("the file that is whole again was not read")
	}
	if _, err := Open(path+"x", slog.Default()); err == nil {
		t.Error("a file that is not there is opened")
	}
	write("")
	if now = now.Add(2 * time.Second); !known(three) {
		t.Error("a file that is being written took the keys away")
	}
	write("# backend " + three + "\n")
	if now = now.Add(2 * time.Second); known(three) {
		t.Error("the last key is good after it was taken out")
	}
	write("broken")
	if _, err := Open(path, slog.Default()); err == nil {
		t.Error("a broken file is opened")
	}
}

func TestOfTwoListsEitherHasKeys(t *testing.T) {
	first, _ := Parse("first " + one + "\nfirst " + two)
	second, _ := Parse("second " + two + "\nsecond " + three)
	for secret, name := range map[string]string{one: "first", two: "first", three: "second", "x": ""} {
		if a, ok := (Both{first, second}).App(secret); a.Name != name || ok != (name != "") {
			t.Errorf("%q is of %q, %v, want %q", secret, a.Name, ok, name)
		}
	}
}
