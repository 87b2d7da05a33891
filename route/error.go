package route

import (
	"fmt"
)

// Error describes an invalid field of a route.
type Error struct {
	Index  int    // of the route in the list given to NewTable
	Field  string // "host", "path" or "service"
	Value  string // as given
	Reason string // such as "must start with a slash"
}

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("route %d: %s: %s", e.Index+1, e.Field, e.Reason)
	}
	return fmt.Sprintf("route %d: %s %q: %s", e.Index+1, e.Field, e.Value, e.Reason)
}

func appendErrors(errs []error, i int, r Route, host, path, service error) []error {
	if host != nil {
		errs = append(errs, &Error{Index: i, Field: "host", Value: r.Host, Reason: host.Error()})
	}
	if path != nil {
		errs = append(errs, &Error{Index: i, Field: "path", Value: r.Path, Reason: path.Error()})
	}
	if service != nil {
		errs = append(errs, &Error{Index: i, Field: "service", Reason: service.Error()})
	}
	return errs
}

func duplicateError(i, first int, r Route) error {
	host := "any host"
	if r.Host != "" {
		host = fmt.Sprintf("host %q", r.Host)
	}
	return &Error{
		Index:  i,
		Field:  "path",
		Value:  r.Path,
		Reason: fmt.Sprintf("the same host and path as route %d (%s)", first+1, host),
	}
}
