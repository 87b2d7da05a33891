package decoding

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Setters is a set of who may set a key: bits that the caller chooses.
type Setters uint8

// Rights are who may set a key, and the keys below it. They do not change.
type Rights struct {
	Setters Setters            // of the key, or of at least one below it
	Only    *Only              // nil: all values that the key allows
	Below   map[string]*Rights // of a section
	Names   []string           // of Below, in the order of the struct
	Entry   *Rights            // of the entries of a mapping; nil: they have the rights of the key
}

// Only is a rule for the values of a key, beside the key's own.
type Only struct {
	Want string // what is allowed, for an error
	OK   func(string) bool
}

// Restrict lets the decoder set only what a setter may set, which errors call who. The tree is one
// of keys with these rights.
func (d *Decoder) Restrict(by Setters, who string, rights *Rights) {
	d.by, d.who, d.rights = by, who, rights
}

// rightsAt returns the rights of the keys below a key.
func (d *Decoder) rightsAt(key *keyPath) *Rights {
	if key == nil {
		return d.rights
	}
	return key.rights
}

// maySet reports whether who wrote the tree may set the key to n, and else records an error.
func (d *Decoder) maySet(n *yaml.Node, t reflect.Type, key *keyPath) bool {
	rights := d.rightsAt(key)
	if rights == nil {
		return true
	}
	want := d.who + " cannot set this"
	switch {
	case rights.Setters&d.by == 0:
		if want += ": want it in the file"; key != nil {
			if names := d.rightsAt(key.above).settable(d.by); len(names) > 0 {
				want += " (allowed here: " + strings.Join(names, ", ") + ")"
			}
		}
	case rights.Only == nil:
		return true
	default:
		text := n.Value
		if entry := !key.item && d.rightsAt(key.above) == rights; entry {
			text = key.name
		} else if n.Kind != yaml.ScalarNode {
			return true // its elements decide
		}
		if rights.Only.OK(text) {
			return true
		}
		want += ": want " + rights.Only.Want
	}
	shown := ""
	if n.Kind == yaml.ScalarNode {
		shown = quote(masked(n.Value, t))
	}
	d.add(d.PlaceOf(n), key.String(), shown, want)
	return false
}

// At returns the rights of the entry of a mapping, or of a key of a section.
func (r *Rights) At(name string) *Rights {
	switch {
	case r == nil:
		return nil
	case r.Below != nil:
		return r.Below[name]
	case r.Entry != nil:
		return r.Entry
	}
	return r
}

// settable returns the names of the keys of a section that a setter may set.
func (r *Rights) settable(by Setters) (names []string) {
	if r == nil {
		return nil
	}
	for _, name := range r.Names {
		if r.Below[name].Setters&by != 0 {
			names = append(names, name)
		}
	}
	return names
}
