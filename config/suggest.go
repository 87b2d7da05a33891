package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

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
		if word := suggest(service, n.names); word != "" {
			want += fmt.Sprintf(", did you mean %q?", word)
		}
	}
	want += n.known
	n.wants[service] = want
	return want
}
