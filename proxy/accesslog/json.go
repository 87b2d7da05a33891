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
	b = append(b, '"')
	b = appendMember(b, `,"request_id":"`, e.RequestID)
	b = appendMember(b, `,"trace_id":"`, e.TraceID)
	b = append(b, `,"client":"`...)
	b = appendJSON(b, e.Client)
	b = append(b, '"')
	b = appendMember(b, `,"proxy":"`, octets(e.Proxy))
	b = appendMember(b, `,"user":"`, octets(e.User))
	if e.Proto != ProtoTCP {
		b = append(b, `,"method":"`...)
		b = append(appendJSON(b, e.Method), '"')
	}
	b = appendMember(b, `,"host":"`, e.Host)
	if e.Proto != ProtoTCP {
		b = append(b, `,"target":"`...)
		b = append(appendJSON(b, e.Target), '"')
	}
	b = append(b, `,"proto":"`...)
	b = append(appendJSON(b, octets(e.Proto)), '"')
	b = appendMember(b, `,"tls_version":"`, octets(e.TLSVersion))
	b = appendMember(b, `,"tls_cipher":"`, octets(e.TLSCipher))
	b = appendMember(b, `,"tls_server_name":"`, octets(e.TLSServerName))
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = appendMember(b, `,"grpc_status":"`, octets(e.GRPCStatus))
	if e.UpstreamStatus != 0 {
		b = append(b, `,"upstream_status":`...)
		b = strconv.AppendInt(b, int64(e.UpstreamStatus), 10)
	}
	b = append(b, `,"bytes_in":`...)
	b = strconv.AppendInt(b, e.BytesIn, 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, e.BytesOut, 10)
	b = append(b, `,"duration_ms":`...)
	b = appendMillis(b, e.Duration)
	b = appendMember(b, `,"service":"`, octets(e.Service))
	b = appendMember(b, `,"peer":"`, octets(e.Peer))
	b = appendMember(b, `,"group":"`, octets(e.Group))
	b = append(b, `,"attempts":`...)
	b = strconv.AppendInt(b, int64(e.Attempts), 10)
	b = appendJSONTries(b, e.Tries)
	if e.Upstream > 0 {
		b = append(b, `,"upstream_ms":`...)
		b = appendMillis(b, e.Upstream)
	}
	if e.Connect > 0 {
		b = append(b, `,"connect_ms":`...)
		b = appendMillis(b, e.Connect)
	}
	b = appendMember(b, `,"reason":"`, octets(e.Reason))
	b = appendMember(b, `,"user_agent":"`, e.UserAgent)
	b = appendMember(b, `,"referer":"`, e.Referer)
	return append(b, "}\n"...)
}

// appendJSONTries appends the tries, if there are any.
func appendJSONTries(b []byte, tries []Try) []byte {
	if len(tries) == 0 {
		return b
	}
	b = append(b, `,"tries":`...)
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

// appendMember appends an optional string member. prefix ends with the opening quote.
func appendMember(b []byte, prefix string, value []byte) []byte {
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
