package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// decoder turns a YAML tree into a Config. It continues after an error, so that it finds
// all of them, and records the place of each key for the checks in complete.
type decoder struct {
	file    string
	origins map[*yaml.Node]string // of nodes from flags and the environment
	places  map[string]place      // by path of the key
	errs    Errors
	old     Errors // keys of earlier versions that are accepted
	part    bool   // the tree is a document of a source, not the configuration file

	awaited map[string]bool // services that a source may define that is not known yet

	conditions, conditionsDepth int // see enterConditions
}

// newDecoder returns a decoder for the tree of file.
func newDecoder(file string) *decoder {
	return &decoder{file: file, origins: make(map[*yaml.Node]string), places: make(map[string]place)}
}

// place is the place of a key in the input.
type place struct {
	origin string
	line   int
}

// refuse records an error for key, at its place. An empty value is not in the message.
func (d *decoder) refuse(key, value, want string) { d.fail(d.place(key), key, value, want) }

// fail is refuse with another place.
func (d *decoder) fail(p place, key, value, want string) {
	if value != "" {
		value = quote(value)
	}
	d.errs = append(d.errs, &Error{Origin: p.origin, Key: key, Value: value, Want: want, line: p.line})
}

// placeOf returns the place of n, or of the whole file if n is nil.
func (d *decoder) placeOf(n *yaml.Node) place {
	if n == nil {
		return place{origin: d.file}
	}
	if origin, ok := d.origins[n]; ok {
		return place{origin: origin}
	}
	return place{origin: atLine(d.file, n.Line), line: n.Line}
}

// place returns the place of key, or of the nearest key above it.
func (d *decoder) place(key string) place {
	for {
		if p, ok := d.places[key]; ok {
			return p
		}
		cut := strings.LastIndexAny(key, ".[")
		if cut < 0 {
			return d.placeOf(nil)
		}
		key = key[:cut]
	}
}

// noKey is the key of fields that are not in the file.
const noKey = "-"

// value decodes n into v. If n is nil, the key is absent, and v becomes its default.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string, r rules) {
	n = present(n)
	if n != nil {
		if _, known := d.places[key]; !known {
			d.places[key] = d.placeOf(n)
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		d.object(n, v, key)
	case reflect.Pointer: // optional: absent is nil
		if n != nil {
			v.Set(reflect.New(v.Type().Elem()))
			d.value(n, v.Elem(), key, r)
		}
	case reflect.Slice:
		d.list(n, v, key, r)
	case reflect.Map:
		d.table(n, v, key, r)
	default:
		d.scalar(n, v, key, r)
	}
}

// present resolves an alias and returns nil for an absent or null node.
func present(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil
	}
	return n
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, key string, r rules) {
	text := r.fallback
	if n == nil {
		if text == "" { // optional, or reported as missing
			return
		}
	} else if n.Kind != yaml.ScalarNode {
		d.fail(d.placeOf(n), key, "", "want "+r.want(v.Type())+", not a "+kindOf(n))
		return
	} else if !plainTags[n.ShortTag()] {
		d.fail(d.placeOf(n), key, "", fmt.Sprintf("tag %s: want %s", n.Tag, r.want(v.Type())))
		return
	} else {
		text = n.Value
	}
	parsed, ok := r.parse(text, v.Type())
	if ok {
		v.Set(parsed)
		return
	}
	if n == nil {
		panic(fmt.Sprintf("BUG: config: default %q of %s is not allowed", text, key))
	}
	want := "want " + r.want(v.Type())
	text = masked(text, v.Type())
	if word := suggest(text, r.oneof); word != "" {
		want += fmt.Sprintf(" (did you mean %s?)", word)
	}
	p := d.placeOf(n)
	d.errs = append(d.errs, &Error{Origin: p.origin, line: p.line, Key: key, Value: quote(text), Want: want})
}

// plainTags are the allowed YAML tags of scalars. The decoder uses the text as it is in
// the file: "tags: [1.0]" is the text "1.0".
var plainTags = map[string]bool{"!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!timestamp": true}

