package consul

import (
	"slices"
	"strings"

	"sluice/discovery"
)

// formatSet formats a set in the notation of bubble.entries, with "?" after instances on
// probation.
func formatSet(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if i.Status != discovery.StatusPassing {
			word += ":" + i.Status.String()
		}
		if !i.Probation.IsZero() {
			word += "?"
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// countLines returns the number of lines of a log that contain all of fields, such as
// `"level":"warn"`.
func countLines(log string, fields ...string) (n int) {
	for line := range strings.Lines(log) {
		if !slices.ContainsFunc(fields, func(field string) bool { return !strings.Contains(line, field) }) {
			n++
		}
	}
	return n
}
