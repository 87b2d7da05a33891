package route

import (
	"fmt"
)

// Error describes an invalid field of a route.
type Error struct {
	Index  int    // of the route in the list given to NewTable
	Field  string // the key of the configuration: "host", "path", "when.header.X-Canary"
	Value  string // as given
	Reason string // such as "must start with a slash"
}

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("route %d: %s: %s", e.Index+1, e.Field, e.Reason)
	}
	return fmt.Sprintf("route %d: %s %q: %s", e.Index+1, e.Field, e.Value, e.Reason)
}

// at returns e for the route at that index.
func (e Error) at(index int) error {
	e.Index = index
	return &e
}

// OptionError is an invalid option of an action.
type OptionError struct {
	Key   string // in the configuration: "strip_prefix", …
	Value string
	Err   error
}

func (e *OptionError) Error() string { return fmt.Sprintf("%s %q: %v", e.Key, e.Value, e.Err) }

// Unwrap returns e.Err.
func (e *OptionError) Unwrap() error { return e.Err }

func duplicateError(first int, r *Route) Error {
	host := "any host"
	switch {
	case r.Host != "":
		host = fmt.Sprintf("host %q", r.Host)
	case r.HostRegexp != "":
		host = fmt.Sprintf("hosts %q", r.HostRegexp)
	}
	return Error{Field: "path", Value: r.Path, Reason: fmt.Sprintf("matches the same requests as route %d (%s)", first+1, host)}
}
