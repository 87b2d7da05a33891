package accesslog

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// jsonLine appends e as one line of JSON.
func jsonLine(b []byte, e *Entry, c *clocks) []byte {
	for i := range variables {
		v := &variables[i]
		switch v.kind {
		case kindText:
			text := v.text(e)
			if len(text) == 0 && !v.always || v.http && e.Proto == ProtoTCP {
				continue
			}
			b = append(appendJSON(append(b, v.prefix...), text), '"')
		case kindInt:
			if n := at[int64](v, e); v.always || n != 0 {
				b = strconv.AppendInt(append(b, v.prefix...), n, 10)
			}
		case kindDuration:
			if d := at[time.Duration](v, e); v.always || d > 0 {
				b = appendMillis(append(b, v.prefix...), d)
			}
		case kindTime:
			b = append(c.appendRFC3339(append(b, v.prefix...), e.Time), '"')
		case kindTries:
			if len(e.Tries) > 0 {
				b = appendJSONTries(append(b, v.prefix...), e.Tries)
			}
		}
	}
	return append(b, "}\n"...)
}

func appendJSONTries(b []byte, tries []Try) []byte {
	separator := byte('[')
	for i := range tries {
		t := &tries[i]
		b = append(b, separator)
		b = append(b, `{"peer":"`...)
		b = appendJSON(b, octets(t.Peer))
		b = append(b, `","outcome":"`...)
		b = append(b, t.Outcome...)
		b = append(b, '"')
		if t.Status != 0 {
			b = append(b, `,"status":`...)
			b = strconv.AppendInt(b, int64(t.Status), 10)
		}
		b = append(b, `,"start_ms":`...)
		b = appendMillis(b, t.Start)
		b = append(b, `,"duration_ms":`...)
		b = append(appendMillis(b, t.Duration), '}')
		separator = ','
	}
	return append(b, ']')
}

// appendMillis appends d in milliseconds with three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	b = strconv.AppendInt(b, us/1000, 10)
	rest := us % 1000
	return append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// appendJSON appends s as the content of a JSON string (RFC 8259, section 7).
func appendJSON(b, s []byte) []byte {
	for {
		n := plainPrefix(s)
		b = append(b, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			return b
		}
		r, size := utf8.DecodeRune(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, `\ufffd`...)
		case r < utf8.RuneSelf:
			b = escapeJSON(b, byte(r))
		case r <= 0x9f || r == '\u2028' || r == '\u2029':
			b = append(b, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
		default:
			b = append(b, s[:size]...)
		}
		s = s[size:]
	}
}

func escapeJSON(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

const hexDigits = "0123456789abcdef"
