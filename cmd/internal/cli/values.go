package cli

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Bytes is a number of bytes on the command line: 4096, 4KiB or 1MiB.
type Bytes int

// MarshalText implements encoding.TextMarshaler.
func (s Bytes) MarshalText() ([]byte, error) {
	n, unit := int(s), ""
	for _, bigger := range []string{"KiB", "MiB"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, bigger
	}
	return []byte(strconv.Itoa(n) + unit), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Bytes) UnmarshalText(text []byte) error {
	number, unit := string(text), 1
	for suffix, bytes := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = n, bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n > uint64(math.MaxInt32/unit) {
		return errors.New("expected a number of bytes such as 4096, 4KiB or 1MiB")
	}
	*s = Bytes(n) * Bytes(unit)
	return nil
}

// A List is what commas part on the command line. Those of a flag that is repeated add up.
type List []string

// MarshalText implements encoding.TextMarshaler.
func (l List) MarshalText() ([]byte, error) { return []byte(strings.Join(l, ",")), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Commas alone are no list: what lacks its items must not pass for none, which may mean all.
func (l *List) UnmarshalText(text []byte) error {
	had := len(*l)
	for s := range strings.SplitSeq(string(text), ",") {
		if s = strings.TrimSpace(s); s != "" {
			*l = append(*l, s)
		}
	}
	if len(*l) == had && len(text) > 0 {
		return fmt.Errorf("expected a list but got %q", text)
	}
	return nil
}

// Prefixes are a list of networks, 10.0.0.0/8,fd00::/8, or of single addresses.
type Prefixes []netip.Prefix

// MarshalText implements encoding.TextMarshaler.
func (p Prefixes) MarshalText() ([]byte, error) {
	var l List
	for _, prefix := range p {
		l = append(l, prefix.String())
	}
	return l.MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Prefixes) UnmarshalText(text []byte) error {
	var l List
	if err := l.UnmarshalText(text); err != nil {
		return err
	}
	for _, s := range l {
		prefix, err := netip.ParsePrefix(s)
		if a, bad := netip.ParseAddr(s); bad == nil && a.Zone() == "" {
			prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("%q is no network such as 10.0.0.0/8, and no address", s)
		}
		if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 { // as which no client is seen
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}
