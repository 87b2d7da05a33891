package accesslog

import "strconv"

// combinedLine appends e as one line of the combined log format.
func combinedLine(b []byte, e *Entry, c *clock) []byte {
	b = appendCombined(b, e.Client)
	b = append(b, " - - ["...)
	b = c.appendCombined(b, e.Time)
	b = append(b, `] "`...)
	b = appendCombined(b, e.Method)
	b = append(b, ' ')
	b = appendCombined(b, e.Target)
	b = append(b, ' ')
	b = appendCombined(b, e.Proto)
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
func appendCombined[T string | []byte](b []byte, s T) []byte {
	if len(s) == 0 {
		return append(b, '-')
	}
	from := 0
	for i := range len(s) {
		if c := s[i]; !jsonPlain[c] {
			b = append(b, s[from:i]...)
			b = append(b, '\\', 'x', hexUpper[c>>4], hexUpper[c&0xf])
			from = i + 1
		}
	}
	return append(b, s[from:]...)
}

const hexUpper = "0123456789ABCDEF"
