package decoding

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/observe/excerpt"
)

// Error is one error in a configuration.
type Error struct {
	// Origin is the place of the value: "FILE:LINE", "--FLAG" or the name of an
	// environment variable.
	Origin string
	Key    string // path of the key, such as services.star.timeouts.connect; empty: the whole file
	Value  string // the text in the file, quoted; may be empty
	Want   string // what is allowed

	line, column int // 0 for a value that is not from the file
}

// Error returns "ORIGIN: KEY: value "X": what is allowed" on one line.
func (e *Error) Error() string {
	parts := []string{e.Origin, e.Key, "value " + e.Value, e.Want}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" || part == "value " }), ": ")
}

// Place returns the file of the value and its line and column, from 1; the column is 0 if it is
// not known, and both are for a value that is not from a file: where is then as Origin.
func (e *Error) Place() (where string, line, column int) {
	if e.line == 0 {
		return e.Origin, 0, 0
	}
	return strings.TrimSuffix(e.Origin, ":"+strconv.Itoa(e.line)), e.line, e.column
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

// Sorted sorts es: first the errors in flags and the environment, then errors in the file
// by line. It removes duplicates, which a YAML alias can cause.
func (es Errors) Sorted() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int { return cmp.Compare(a.line, b.line) })
	return slices.CompactFunc(es, func(a, b *Error) bool { return *a == *b })
}

// Short returns the errors on one line, without their places.
func (es Errors) Short() error {
	texts := make([]string, len(es))
	for i, e := range es {
		unplaced := *e
		unplaced.Origin = ""
		texts[i] = unplaced.Error()
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
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
	return strconv.Quote(excerpt.Of(s, most))
}

// Suggest returns the known word that is most similar to s, or "" if none is similar.
func Suggest(s string, known []string) string {
	s = strings.ToLower(s)
	best, bestDistance := "", max(1, len(s)/3)+1
	for _, k := range known {
		if len(k)-len(s) >= bestDistance || len(s)-len(k) >= bestDistance {
			continue // the distance is at least that
		}
		if d := distance(s, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// DidYouMean asks for the known word that is most similar to s; "": none is similar.
func DidYouMean(s string, known []string) string { return asked(Suggest(s, known)) }

func asked(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", word)
}

// maxCompared is the length up to which words are compared: longer than any key.
const maxCompared = 64

// distance is the number of insertions, deletions, substitutions and swaps of
// neighbours between a and b (optimal string alignment).
func distance(a, b string) int {
	if len(a) > maxCompared || len(b) > maxCompared {
		return max(len(a), len(b))
	}
	var rows [3][maxCompared + 1]int
	before, last, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
