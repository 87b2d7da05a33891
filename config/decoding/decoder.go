// Package decoding decodes YAML into structs, strictly. It reports all errors at once, each with
// the place, the key, the value and what is allowed. The tags of the fields of a struct are:
//
//	key      name in the file; "-": the field is not in the file
//	default  value if the key is absent, written as in the file
//	required the key must be there
//	min max  limits of a number, duration, size or ratio, inclusive
//	oneof    the allowed words or whole numbers, separated by "|"
//	format   the rule for a text, of [Schema.Formats]
//	origin   the field, without a key, is the place of the struct
//
// The keys of an embedded struct are keys of the struct that contains it.
package decoding

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// A Decoder turns a YAML tree into a struct. It continues after an error, so that it finds all of
// them, and finds the place of each key for later checks.
type Decoder struct {
	Errs Errors // all so far
	// Getenv returns the value of a variable of the environment, or "". nil: the tree may not
	// contain any: who writes documents must not read the environment of the process.
	Getenv func(string) string
	// AlsoAllowed are names that errors about unknown keys of a struct list too.
	AlsoAllowed map[reflect.Type][]string
	// Misplaced are errors for some unknown keys, by their paths.
	Misplaced map[string]string
	// Absent returns what entries of mappings have before their keys are decoded, by their types.
	// Of other types they have the defaults of the keys.
	Absent map[reflect.Type]func() any

	schema  *Schema
	file    string
	origins map[*yaml.Node]string // of nodes from flags and the environment
	root    func() *yaml.Node     // the tree; nil: there is none
	// mappings are the mappings of the tree that errors were about.
	mappings map[*yaml.Node]map[string]pair
	// failures are the keys of Errs, and all above them. The first indexed of Errs are in it: see
	// Failed.
	failures map[string]bool
	indexed  int

	by     Setters // of the tree
	who    string  // by, for errors
	rights *Rights // of the tree; nil: its writer may set all

	variables []withVariables
	nested    map[reflect.Type]*nested
}

// nested counts values of a struct with limits.
type nested struct{ depth, count int }

// Decoder returns a decoder for the tree of file.
func (s *Schema) Decoder(file string) *Decoder {
	return &Decoder{schema: s, file: file, origins: make(map[*yaml.Node]string)}
}

// Fork returns a copy of d, in which further errors can be recorded.
func (d *Decoder) Fork() *Decoder {
	f := *d
	f.Errs, f.root = slices.Clone(d.Errs), sync.OnceValue(d.root)
	f.failures, f.indexed = nil, 0
	return &f
}

// Forget frees the tree, which is ten times as large as its text. Only errors need it again: again
// makes it.
func (d *Decoder) Forget(again func() *yaml.Node) { d.root, d.mappings = again, nil }

// Decode decodes root into what v points to. As in a JSON Merge Patch (RFC 7396), keys that root
// does not have keep their values, also in sections, and null stands for the default of a key.
func (d *Decoder) Decode(root *yaml.Node, v any) {
	d.root = func() *yaml.Node { return root }
	d.value(root, reflect.ValueOf(v).Elem(), nil, &Rules{})
}

// value decodes n into v. If n is nil, the key is null, and v becomes its default. After an error
// it is zero.
func (d *Decoder) value(n *yaml.Node, v reflect.Value, key *keyPath, r *Rules) {
	if n = present(n); n == nil {
		v.SetZero()
		d.schema.setDefault(v, r)
		return
	}
	if !d.maySet(n, v.Type(), key) {
		v.SetZero()
		return
	}
	switch Kind(v.Type()) {
	case reflect.Struct:
		d.object(n, v, key)
	case reflect.Pointer: // optional: absent is nil
		to := reflect.New(v.Type().Elem()) // others may have what v points to
		if v.IsNil() {
			d.schema.setDefault(to.Elem(), r)
		} else {
			to.Elem().Set(v.Elem())
		}
		v.Set(to)
		d.value(n, v.Elem(), key, r)
	case reflect.Slice:
		d.list(n, v, key, r)
	case reflect.Map:
		d.table(n, v, key, r)
	default:
		d.scalar(n, v, key, r)
	}
}

func (d *Decoder) scalar(n *yaml.Node, v reflect.Value, key *keyPath, r *Rules) {
	v.SetZero()
	if n.Kind != yaml.ScalarNode {
		d.Fail(d.PlaceOf(n), key.String(), "", "want "+r.Want(v.Type())+", not a "+kindOf(n))
		return
	}
	if !plainTags[n.ShortTag()] {
		d.Fail(d.PlaceOf(n), key.String(), "", fmt.Sprintf("tag %s: want %s", n.Tag, r.Want(v.Type())))
		return
	}
	value, fromVariables, ok := d.text(n, key, func(s string) string { return masked(s, v.Type()) })
	if !ok {
		return
	}
	if parsed, ok := r.parse(value, v.Type()); ok {
		v.Set(parsed)
		return
	}
	want := "want " + r.Want(v.Type())
	if r.format.Tells {
		if _, err := r.format.Parse(value); err != nil {
			want = err.Error()
		}
	}
	if fromVariables {
		want += ", which the environment does not give"
	}
	text := masked(n.Value, v.Type())
	if word := Suggest(text, r.oneof); word != "" && v.Kind() != reflect.Int { // similar digits are another number
		want += fmt.Sprintf(" (did you mean %s?)", word)
	}
	d.add(d.PlaceOf(n), key.String(), quote(text), want)
}

// plainTags are the allowed YAML tags of scalars. The decoder uses the text as it is in
// the file: "tags: [1.0]" is the text "1.0".
var plainTags = map[string]bool{"!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!timestamp": true}

