package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/route/template"
)

// Format is a line with variables, such as "$client $status"; nil is JSON. It does not change.
type Format []part

// A part is a literal text, and then a variable.
type part struct {
	text     string
	variable variable
	field    []byte // with kindField: its name in lower case
}

// combined is the combined log format, with further fields at the end.
const combined = `$client - $user [$time_combined] "$method $target $proto" $status $bytes_out "$referer" "$user_agent"` +
	` host="$host" service="$service" peer="$peer" attempts=$attempts bytes_in=$bytes_in duration_ms=$duration_ms` +
	` upstream_ms=$upstream_ms connect_ms=$connect_ms reason="$reason" grpc_status=$grpc_status group=$group` +
	` upstream_status=$upstream_status tries="$tries" request_id=$request_id`

// fieldPrefix begins the names of variables for the fields of a request.
const fieldPrefix = "http_"

// ParseFormat parses "json", "combined" or a template.
func ParseFormat(s string) (f Format, err error) {
	switch {
	case s == "json":
		return nil, nil
	case s == "combined":
		s = combined
	case !strings.Contains(s, "$"):
		return nil, errors.New(`want json, combined, or a template such as '$client "$method $target" $status'`)
	}
	parts, rest, err := template.Parse(s, func(name string) (p part, err error) {
		p.variable, p.field, err = lookUp(name)
		return p, err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		p.Variable.text = p.Text
		f = append(f, p.Variable)
	}
	return append(f, part{text: rest + "\n"}), nil
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyz0123456789_"

// lookUp returns the variable of that name, and for kindField the name of the field.
func lookUp(name string) (v variable, field []byte, err error) {
	if v, ok := byName[name]; ok {
		return v, nil, nil
	}
	after, isField := strings.CutPrefix(name, fieldPrefix)
	if isField && after != "" && strings.Trim(after, nameCharacters) == "" {
		return variable{kind: kindField}, []byte(strings.ReplaceAll(after, "_", "-")), nil
	}
	names := slices.Sorted(maps.Keys(byName))
	return v, nil, fmt.Errorf("$%s is not a variable: want one of $%s, $%sNAME for a header of the request, or $$ for a dollar sign",
		name, strings.Join(names, ", $"), fieldPrefix)
}

// line appends e as one line.
func (f Format) line(b []byte, e *Entry, c *clocks) []byte {
	for i := range f {
		p := &f[i]
		b = append(b, p.text...)
		switch p.variable.kind {
		case kindNone:
		case kindField:
			b = appendText(b, findField(e.Head, p.field))
		default:
			b = appendVariable(b, &p.variable, e, c)
		}
	}
	return b
}

// appendVariable appends the value of a variable, or a dash.
func appendVariable(b []byte, v *variable, e *Entry, c *clocks) []byte {
	switch v.kind {
	case kindTime:
		return c.appendRFC3339(b, e.Time)
	case kindTimeCombined:
		return append(b, c.combined.format(e.Time, layoutCombined)...)
	case kindText:
		if v.word {
			return appendWord(b, v.text(e))
		}
		return appendText(b, v.text(e))
	case kindInt:
		if n := at[int64](v, e); v.always || n != 0 {
			return strconv.AppendInt(b, n, 10)
		}
	case kindDuration:
		if d := at[time.Duration](v, e); v.always || d > 0 {
			return appendMillis(b, d)
		}
	case kindTries:
		return appendTries(b, e.Tries)
	}
	return append(b, '-')
}

// findField returns the value of the first field of that name in a request head, or nil. It is no
// loop over http1.Lines, which would move what the entry points to onto the heap.
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
		if t.Status == 0 {
			b = append(b, '-')
		} else {
			b = strconv.AppendInt(b, int64(t.Status), 10)
		}
		b = appendMillis(append(b, '/'), t.Duration)
	}
	return b
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

// appendWord is appendText for a value that blanks would divide: the combined format has no quotes
// around some.
func appendWord(b, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, ' ')
		if i < 0 {
			return appendText(b, s)
		}
		if i > 0 {
			b = appendText(b, s[:i])
		}
		if b, s = append(b, `\x20`...), s[i+1:]; len(s) == 0 {
			return b
		}
	}
}

const hexUpper = "0123456789ABCDEF"
