package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/tags"
)

// decoder turns a YAML tree into a Config. It continues after an error, so that it finds
// all of them, and finds the place of each key for the checks in complete.
type decoder struct {
	file    string
	origins map[*yaml.Node]string // of nodes from flags and the environment
	root    func() *yaml.Node     // the tree; nil: there is none
	// mappings are the mappings of the tree that errors were about.
	mappings map[*yaml.Node]map[string]pair
	errs     Errors
	// failures are the keys of errs, and all above them. The first indexed of errs are in it: see failed.
	failures map[string]bool
	indexed  int
	part     bool // the tree is a document of a source, not the configuration file

	by     Setter    // of the tree
	rights *rightsOf // of the tree; nil: by the file, which may set all

	// getenv returns the value of a variable of the environment, or "". nil: the tree may not
	// contain any: who writes documents must not read the environment of the process.
	getenv func(string) string
	hidden []hiddenKey

	awaited map[string]bool // services that a source may define that is not known yet
	// serviceNames has the names of all services, once they are put together.
	serviceNames func() *serviceNames

	conditions, conditionsDepth int // see enterConditions
}

// newDecoder returns a decoder for the tree of file.
func newDecoder(file string) *decoder {
	return &decoder{file: file, origins: make(map[*yaml.Node]string)}
}

// decode decodes root into v.
func (d *decoder) decode(root *yaml.Node, v reflect.Value) {
	d.root = func() *yaml.Node { return root }
	d.value(root, v, nil, &rules{})
}

// restrict lets the decoder set only what a setter may set. The tree is one of keys with these
// rights.
func (d *decoder) restrict(by Setter, rights *rightsOf) {
	if d.by = by; by != ByFile {
		d.rights = rights
	}
}

// bounded reports whether the regular expressions of the tree are: see route.Route.
func (d *decoder) bounded() bool { return d.by&^ByFile != 0 }

// rightsAt returns the rights of the keys below a key.
func (d *decoder) rightsAt(key *keyPath) *rightsOf {
	if key == nil {
		return d.rights
	}
	return key.rights
}

// maySet reports whether who wrote the tree may set the key to n, and else records an error.
func (d *decoder) maySet(n *yaml.Node, t reflect.Type, key *keyPath) bool {
	rights := d.rightsAt(key)
	if rights == nil {
		return true
	}
	want := d.by.String() + " cannot set this"
	switch {
	case rights.setters&d.by == 0:
		if want += ": want it in the file"; key != nil {
			if names := d.rightsAt(key.above).settable(d.by); len(names) > 0 {
				want += " (allowed here: " + strings.Join(names, ", ") + ")"
			}
		}
	case rights.only == nil:
		return true
	default:
		text := n.Value
		if entry := !key.item && d.rightsAt(key.above) == rights; entry {
			text = key.name
		} else if n.Kind != yaml.ScalarNode {
			return true // its elements decide
		}
		if rights.only.ok(text) {
			return true
		}
		want += ": want " + rights.only.want
	}
	shown := ""
	if n.Kind == yaml.ScalarNode {
		shown = quote(masked(n.Value, t))
	}
	p := d.placeOf(n)
	d.errs = append(d.errs, &Error{Origin: p.origin, line: p.line, Key: key.String(), Value: shown, Want: want})
	return false
}

// noKey is the key of fields that are not in the file.
const noKey = "-"

// value decodes n into v. If n is nil, the key is absent, and v becomes its default. After an
// error it is zero.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key *keyPath, r *rules) {
	if n = present(n); n == nil {
		setDefault(v, r)
		return
	}
	if !d.maySet(n, v.Type(), key) {
		v.SetZero()
		return
	}
	switch kindIn(v.Type()) {
	case reflect.Struct:
		d.object(n, v, key)
	case reflect.Pointer: // optional: absent is nil
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), key, r)
	case reflect.Slice:
		d.list(n, v, key, r)
	case reflect.Map:
		d.table(n, v, key, r)
	default:
		d.scalar(n, v, key, r)
	}
}