func (d *decoder) list(n *yaml.Node, v reflect.Value, key string, r rules) {
	if n == nil {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fail(d.placeOf(n), key, "", "want a list, such as [a, b], not a "+kindOf(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	r.fallback = ""
	for i, item := range n.Content {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		element := reflect.New(v.Type().Elem()).Elem()
		if item = present(item); item == nil || item.Kind == yaml.ScalarNode && item.Value == "" {
			d.fail(d.placeOf(n.Content[i]), itemKey, "", "empty: write a value, or remove the entry")
			continue
		}
		d.value(item, element, itemKey, r)
		list = reflect.Append(list, element)
	}
	if list.Len() > 0 {
		v.Set(list)
	}
}

func (d *decoder) table(n *yaml.Node, v reflect.Value, key string, r rules) {
	pairs, ok := d.pairs(n, key)
	if !ok || len(pairs) == 0 {
		return
	}
	table := reflect.MakeMapWithSize(v.Type(), len(pairs))
	for _, p := range pairs {
		entryKey := join(key, p.name)
		if f := formats[r.format]; p.name == "" || !f.ok(p.name) {
			d.fail(d.placeOf(p.key), entryKey, p.name, "want "+f.want)
			continue
		}
		d.places[entryKey] = d.placeOf(p.key)
		entry := reflect.New(v.Type().Elem()).Elem()
		d.value(p.value, entry, entryKey, rules{})
		table.SetMapIndex(reflect.ValueOf(p.name), entry)
	}
	v.Set(table)
}

func (d *decoder) object(n *yaml.Node, v reflect.Value, key string) {
	pairs, ok := d.pairs(n, key)
	if !ok {
		return
	}
	if v.Type() == conditionsType {
		defer func() { d.conditionsDepth-- }()
		if !d.enterConditions(d.placeOf(n), key) {
			return
		}
	}
	values := make(map[string]pair, len(pairs))
	for _, p := range pairs {
		values[p.name] = p
	}
	fields := keyFields(v.Type())
	known := make([]string, len(fields))
	for i, field := range fields {
		name, at := field.Tag.Get("key"), v.FieldByIndex(field.Index)
		known[i] = name
		p, given := values[name]
		fieldKey := join(key, name)
		if given {
			d.places[fieldKey] = d.placeOf(p.key)
		}
		mistakes := len(d.errs)
		d.value(p.value, at, fieldKey, rulesOf(field.Tag))
		if field.Tag.Get("required") != "" && at.IsZero() && len(d.errs) == mistakes {
			at := d.placeOf(n)
			if given {
				at = d.placeOf(p.key)
			}
			d.fail(at, fieldKey, "", "required: "+rulesOf(field.Tag).want(field.Type))
		}
		delete(values, name)
	}
	for _, p := range pairs {
		if _, unknown := values[p.name]; !unknown {
			continue
		}
		if why := goneKey(join(key, p.name)); why != "" {
			d.fail(d.placeOf(p.key), join(key, p.name), "", why)
			continue
		}
		if why := oldKey(join(key, p.name)); why != "" {
			at := d.placeOf(p.key)
			d.old = append(d.old, &Error{Origin: at.origin, line: at.line, Key: join(key, p.name), Want: why})
			continue
		}
		want := "unknown key"
		if d.part && key == "" && slices.Contains(topKeys, p.name) {
			want = "only in the configuration file"
		}
		if word := suggest(p.name, known); word != "" {
			want += fmt.Sprintf(", did you mean %q?", word)
		}
		d.fail(d.placeOf(p.key), join(key, p.name), "", want+" (allowed here: "+strings.Join(known, ", ")+")")
	}
}

// keyFields returns the fields of a struct that have keys, also those of embedded structs. The
// caller must not change them.
func keyFields(t reflect.Type) []reflect.StructField {
	if fields, ok := fieldsByType.Load(t); ok {
		return fields.([]reflect.StructField)
	}
	fields := slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Anonymous || f.Tag.Get("key") == noKey })
	fieldsByType.Store(t, fields)
	return fields
}

// fieldsByType has the results of keyFields: a configuration has thousands of equal structs.
var fieldsByType sync.Map

// topKeys are the keys of the configuration file.
var topKeys = func() (keys []string) {
	for f := range reflect.TypeFor[Config]().Fields() {
		keys = append(keys, f.Tag.Get("key"))
	}
	return keys
}()

// pair is an entry of a mapping.
type pair struct {
	name       string
	key, value *yaml.Node
}

// pairs returns the entries of the mapping n and of the mappings that it merges ("<<"),
// each name once, or false if n is not a mapping.
func (d *decoder) pairs(n *yaml.Node, key string) ([]pair, bool) {
	if n == nil {
		return nil, true
	}
	if n.Kind != yaml.MappingNode {
		d.fail(d.placeOf(n), key, "", "want a mapping of keys to values, not a "+kindOf(n))
		return nil, false
	}
	var all, merged []pair
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		name := present(k)
		switch {
		case name == nil || name.Kind != yaml.ScalarNode:
			d.fail(d.placeOf(k), key, "", "want a name before the colon")
		case name.ShortTag() == "!!merge":
			merged = append(merged, d.merge(value, key)...)
		case lines[name.Value] != 0:
			d.fail(d.placeOf(k), join(key, name.Value), "", fmt.Sprintf("given twice, first in line %d", lines[name.Value]))
		default:
			lines[name.Value] = k.Line
			all = append(all, pair{name.Value, k, value})
		}
	}
	for _, p := range merged {
		if lines[p.name] == 0 { // a direct entry wins, then the first merged one
			lines[p.name] = p.key.Line
			all = append(all, p)
		}
	}
	return all, true
}

// merge returns the entries of n, the value of "<<": a mapping or a list of mappings.
// A merged mapping may not merge others, so there is no cycle.
func (d *decoder) merge(n *yaml.Node, key string) []pair {
	n = present(n)
	sources := []*yaml.Node{n}
	if n != nil && n.Kind == yaml.SequenceNode {
		sources = n.Content
	}
	var all []pair
	for _, source := range sources {
		source = present(source)
		if source == nil || source.Kind != yaml.MappingNode {
			d.fail(d.placeOf(n), join(key, "<<"), "", "want an alias of a mapping, such as *defaults")
			continue
		}
		for i := 0; i+1 < len(source.Content); i += 2 {
			k := source.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				d.fail(d.placeOf(k), join(key, "<<"), "", "a merged mapping may contain only plain keys")
				continue
			}
			all = append(all, pair{k.Value, k, source.Content[i+1]})
		}
	}
	return all
}

// kindOf names the kind of n for an error.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	}
	return "single value"
}

// join appends name to the path of a key. It quotes long and unprintable names.
func join(key, name string) string {
	if len(name) > 80 || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		name = quote(name)
	}
	if key == "" {
		return name
	}
	return key + "." + name
}
