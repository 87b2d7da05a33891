// Package imported translates the configuration of another load balancer into one of sluice, with
// notes about what does not carry over. It is pure but for files that the result names, which it
// looks for.
//
// What is shut stays shut: a route whose restriction cannot be carried over denies every request,
// or is left out. Each line of the input is used or has a note.
package imported

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// File is a file of the other load balancer.
type File struct {
	Name string // for notes
	Text string
}

// Place is a line of a file.
type Place struct {
	File string
	Line int // from 1
}

// String returns "FILE:LINE".
func (p Place) String() string { return tags.Blanks(p.File) + ":" + strconv.Itoa(p.Line) }

// Note says what does not carry over, or needs attention, and what to do.
type Note struct {
	Place
	Text string // on one line
}

// String returns "FILE:LINE: TEXT".
func (n Note) String() string { return n.Place.String() + ": " + n.Text }

// Result is a configuration of sluice.
type Result struct {
	YAML  []byte // which sluice check accepts, once the files that it names are there
	Notes []Note // in the order of the input
}

// maxValues limits the values, lines or directives of the input.
const maxValues = 50_000

// errTooLarge is the error for an input with more than maxValues.
var errTooLarge = fmt.Errorf("too large: want at most %d values", maxValues)

// origins are the load balancers whose files can be read, by name.
var origins = map[string]func(d *draft, files []File) error{
	"fabio":   readFabio,
	"haproxy": readHAProxy,
	"nginx":   readNginx,
	"traefik": readTraefik,
}

// Origins returns the names of the load balancers whose files Translate reads, sorted.
func Origins() []string { return slices.Sorted(maps.Keys(origins)) }

