package cli

import "testing"

func TestByteSizes(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "1": 1, "4096": 4096, "4KiB": 4096, "256KiB": 256 << 10, "1MiB": 1 << 20, "2047MiB": 2047 << 20,
	} {
		var got Bytes
		if err := got.UnmarshalText([]byte(in)); err != nil || got != want {
			t.Errorf("%s is %d, %v", in, got, err)
		}
		var again Bytes
		if text, _ := want.MarshalText(); again.UnmarshalText(text) != nil || again != want || len(text) > len(in) {
			t.Errorf("%s is written as %s", in, text)
		}
	}
	for _, in := range []string{"", "KiB", "-1", "4KB", "4 KiB", "1.5KiB", "4kib", "2048MiB", "99999999999999999999", "1KiBMiB"} {
		if err := new(Bytes).UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q is taken for a size", in)
		}
	}
}

func TestLists(t *testing.T) {
	var l List
	for _, s := range []string{"", "a,b", "c,"} {
		l.UnmarshalText([]byte(s))
	}
	if text, _ := l.MarshalText(); string(text) != "a,b,c" {
		t.Errorf("the list is %s", text)
	}
	for _, s := range []string{",", " , ", " "} { // as of variables that happen to lack a value
		if l.UnmarshalText([]byte(s)) == nil || new(Prefixes).UnmarshalText([]byte(s)) == nil {
			t.Errorf("%q is taken for a list", s)
		}
	}
	var p Prefixes
	for _, s := range []string{"10.0.0.0/8,fd00::/8", "192.168.0.0/16"} {
		if err := p.UnmarshalText([]byte(s)); err != nil {
			t.Error(err)
		}
	}
	if text, _ := p.MarshalText(); string(text) != "10.0.0.0/8,fd00::/8,192.168.0.0/16" {
		t.Errorf("the prefixes are %s", text)
	}
}
