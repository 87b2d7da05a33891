package accesslog

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/route/template"
)

// A layout is a line with variables, such as "$client $status".
type layout []part

// A part is a literal text, and then a variable.
type part struct {
	text     string
	variable variable
	field    []byte // with variableField: its name in lower case
}

// A variable is a part of an entry.
type variable uint8

// combined is the combined log format, with further fields at the end.
const combined = `$client - $user [$time_combined] "$method $target $proto" $status $bytes_out "$referer" "$user_agent"` +
	` host="$host" service="$service" peer="$peer" attempts=$attempts bytes_in=$bytes_in duration_ms=$duration_ms` +
	` upstream_ms=$upstream_ms connect_ms=$connect_ms reason="$reason" grpc_status=$grpc_status group=$group` +
	` upstream_status=$upstream_status tries="$tries" request_id=$request_id`

const (
	variableNone  variable = iota
	variableField          // of the request
	variableAttempts
	variableBytesIn
	variableBytesOut
	variableClient
	variableConnectMS
	variableDurationMS
	variableGroup
	variableGRPCStatus
	variableHost
	variableMethod
	variablePeer
	variableProto
	variableProxy
	variableReason
	variableReferer
	variableRequestID
	variableService
	variableStatus
	variableTarget
	variableTime
	variableTimeCombined
	variableTLSCipher
	variableTLSServerName
	variableTLSVersion
	variableTraceID
	variableTries
	variableUpstreamMS
	variableUpstreamStatus
	variableUser
	variableUserAgent
)

// variableNames are the keys of JSON lines, and time_combined.
var variableNames = map[string]variable{
	"attempts":        variableAttempts,
	"bytes_in":        variableBytesIn,
	"bytes_out":       variableBytesOut,
	"client":          variableClient,
	"connect_ms":      variableConnectMS,
	"duration_ms":     variableDurationMS,
	"group":           variableGroup,
	"grpc_status":     variableGRPCStatus,
	"host":            variableHost,
	"method":          variableMethod,
	"peer":            variablePeer,
	"proto":           variableProto,
	"proxy":           variableProxy,
	"reason":          variableReason,
	"referer":         variableReferer,
	"request_id":      variableRequestID,
	"service":         variableService,
	"status":          variableStatus,
	"target":          variableTarget,
	"time":            variableTime,
	"time_combined":   variableTimeCombined,
	"tls_cipher":      variableTLSCipher,
	"tls_server_name": variableTLSServerName,
	"tls_version":     variableTLSVersion,
	"trace_id":        variableTraceID,
	"tries":           variableTries,
	"upstream_ms":     variableUpstreamMS,
	"upstream_status": variableUpstreamStatus,
	"user":            variableUser,
	"user_agent":      variableUserAgent,
}

// IsVariable reports whether a template can contain the variable name, other than the fields
// of a request.
func IsVariable(name string) bool { return variableNames[name] != variableNone }

// fieldPrefix begins the names of variables for the fields of a request.
const fieldPrefix = "http_"

// parseLayout parses a text, as [template.Parse] does.
func parseLayout(s string) (l layout, err error) {
	parts, rest, err := template.Parse(s, func(name string) (p part, err error) {
		p.variable, p.field, err = lookUp(name)
		return p, err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		p.Variable.text = p.Text
		l = append(l, p.Variable)
	}
	return append(l, part{text: rest + "\n"}), nil
}

func isNameCharacter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_'
}

// lookUp returns the variable of that name, and for variableField the name of the field.
func lookUp(name string) (v variable, field []byte, err error) {
	if v, ok := variableNames[name]; ok {
		return v, nil, nil
	}
	after, isField := strings.CutPrefix(name, fieldPrefix)
	if isField && after != "" && strings.IndexFunc(after, func(r rune) bool { return r > 0x7f || !isNameCharacter(byte(r)) }) < 0 {
		return variableField, []byte(strings.ReplaceAll(after, "_", "-")), nil
	}
	names := slices.Sorted(maps.Keys(variableNames))
	return 0, nil, fmt.Errorf("$%s is not a variable: want one of $%s, $%sNAME for a header of the request, or $$ for a dollar sign",
		name, strings.Join(names, ", $"), fieldPrefix)
}

