package consul

import (
	"slices"
	"strings"

	"sluice/discovery"
)

// formatSet returns the words of bubble.entries for a set. What is on probation has a
// "?".
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
