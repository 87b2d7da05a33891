package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Error is one mistake in a configuration, in words for the person who made it.
type Error struct {
	// Origin is where the value stands: "FILE:LINE", "--FLAG" or an
	// environment variable's name.
	Origin string
	Key    string // path of the key, such as services.star.timeouts.connect; empty for the file as a whole
	Value  string // what was written, quoted; empty where there is none to show
	Want   string // what is allowed instead

	line int // 0 for a value that is not from the file
}

// Error returns "ORIGIN: KEY: value "X": what is allowed" on one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Origin)
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	if e.Value != "" {
		b.WriteString(": value " + e.Value)
	}
	b.WriteString(": " + e.Want)
	return b.String()
}

// Errors are all the mistakes of a configuration, in the order of the file.
// It is never empty when it is returned as an error.
type Errors []*Error

// Error returns one line per mistake.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.Is and errors.As access to each mistake.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// sorted orders es as a reader meets the mistakes: first those of flags and
// environment, then those of the file from top to bottom. One that was
// reached twice, through a YAML alias, is kept once.
func (es Errors) sorted() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int { return cmp.Compare(a.line, b.line) })
	return slices.CompactFunc(es, func(a, b *Error) bool { return *a == *b })
}

// Credentials in a text that is no secret by its key: those of a URL, and a private
// key that stands where its file should.
var (
	userInfo   = regexp.MustCompile(`://[^/?#]*@`)
	privateKey = regexp.MustCompile(`(?s)-----BEGIN .*`)
)

// quote shows a value in an error: on one line, not too long, without credentials.
func quote(s string) string {
	const most = 80
	s = userInfo.ReplaceAllString(s, "://***@")
	s = privateKey.ReplaceAllString(s, "-----BEGIN ***")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}

// atLine returns the origin of a line of file.
func atLine(file string, line int) string {
	return fmt.Sprintf("%s:%d", file, line)
}
