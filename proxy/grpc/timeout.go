package grpc

import (
	"strconv"
	"time"
)

var units = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// ParseTimeout returns the value of a grpc-timeout field, at most what 8 digits of seconds
// express. ok: it is well-formed.
func ParseTimeout(value []byte) (timeout time.Duration, ok bool) {
	const maxDigits, longest = 8, 99_999_999 * time.Second
	n := len(value) - 1
	if n < 1 || n > maxDigits {
		return 0, false
	}
	unit, known := units[value[n]]
	count, err := strconv.ParseUint(string(value[:n]), 10, 32) // no sign
	if !known || err != nil {
		return 0, false
	}
	if count > uint64(longest/unit) {
		return longest, true
	}
	return time.Duration(count) * unit, true
}

// AppendTimeout appends a timeout of at least d as the value of a grpc-timeout field,
// with at most 8 digits. It is never 0.
func AppendTimeout(out []byte, d time.Duration) []byte {
	const most = 99_999_999
	unit, letter := time.Microsecond, byte('u')
	switch {
	case d > most*time.Millisecond:
		unit, letter = time.Second, 'S'
	case d > most*time.Microsecond:
		unit, letter = time.Millisecond, 'm'
	}
	d = max(d, 1)
	return append(strconv.AppendInt(out, min(int64((d-1)/unit)+1, most), 10), letter)
}