// line appends e as one line.
func (l layout) line(b []byte, e *Entry, c *clocks) []byte {
	for i := range l {
		p := &l[i]
		b = append(b, p.text...)
		switch p.variable {
		case variableNone:
		case variableField:
			b = appendText(b, findField(e.Head, p.field))
		default:
			b = appendVariable(b, p.variable, e, c)
		}
	}
	return b
}

// appendVariable appends the value of a variable. It is no table of functions: an entry
// that one of them gets would be allocated.
func appendVariable(b []byte, v variable, e *Entry, c *clocks) []byte {
	switch v {
	case variableAttempts:
		return strconv.AppendInt(b, int64(e.Attempts), 10)
	case variableBytesIn:
		return strconv.AppendInt(b, e.BytesIn, 10)
	case variableBytesOut:
		return strconv.AppendInt(b, e.BytesOut, 10)
	case variableClient:
		return appendText(b, e.Client)
	case variableConnectMS:
		return appendMillisOrDash(b, e.Connect)
	case variableDurationMS:
		return appendMillis(b, e.Duration)
	case variableGroup:
		return appendText(b, octets(e.Group))
	case variableGRPCStatus:
		return appendText(b, octets(e.GRPCStatus))
	case variableHost:
		return appendText(b, e.Host)
	case variableMethod:
		return appendText(b, e.Method)
	case variablePeer:
		return appendText(b, octets(e.Peer))
	case variableProto:
		return appendText(b, octets(e.Proto))
	case variableProxy:
		return appendText(b, octets(e.Proxy))
	case variableReason:
		return appendText(b, octets(e.Reason))
	case variableReferer:
		return appendText(b, e.Referer)
	case variableRequestID:
		return appendText(b, e.RequestID)
	case variableService:
		return appendText(b, octets(e.Service))
	case variableStatus:
		return strconv.AppendInt(b, int64(e.Status), 10)
	case variableTarget:
		return appendText(b, e.Target)
	case variableTime:
		return c.rfc3339.appendRFC3339(b, e.Time)
	case variableTimeCombined:
		return c.combined.appendCombined(b, e.Time)
	case variableTLSCipher:
		return appendText(b, octets(e.TLSCipher))
	case variableTLSServerName:
		return appendText(b, octets(e.TLSServerName))
	case variableTLSVersion:
		return appendText(b, octets(e.TLSVersion))
	case variableTraceID:
		return appendText(b, e.TraceID)
	case variableTries:
		return appendTries(b, e.Tries)
	case variableUpstreamMS:
		return appendMillisOrDash(b, e.Upstream)
	case variableUpstreamStatus:
		return appendNumberOrDash(b, e.UpstreamStatus)
	case variableUser:
		return appendText(b, octets(e.User))
	case variableUserAgent:
		return appendText(b, e.UserAgent)
	}
	return b
}

// findField returns the value of the first field of that name in a request head, or nil.
func findField(head, name []byte) []byte {
	_, lines, _ := bytes.Cut(head, newline) // without the request line
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, newline)
		if n := len(name); len(line) > n && line[n] == ':' && bytes.EqualFold(line[:n], name) {
			return bytes.TrimSpace(line[n+1:])
		}
	}
	return nil
}

var newline = []byte{'\n'}

// appendTries appends PEER/OUTCOME/STATUS/MILLISECONDS of each, with commas between them.
func appendTries(b []byte, tries []Try) []byte {
	if len(tries) == 0 {
		return append(b, '-')
	}
	for i := range tries {
		if i > 0 {
			b = append(b, ',')
		}
		t := &tries[i]
		b = append(appendText(b, octets(t.Peer)), '/')
		b = append(append(b, t.Outcome...), '/')
		b = append(appendNumberOrDash(b, t.Status), '/')
		b = appendMillis(b, t.Duration)
	}
	return b
}

func appendNumberOrDash(b []byte, n int) []byte {
	if n == 0 {
		return append(b, '-')
	}
	return strconv.AppendInt(b, int64(n), 10)
}

func appendMillisOrDash(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(b, '-')
	}
	return appendMillis(b, d)
}

// appendText appends s, with characters that could break the line as \xXX.
func appendText(b, s []byte) []byte {
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