// Translate translates files of a load balancer of [Origins]. An error says that they cannot be
// read at all.
func Translate(origin string, files []File) (Result, error) {
	read, known := origins[origin]
	if !known {
		return Result{}, fmt.Errorf("unknown load balancer %q: want one of %s", origin, strings.Join(Origins(), ", "))
	}
	if len(files) == 0 {
		return Result{}, errors.New("no file")
	}
	d := &draft{
		top: Place{files[0].Name, 1}, sections: make(tags.Keys), places: make(map[string]Place), noted: make(map[string]bool),
		parts: make(map[string][]*part),
	}
	if err := read(d, files); err != nil {
		return Result{}, err
	}
	for _, section := range []string{"services", "actions"} {
		slices.SortFunc(d.parts[section], func(a, b *part) int { return strings.Compare(a.name, b.name) })
	}
	text, err := d.finish()
	order := make(map[string]int, len(files))
	for i, f := range files {
		order[f.Name] = i
	}
	slices.SortStableFunc(d.notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return Result{YAML: text, Notes: d.notes}, err
}

// draft is a configuration that is being put together.
type draft struct {
	top      Place // the first line
	sections tags.Keys
	places   map[string]Place   // of keys in sections, by their paths
	parts    map[string][]*part // of listeners, routes, services and actions
	notes    []Note
	noted    map[string]bool
	routes   int // by decisions so far
}

// part is a listener, a route, a service or named actions.
type part struct {
	name string // in a mapping; empty: in a list
	keys tags.Keys
	at   Place // of what asks for it
	gone bool  // left out
}

// note adds a note, once.
func (d *draft) note(at Place, format string, values ...any) {
	n := Note{at, tags.Blanks(fmt.Sprintf(format, values...))}
	if !d.noted[n.String()] {
		d.noted[n.String()] = true
		d.notes = append(d.notes, n)
	}
}

// set sets a key of a section.
func (d *draft) set(at Place, value any, path ...string) {
	d.sections.Set(value, path...)
	d.places[strings.Join(path, ".")] = at
}

// add adds a part. One with the same name stays.
func (d *draft) add(section, name string, at Place, keys tags.Keys) {
	if name == "" || !d.has(section, name) {
		d.parts[section] = append(d.parts[section], &part{name: name, keys: keys, at: at})
	}
}

func (d *draft) has(section, name string) bool {
	return slices.ContainsFunc(d.parts[section], func(p *part) bool { return p.name == name })
}

// everybody are the networks of all clients.
var everybody = []string{"0.0.0.0/0", "::/0"}

// shut returns the keys of a route for the same requests that denies them.
func shut(route tags.Keys) tags.Keys {
	closed := (tags.Route{Keys: route}).Deny().Keys
	if priority, ok := route["priority"]; ok {
		closed["priority"] = priority
	}
	closed["direct_response"] = tags.Keys{"status": "403"}
	return closed
}

// leaf is a value of a file of keys and values.
type leaf struct {
	path []string // of its keys as written; entries of lists of mappings have numbers
	// values has the value, or those of a list. An empty mapping or null is "".
	values []string
	at     Place
}

func (l leaf) key() string { return strings.Join(l.path, ".") }

func (l leaf) value() string { return strings.Join(l.values, ",") }

// rule carries a value over. names are the parts of its path that "*" stands for.
type rule func(l leaf, names []string)

// row says what becomes of a value whose path, in lower case, fits the pattern: names between dots,
// "*" for any name, and "**" at the end for all below.
type row struct {
	pattern string
	apply   rule
}

// apply carries values over, each by the first row that fits.
func (d *draft) apply(leaves []leaf, rows []row) {
	rows = append(rows, row{"**", d.unlike("does not carry over")})
	for _, l := range leaves {
		for _, r := range rows {
			if names, ok := fits(strings.Split(r.pattern, "."), l.path); ok {
				r.apply(l, names)
				break
			}
		}
	}
}

func fits(pattern, path []string) (names []string, ok bool) {
	for i, want := range pattern {
		switch {
		case want == "**":
			return names, true
		case i >= len(path):
			return nil, false
		case want == "*":
			names = append(names, path[i])
		case want != strings.ToLower(path[i]):
			return nil, false
		}
	}
	return names, len(pattern) == len(path)
}

// sameByDefault is the rule for what sluice does without a setting.
func sameByDefault(leaf, []string) {}

// unlike returns the rule for what does not carry over. want says what to do.
func (d *draft) unlike(want string) rule {
	return func(l leaf, _ []string) { d.note(l.at, "%s: %s", l.key(), want) }
}

// to returns the rule for a value of a key.
func (d *draft) to(path ...string) rule {
	return func(l leaf, _ []string) { d.set(l.at, l.value(), path...) }
}

// list returns the rule for the values of a key.
func (d *draft) list(path ...string) rule {
	return func(l leaf, _ []string) { d.set(l.at, l.values, path...) }
}

// words returns the rule for a word, which has another name here.
func (d *draft) words(names map[string]string, path ...string) rule {
	return func(l leaf, _ []string) {
		if name := names[strings.ToLower(l.value())]; name != "" {
			d.set(l.at, name, path...)
		} else {
			d.note(l.at, "%s: %q has no counterpart: want one of %s", l.key(), l.value(), strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
	}
}

// duration returns the rule for a duration, in seconds if it has no unit. 0 is none, which the key
// does not have.
func (d *draft) duration(path ...string) rule {
	return func(l leaf, _ []string) {
		if s := withUnit(l.value(), "s"); strings.Trim(s, "0.smh") == "" {
			d.note(l.at, "%s: no limit: sluice always has one, see sluice explain %s", l.key(), strings.Join(path, "."))
		} else {
			d.set(l.at, s, path...)
		}
	}
}

// logLevels are levels of the log, by their names elsewhere.
var logLevels = map[string]string{
	"trace": "debug", "debug": "debug", "info": "info", "warn": "warn", "error": "error", "fatal": "error", "panic": "error",
}

// withUnit returns a duration, with a unit if it has none.
func withUnit(s, unit string) string {
	if _, err := strconv.Atoi(s); err == nil {
		return s + unit
	}
	return s
}