// setDefault sets v to the value of an absent key.
func setDefault(v reflect.Value, r *rules) {
	switch kindIn(v.Type()) {
	case reflect.Struct:
		v.Set(objectOf(v.Type()).absent)
	case reflect.Pointer, reflect.Slice, reflect.Map: // optional
	default:
		if r.fallback == "" { // optional, or reported as missing
			return
		}
		parsed, ok := r.parse(r.fallback, v.Type())
		if !ok {
			panic(fmt.Sprintf("BUG: config: default %q of a %s is not allowed", r.fallback, v.Type()))
		}
		v.Set(parsed)
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

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, key *keyPath, r *rules) {
	v.SetZero()
	if n.Kind != yaml.ScalarNode {
		d.fail(d.placeOf(n), key.String(), "", "want "+r.want(v.Type())+", not a "+kindOf(n))
		return
	}
	if !plainTags[n.ShortTag()] {
		d.fail(d.placeOf(n), key.String(), "", fmt.Sprintf("tag %s: want %s", n.Tag, r.want(v.Type())))
		return
	}
	value, fromVariables, ok := d.text(n, key, func(s string) string { return masked(s, v.Type()) })
	if !ok {
		return
	}
	if kindIn(v.Type()) == reflect.String && !isTyped(v.Type()) && r.allow(value) {
		setText(v, value)
		return
	}
	if parsed, ok := r.parse(value, v.Type()); ok {
		v.Set(parsed)
		return
	}
	want := "want " + r.want(v.Type())
	if f := formats[r.format]; f.tells {
		if _, err := f.parse(value); err != nil {
			want = err.Error()
		}
	}
	if fromVariables {
		want += ", which the environment does not give"
	}
	text := masked(n.Value, v.Type())
	if word := suggest(text, r.oneof); word != "" && v.Kind() != reflect.Int { // similar digits are another number
		want += fmt.Sprintf(" (did you mean %s?)", word)
	}
	p := d.placeOf(n)
	d.errs = append(d.errs, &Error{Origin: p.origin, line: p.line, Key: key.String(), Value: quote(text), Want: want})
}

// plainTags are the allowed YAML tags of scalars. The decoder uses the text as it is in
// the file: "tags: [1.0]" is the text "1.0".
var plainTags = map[string]bool{"!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!timestamp": true}

func (d *decoder) list(n *yaml.Node, v reflect.Value, key *keyPath, r *rules) {
	if n.Kind != yaml.SequenceNode {
		d.fail(d.placeOf(n), key.String(), "", "want a list, such as [a, b], not a "+kindOf(n))
		return
	}
	if len(n.Content) == 0 {
		return
	}
	of := *r
	of.fallback = ""
	list, length := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)), 0
	for i, item := range n.Content {
		at := &keyPath{above: key, item: true, index: i, rights: d.rightsAt(key)}
		if item = present(item); item == nil || item.Kind == yaml.ScalarNode && item.Value == "" {
			d.fail(d.placeOf(n.Content[i]), at.String(), "", "empty: write a value, or remove the entry")
			continue
		}
		d.value(item, list.Index(length), at, &of)
		length++
	}
	if length > 0 {
		v.Set(list.Slice(0, length))
	}
}

func (d *decoder) table(n *yaml.Node, v reflect.Value, key *keyPath, r *rules) {
	pairs, ok := d.pairs(n, key)
	if !ok || len(pairs) == 0 {
		return
	}
	table := reflect.MakeMapWithSize(v.Type(), len(pairs))
	for _, p := range pairs {
		at := &keyPath{above: key, name: p.name, rights: d.rightsAt(key).at(p.name)}
		if f := formats[r.format]; p.name == "" || !f.ok(p.name) {
			d.fail(d.placeOf(p.key), at.String(), p.name, "want "+f.want)
			continue
		}
		entry, mistakes := reflect.New(v.Type().Elem()).Elem(), len(d.errs)
		rules := &rules{}
		if v.Type() == splitType {
			rules = splitRules(p.name)
		}
		if d.value(p.value, entry, at, rules); len(d.errs) > mistakes && at.rights != nil && at.rights.below == nil {
			continue // its name may be what is not allowed
		}
		table.SetMapIndex(reflect.ValueOf(p.name), entry)
	}
	v.Set(table)
}