func (d *Decoder) list(n *yaml.Node, v reflect.Value, key *keyPath, r *Rules) {
	v.SetZero()
	if n.Kind != yaml.SequenceNode {
		d.Fail(d.PlaceOf(n), key.String(), "", "want a list, such as [a, b], not a "+kindOf(n))
		return
	}
	if len(n.Content) == 0 {
		return
	}
	of := *r
	of.Default = ""
	list, length := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)), 0
	for i, item := range n.Content {
		at := &keyPath{above: key, item: true, index: i, rights: d.rightsAt(key)}
		if item = present(item); item == nil || item.Kind == yaml.ScalarNode && item.Value == "" {
			d.Fail(d.PlaceOf(n.Content[i]), at.String(), "", "empty: write a value, or remove the entry")
			continue
		}
		d.schema.setDefault(list.Index(length), &of)
		d.value(item, list.Index(length), at, &of)
		length++
	}
	if length > 0 {
		v.Set(list.Slice(0, length))
	}
}

func (d *Decoder) table(n *yaml.Node, v reflect.Value, key *keyPath, r *Rules) {
	v.SetZero()
	pairs, ok := d.pairs(n, key)
	if !ok || len(pairs) == 0 {
		return
	}
	table := reflect.MakeMapWithSize(v.Type(), len(pairs))
	entries, ownFormats := v.Interface().(EntryFormats)
	for _, p := range pairs {
		at := &keyPath{above: key, name: p.name, rights: d.rightsAt(key).At(p.name)}
		if p.name == "" || !r.format.OK(p.name) {
			d.Fail(d.PlaceOf(p.key), at.String(), p.name, "want "+r.format.Want)
			continue
		}
		entry, mistakes := reflect.New(v.Type().Elem()).Elem(), len(d.Errs)
		rules := Rules{}
		if absent := d.Absent[entry.Type()]; absent != nil {
			entry.Set(reflect.ValueOf(absent()))
		} else {
			d.schema.setDefault(entry, &rules)
		}
		if ownFormats {
			rules.format = d.schema.Formats[entries.EntryFormat(p.name)]
		}
		if d.value(p.value, entry, at, &rules); len(d.Errs) > mistakes && at.rights != nil && at.rights.Below == nil {
			continue // its name may be what is not allowed
		}
		table.SetMapIndex(reflect.ValueOf(p.name), entry)
	}
	v.Set(table)
}

func (d *Decoder) object(n *yaml.Node, v reflect.Value, key *keyPath) {
	pairs, ok := d.pairs(n, key)
	if !ok {
		v.SetZero()
		return
	}
	o := d.schema.objectOf(v.Type())
	if o.nesting != nil {
		counted, ok := d.enter(n, v.Type(), o.nesting, key)
		defer func() { counted.depth-- }()
		if !ok {
			return
		}
	}
	if before := len(d.variables); o.variables != nil {
		field := v.FieldByIndex(o.variables)
		defer func() {
			if all := d.variablesBelow(key, before); len(all)+field.Len() > 0 {
				inherited := field.Interface().(Variables).unsaid(d, n)
				field.Set(reflect.ValueOf(append(inherited, all...)))
			}
		}()
	}
	if o.origin != nil {
		v.FieldByIndex(o.origin).SetString(d.PlaceOf(n).Origin)
	}
	known := 0
	for i := range o.fields {
		f := &o.fields[i]
		p := slices.IndexFunc(pairs, func(p pair) bool { return p.name == f.name })
		if p >= 0 {
			known++
		} else if !f.required {
			continue
		}
		at := &keyPath{above: key, name: f.name, rights: d.rightsAt(key).At(f.name)}
		mistakes, value := len(d.Errs), v.FieldByIndex(f.index)
		if p >= 0 {
			d.value(pairs[p].value, value, at, &f.rules)
		}
		if f.required && value.IsZero() && len(d.Errs) == mistakes {
			where := d.PlaceOf(n)
			if p >= 0 {
				where = d.PlaceOf(pairs[p].key)
			}
			d.Fail(where, at.String(), "", "required: "+f.rules.Want(value.Type()))
		}
	}
	if known < len(pairs) {
		d.unknown(pairs, o, key)
	}
}

// enter counts a struct with limits, and reports whether it is within them.
func (d *Decoder) enter(n *yaml.Node, t reflect.Type, most *Nesting, key *keyPath) (*nested, bool) {
	if d.nested == nil {
		d.nested = make(map[reflect.Type]*nested)
	}
	c := d.nested[t]
	if c == nil {
		c = new(nested)
		d.nested[t] = c
	}
	if c.depth == 0 {
		c.count = 0
	}
	c.count++
	c.depth++
	switch {
	case c.depth > most.Depth:
		d.Fail(d.PlaceOf(n), key.String(), "", most.TooDeep)
		return c, false
	case c.count == most.Count+1:
		d.Fail(d.PlaceOf(n), key.String(), "", most.TooMany)
	}
	return c, c.count <= most.Count
}

// unknown records the pairs of a mapping that are no keys of o.
func (d *Decoder) unknown(pairs []pair, o *object, at *keyPath) {
	known := o.names()
	allowed := known
	if rights := d.rightsAt(at); rights != nil {
		allowed = rights.settable(d.by)
	}
	allowed = append(allowed, d.AlsoAllowed[o.absent.Type()]...)
	for _, p := range pairs {
		if slices.Contains(known, p.name) {
			continue
		}
		key := Join(at.String(), p.name)
		want := cmp.Or(d.Misplaced[key], "unknown key")
		similar := Suggest(p.name, allowed)
		if other := d.schema.OtherNames[p.name]; slices.Contains(allowed, other) {
			similar = other
		}
		d.Fail(d.PlaceOf(p.key), key, "", want+asked(similar)+" (allowed here: "+strings.Join(allowed, ", ")+")")
	}
}
