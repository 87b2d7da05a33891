// Package terminal writes for people what comes from a registry or an API.
package terminal

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Printable replaces what PrintableLong replaces in s, and shortens it to most characters.
func Printable(s string, most int) string {
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return PrintableLong(s)
}

// PrintableLong replaces control characters in s, which could control the terminal, and invisible
// ones: they could reorder a line, end it, or make two names look the same.
func PrintableLong(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return '?'
		}
		return r
	}, s)
}

// Age formats a duration in its largest two units: "3d4h", "5m12s", "7s".
func Age(d time.Duration) string {
	d = max(0, d.Truncate(time.Second))
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}

// Milliseconds formats a latency; "-" for none.
func Milliseconds(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fms", ms)
}
