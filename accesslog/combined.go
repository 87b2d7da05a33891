package accesslog

import "strconv"

// combinedLine appends e as one line of the combined log format.
func combinedLine(b []byte, e *Entry, c *clock) []byte {
	b = appendCombined(b, octets(e.Client))
	b = append(b, " - - ["...)
	b = c.appendCombined(b, e.Time)
	b = append(b, `] "`...)
	b = appendCombined(b, e.Method)
	b = append(b, ' ')
	b = appendCombined(b, e.Target)
	b = append(b, ' ')
	b = appendCombined(b, octets(e.Proto))
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, e.BytesOut, 10)
	b = append(b, ` "`...)
	b = appendCombined(b, e.Referer)
	b = append(b, `" "`...)
	b = appendCombined(b, e.UserAgent)
	return append(b, "\"\n"...)
}

// appendCombined appends s with what could break the line as \xXX.
func appendCombined(b, s []byte) []byte {
	if len(s) == 0 {
		return append(b, '-')
	}
	for {
		n := plainPrefix(s)
		b = append(b, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			return b
		}
		b = append(b, '\\', 'x', hexUpper[s[0]>>4], hexUpper[s[0]&0xf])
		s = s[1:]
	}
}

const hexUpper = "0123456789ABCDEF"
