package accesslog

import (
	"strconv"
	"time"
)

// combinedLine appends e in the combined log format, with further fields at the end.
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
	b = append(b, `" host="`...)
	b = appendCombined(b, e.Host)
	b = append(b, `" service="`...)
	b = appendCombined(b, octets(e.Service))
	b = append(b, `" peer="`...)
	b = appendCombined(b, octets(e.Peer))
	b = append(b, `" attempts=`...)
	b = strconv.AppendInt(b, int64(e.Attempts), 10)
	b = append(b, " bytes_in="...)
	b = strconv.AppendInt(b, e.BytesIn, 10)
	b = append(b, " duration_ms="...)
	b = appendMillis(b, e.Duration)
	b = append(b, " upstream_ms="...)
	b = appendMillisOrDash(b, e.Upstream)
	b = append(b, " connect_ms="...)
	b = appendMillisOrDash(b, e.Connect)
	b = append(b, ` reason="`...)
	b = appendCombined(b, octets(e.Reason))
	b = append(b, '"')
	if e.GRPCStatus != "" {
		b = append(b, " grpc_status="...)
		b = appendCombined(b, octets(e.GRPCStatus))
	}
	if e.Group != "" {
		b = append(b, " group="...)
		b = appendCombined(b, octets(e.Group))
	}
	return append(b, '\n')
}

func appendMillisOrDash(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(b, '-')
	}
	return appendMillis(b, d)
}

// appendCombined appends s, with characters that could break the line as \xXX.
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