func (d *decoder) object(n *yaml.Node, v reflect.Value, key *keyPath) {
	pairs, ok := d.pairs(n, key)
	if !ok {
		v.SetZero()
		return
	}
	switch v.Type() {
	case conditionsType:
		defer func() { d.conditionsDepth-- }()
		if !d.enterConditions(n, key) {
			return
		}
	case routeType:
		before := len(d.hidden)
		defer func() {
			r := v.Addr().Interface().(*Route)
			r.Origin, r.hidden = d.placeOf(n).origin, d.hiddenBelow(key, before)
		}()
	}
	o := objectOf(v.Type())
	v.Set(o.absent)
	known := 0
	for i := range o.fields {
		f := &o.fields[i]
		p := slices.IndexFunc(pairs, func(p pair) bool { return p.name == f.name })
		if p >= 0 {
			known++
		} else if !f.required {
			continue
		}
		at := &keyPath{above: key, name: f.name, rights: d.rightsAt(key).at(f.name)}
		mistakes, value := len(d.errs), v.FieldByIndex(f.index)
		if p >= 0 {
			d.value(pairs[p].value, value, at, &f.rules)
		}
		if f.required && value.IsZero() && len(d.errs) == mistakes {
			where := d.placeOf(n)
			if p >= 0 {
				where = d.placeOf(pairs[p].key)
			}
			d.fail(where, at.String(), "", "required: "+f.rules.want(value.Type()))
		}
	}
	if known < len(pairs) {
		d.unknown(pairs, o, key)
	}
}

// enterConditions counts conditions, and reports whether they are within the limits.
func (d *decoder) enterConditions(n *yaml.Node, key *keyPath) bool {
	if d.conditionsDepth == 0 {
		d.conditions = 0
	}
	d.conditions++
	d.conditionsDepth++
	switch {
	case d.conditionsDepth > maxConditionsDepth:
		d.fail(d.placeOf(n), key.String(), "", fmt.Sprintf("nested too deeply: want at most %d levels of not and any", maxConditionsDepth))
		return false
	case d.conditions == maxConditions+1:
		d.fail(d.placeOf(n), key.String(), "", fmt.Sprintf("too many conditions: want at most %d for a route", maxConditions))
	}
	return d.conditions <= maxConditions
}

// unknown records the pairs of a mapping that are no keys of o.
func (d *decoder) unknown(pairs []pair, o *object, at *keyPath) {
	known, key := o.names(), at.String()
	allowed := known
	if rights := d.rightsAt(at); rights != nil {
		allowed = rights.settable(d.by)
	}
	if o.absent.Type() == routeType && (d.by == ByTag || d.by == ByRegistration) {
		allowed = append(allowed, slices.Sorted(maps.Keys(tags.ShortKeys))...)
	}
	for _, p := range pairs {
		if slices.Contains(known, p.name) {
			continue
		}
		want := "unknown key"
		if d.part && key == "" && slices.Contains(topKeys, p.name) {
			want = "only in the configuration file"
		}
		d.fail(d.placeOf(p.key), join(key, p.name), "", want+didYouMean(p.name, allowed)+" (allowed here: "+strings.Join(allowed, ", ")+")")
	}
}

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
func (d *decoder) pairs(n *yaml.Node, key *keyPath) ([]pair, bool) {
	if n.Kind != yaml.MappingNode {
		d.fail(d.placeOf(n), key.String(), "", "want a mapping of keys to values, not a "+kindOf(n))
		return nil, false
	}
	all := make([]pair, 0, len(n.Content)/2)
	var merged []pair
	given := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		name := present(k)
		switch {
		case name == nil || name.Kind != yaml.ScalarNode:
			d.fail(d.placeOf(k), key.String(), "", "want a name before the colon")
		case name.ShortTag() == "!!merge":
			merged = append(merged, d.merge(value, key)...)
		case given[name.Value] != nil:
			d.fail(d.placeOf(k), join(key.String(), name.Value), "", fmt.Sprintf("given twice, first in line %d", given[name.Value].Line))
		default:
			given[name.Value] = k
			all = append(all, pair{name.Value, k, value})
		}
	}
	for _, p := range merged {
		if given[p.name] == nil { // a direct entry wins, then the first merged one
			given[p.name] = p.key
			all = append(all, p)
		}
	}
	return all, true
}

// merge returns the entries of n, the value of "<<": a mapping or a list of mappings.
// A merged mapping may not merge others, so there is no cycle.
func (d *decoder) merge(n *yaml.Node, key *keyPath) []pair {
	n = present(n)
	sources := []*yaml.Node{n}
	if n != nil && n.Kind == yaml.SequenceNode {
		sources = n.Content
	}
	var all []pair
	for _, source := range sources {
		source = present(source)
		if source == nil || source.Kind != yaml.MappingNode {
			d.fail(d.placeOf(n), join(key.String(), "<<"), "", "want an alias of a mapping, such as *defaults")
			continue
		}
		for i := 0; i+1 < len(source.Content); i += 2 {
			k := source.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				d.fail(d.placeOf(k), join(key.String(), "<<"), "", "a merged mapping may contain only plain keys")
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
