package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
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

	line int // 0 for a value that is not from the file
}

// Error returns "ORIGIN: KEY: value "X": what is allowed" on one line.
func (e *Error) Error() string {
	parts := []string{e.Origin, e.Key, "value " + e.Value, e.Want}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" || part == "value " }), ": ")
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

// sorted sorts es: first the errors in flags and the environment, then errors in the file
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
	return strconv.Quote(excerpt.Of(s, most))
}

// atLine returns the origin of a line of file.
func atLine(file string, line int) string {
	return file + ":" + strconv.Itoa(line)
}

// suggest returns the known word that is most similar to s, or "" if none is similar.
func suggest(s string, known []string) string {
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

// otherNames are the keys by the names that other programs have for them.
var otherNames = map[string]string{"insecure": "skip_verify", "insecure_skip_verify": "skip_verify"}

// didYouMean asks for the known word that is most similar to s; "": none is similar.
func didYouMean(s string, known []string) string {
	word := suggest(s, known)
	if other := otherNames[s]; slices.Contains(known, other) {
		word = other
	}
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

// maxKnown is the number of names that an error lists.
const maxKnown = 20

// maxSuggested limits the unknown names for which a similar one is looked for: each is compared
// with every service, and thousands of routes may have one.
const maxSuggested = 100

// serviceNames explains names of services that do not exist.
type serviceNames struct {
	known string            // for errors
	names []string          // sorted
	wants map[string]string // by name
}

func newServiceNames(services map[string]Service) *serviceNames {
	n := &serviceNames{names: slices.Sorted(maps.Keys(services)), wants: make(map[string]string)}
	if more := len(n.names) - maxKnown; more > 0 {
		n.known = fmt.Sprintf(" (known: %s and %d more)", strings.Join(n.names[:maxKnown], ", "), more)
	} else if len(n.names) > 0 {
		n.known = " (known: " + strings.Join(n.names, ", ") + ")"
	}
	return n
}

// want returns what is wrong with the name of a service that does not exist, and what is allowed.
func (n *serviceNames) want(service string) string {
	want, told := n.wants[service]
	if told {
		return want
	}
	want = "no such service"
	if len(n.wants) < maxSuggested {
		want += didYouMean(service, n.names)
	}
	want += n.known
	n.wants[service] = want
	return want
}
