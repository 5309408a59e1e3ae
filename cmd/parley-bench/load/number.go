package load

import (
	"math"
	"strconv"
	"strings"
)

// Grouped writes a whole number with its thousands apart.
func Grouped[N int | int64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	var b strings.Builder
	for i, d := range digits {
		if left := len(digits) - i; i > 0 && left%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// Short writes a figure with three digits that count, and no fewer before the point than there are.
func Short(f float64) string {
	switch size := math.Abs(f); {
	case f == 0:
		return "0"
	case size >= 100:
		return Grouped(int64(math.Round(f)))
	case size >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case size >= 0.0995:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
	return strconv.FormatFloat(f, 'f', 3, 64)
}
