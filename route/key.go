package route

import (
	"errors"
	"fmt"
	"slices"
)

// MaxUnindexed limits the regular expressions for a host of which a table can use no
// literal text, because each request for the host must try them one by one.
const MaxUnindexed = 200

// Checked is what [Check] finds out about a route. It does not change.
type Checked struct {
	// Key is the same for routes that match the same requests.
	Key string
	// Unindexed, if not empty, is the host whose requests must try the regular
	// expression of this route, or "*" for all hosts; see MaxUnindexed.
	Unindexed string
	// Parts is what the regular expressions of the route cost a request that must try them.
	Parts int

	entry *entry // in no table
}

// Conditions returns the conditions of the route. The caller must not change what they contain.
func (c *Checked) Conditions() Conditions { return c.entry.route.Conditions }

// Check checks a route, except its service. Its error joins an *Error for each invalid
// field.
func Check(r Route) (*Checked, error) {
	if r.Checked != nil {
		return r.Checked, nil
	}
	e, errs := compile(r)
	if len(errs) > 0 {
		return nil, joinErrors(errs)
	}
	return &Checked{Key: e.key(), Unindexed: e.unindexed(), Parts: e.parts, entry: e}, nil
}

// entryOf returns a route for one table, and its Checked.Key.
func entryOf(r Route) (*entry, string, []*Error) {
	if r.Checked == nil {
		e, errs := compile(r)
		if len(errs) > 0 {
			return nil, "", errs
		}
		return e, e.key(), nil
	}
	e := *r.Checked.entry
	normal := e.route
	e.route = r
	e.route.Host, e.route.Path, e.route.PathMatch = normal.Host, normal.Path, normal.PathMatch
	return &e, r.Checked.Key, nil
}

func joinErrors(errs []*Error) error {
	list := make([]error, len(errs))
	for i, err := range errs {
		list[i] = err
	}
	return errors.Join(list...)
}

func (e *entry) key() string {
	key := e.host.String() + e.path.text
	if e.host.kind != hostRegexp && e.path.match == PathPrefix && len(e.conditions) == 0 {
		return key
	}
	return fmt.Sprintf("%q %d %q %q %q", e.host.name, e.host.kind, e.path.match, e.path.text, e.conditions.keys())
}

// keys returns texts that are equal for equal tests, in an order of their own.
func (p program) keys() []string {
	var all []string
	for i := range p {
		t := &p[i]
		var paths, anyOf []string
		for _, path := range t.paths {
			paths = append(paths, string(path.match), path.text)
		}
		for _, one := range t.any {
			anyOf = append(anyOf, fmt.Sprintf("%q", one.keys()))
		}
		slices.Sort(anyOf)
		all = append(all, fmt.Sprintf("%d %t %q %q %d %q %q %q %q %q", t.kind, t.negate, t.words,
			t.value.Name, t.value.Kind, t.value.Text, texts(t.hosts), paths, t.prefixes, anyOf))
	}
	slices.Sort(all)
	return all
}

// unindexed returns Checked.Unindexed.
func (e *entry) unindexed() string {
	byPath := e.path.match == PathRegexp && len(e.path.segments) == 0 && e.path.partial == ""
	switch {
	case e.host.kind == hostRegexp && e.host.suffix == "":
		return "*"
	case !byPath:
		return ""
	case e.host.kind == hostAny:
		return "*"
	case e.host.kind == hostRegexp:
		return "*" + e.host.suffix
	}
	return e.host.String()
}
