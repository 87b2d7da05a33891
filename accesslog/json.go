package accesslog

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// jsonLine appends e as one line of JSON.
func jsonLine(b []byte, e *Entry, c *clock) []byte {
	b = append(b, `{"time":"`...)
	b = c.appendRFC3339(b, e.Time)
	b = append(b, `","client":"`...)
	b = appendJSON(b, e.Client)
	b = append(b, `","method":"`...)
	b = appendJSON(b, e.Method)
	if len(e.Host) > 0 {
		b = append(b, `","host":"`...)
		b = appendJSON(b, e.Host)
	}
	b = append(b, `","target":"`...)
	b = appendJSON(b, e.Target)
	b = append(b, `","proto":"`...)
	b = appendJSON(b, e.Proto)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = append(b, `,"bytes_in":`...)
	b = strconv.AppendInt(b, e.BytesIn, 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, e.BytesOut, 10)
	b = append(b, `,"duration_ms":`...)
	b = appendMillis(b, e.Duration)
	b = appendMember(b, `,"service":"`, e.Service)
	b = appendMember(b, `,"peer":"`, e.Peer)
	b = append(b, `,"attempts":`...)
	b = strconv.AppendInt(b, int64(e.Attempts), 10)
	if e.Upstream > 0 {
		b = append(b, `,"upstream_ms":`...)
		b = appendMillis(b, e.Upstream)
	}
	if e.Connect > 0 {
		b = append(b, `,"connect_ms":`...)
		b = appendMillis(b, e.Connect)
	}
	b = appendMember(b, `,"reason":"`, e.Reason)
	b = appendMember(b, `,"user_agent":"`, e.UserAgent)
	b = appendMember(b, `,"referer":"`, e.Referer)
	return append(b, "}\n"...)
}

// appendMember appends an optional member whose value is a string. prefix
// ends with the quote that opens the value.
func appendMember[T string | []byte](b []byte, prefix string, value T) []byte {
	if len(value) == 0 {
		return b
	}
	b = append(b, prefix...)
	b = appendJSON(b, value)
	return append(b, '"')
}

// appendMillis appends d in milliseconds with three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	b = strconv.AppendInt(b, us/1000, 10)
	rest := us % 1000
	return append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// appendJSON appends s as the inside of a JSON string (RFC 8259, section 7).
func appendJSON[T string | []byte](b []byte, s T) []byte {
	from := 0 // what precedes it is written
	for i := 0; i < len(s); {
		c := s[i]
		if jsonPlain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[from:i]...)
			b = escapeJSON(b, c)
			i++
			from = i
			continue
		}
		r, size := decodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[from:i]...)
			b = append(b, `\ufffd`...)
		case r <= 0x9f || r == '\u2028' || r == '\u2029':
			b = append(b, s[from:i]...)
			b = append(b, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
		default:
			i += size
			continue
		}
		i += size
		from = i
	}
	return append(b, s[from:]...)
}

// escapeJSON appends the escape of a quote, a backslash or a control
// character.
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

// decodeRune reads the first rune of s, which is not ASCII.
func decodeRune[T string | []byte](s T) (rune, int) {
	var first [utf8.UTFMax]byte
	return utf8.DecodeRune(first[:copy(first[:], s)])
}

const hexDigits = "0123456789abcdef"

// jsonPlain marks the octets that stand for themselves in a JSON string.
var jsonPlain = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()
