package id

import "testing"

func TestIDsCompareAsIntegersNotAsStrings(t *testing.T) {
	if a, b := (ID{9, 10}), (ID{10, 9}); !a.Less(b) || b.Less(a) {
		t.Errorf("%v should come before %v", a, b)
	}
	if a, b := (ID{10, 9}), (ID{10, 10}); !a.Less(b) || b.Less(a) || a.Compare(a) != 0 {
		t.Errorf("%v should come before %v", a, b)
	}
}

func TestOnlyTheWrittenFormIsAnID(t *testing.T) {
	for _, s := range []string{"", "-", "1", "1-", "-1", "1-2-3", "+1-2", "01-2", "1-02", " 1-2", "1-2 ", "a-b", "18446744073709551616-0"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0-0")
	f.Add("1763812800000-4711")
	f.Add("18446744073709551615-18446744073709551615")
	f.Fuzz(func(t *testing.T, s string) {
		if i, err := Parse(s); err == nil && i.String() != s {
			t.Errorf("Parse(%q) is written %q", s, i)
		}
	})
}
