package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/config/decoding"
)

// The errors in a configuration.
type (
	Error  = decoding.Error
	Errors = decoding.Errors
)

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

// serviceNames returns the names of all services. They must be put together.
func (w *whole) serviceNames() *serviceNames {
	if w.names != nil {
		return w.names
	}
	n := &serviceNames{names: slices.Sorted(maps.Keys(w.config.Services)), wants: make(map[string]string)}
	w.names = n
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
		want += decoding.DidYouMean(service, n.names)
	}
	want += n.known
	n.wants[service] = want
	return want
}
