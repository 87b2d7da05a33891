package config

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Error is one error in a configuration.
type Error struct {
	// Origin is the place of the value: "FILE:LINE", "--FLAG" or the name of an
	// environment variable.
	Origin string
	Key    string // path of the key, such as services.star.timeouts.connect; empty: the whole file
	Value  string // the text in the file, quoted; may be empty
	Want   string // what is allowed

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

// Errors are all errors in a configuration, in the order of the file. Errors that is
// returned as an error is not empty.
type Errors []*Error

// Error returns one line per error.
func (es Errors) Error() string {
	return errors.Join(es.Unwrap()...).Error()
}

// Unwrap returns all errors, for errors.Is and errors.As.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// sorted sorts es: first the errors in flags and the environment, then those in the file
// by line. It removes duplicates, which a YAML alias can cause.
func (es Errors) sorted() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int { return cmp.Compare(a.line, b.line) })
	return slices.CompactFunc(es, func(a, b *Error) bool { return *a == *b })
}

// Credentials in texts that are not of type Secret: in a URL, and a private key in place
// of the path of its file.
var (
	userInfo   = regexp.MustCompile(`://[^/?#]*@`)
	privateKey = regexp.MustCompile(`(?s)-----BEGIN .*`)
)

// quote returns a value for an error: on one line, shortened, without credentials.
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
	return file + ":" + strconv.Itoa(line)
}
