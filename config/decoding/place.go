package decoding

import (
	"cmp"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// keyPath is the path of a key while it is decoded. Only errors need its text.
type keyPath struct {
	above *keyPath // nil: the file
	name  string
	item  bool // of a list, with an index instead of a name
	index int

	rights *Rights // nil: the file sets the key, which may set all
}

// String returns a text such as services.star.peers[0].
func (k *keyPath) String() string {
	switch {
	case k == nil:
		return ""
	case k.item:
		return Item(k.above.String(), k.index)
	}
	return Join(k.above.String(), k.name)
}

// Item returns the path of an entry of the list key.
func Item(key string, index int) string { return key + "[" + strconv.Itoa(index) + "]" }

// Join appends name to the path of a key. It quotes names that are long, empty or not printable.
func Join(key, name string) string {
	if name == "" || len(name) > 80 || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		name = quote(name)
	}
	if key == "" {
		return name
	}
	return key + "." + name
}

// Place is the place of a key in the input.
type Place struct {
	Origin string // as in Error
	line   int
	column int
}

// Refuse records an error for key, at its place. An empty value is not in the message.
func (d *Decoder) Refuse(key, value, want string) { d.Fail(d.Place(key), key, value, want) }

// Fail is Refuse with another place.
func (d *Decoder) Fail(p Place, key, value, want string) {
	if value != "" {
		value = quote(d.textOf(key, value))
	}
	d.add(p, key, value, want)
}

// add records an error with a value as it is shown.
func (d *Decoder) add(p Place, key, shown, want string) {
	d.Errs = append(d.Errs, &Error{Origin: p.Origin, Key: key, Value: shown, Want: want, line: p.line, column: p.column})
}

// ErrorAt returns an error for key, at its place. It is not recorded.
func (d *Decoder) ErrorAt(key, want string) *Error {
	p := d.Place(key)
	return &Error{Origin: p.Origin, Key: key, Want: want, line: p.line, column: p.column}
}

// AtLine returns the place of a line of the file.
func (d *Decoder) AtLine(line int) Place {
	return Place{Origin: d.file + ":" + strconv.Itoa(line), line: line}
}

// PlaceOf returns the place of n, or of the whole file if n is nil.
func (d *Decoder) PlaceOf(n *yaml.Node) Place {
	if n == nil {
		return Place{Origin: d.file}
	}
	if origin, ok := d.origins[n]; ok {
		return Place{Origin: origin}
	}
	p := d.AtLine(n.Line)
	p.column = n.Column
	return p
}

// Place returns the place of key, or of the nearest key above it.
func (d *Decoder) Place(key string) Place {
	at, _, _ := d.find(key)
	return d.PlaceOf(at)
}

// HasKey reports whether key is in the tree.
func (d *Decoder) HasKey(key string) bool {
	_, whole, _ := d.find(key)
	return whole
}

// Says reports whether key is in the tree, or null above it stands for its default.
func (d *Decoder) Says(key string) bool {
	_, whole, null := d.find(key)
	return whole || null
}

// RefuseDuplicate records an error if identity is already in seen, which maps identities to keys.
// value is the text in the file.
func (d *Decoder) RefuseDuplicate(seen map[string]string, identity, key, value string) {
	other, twice := seen[identity]
	if !twice {
		seen[identity] = key
		return
	}
	d.Refuse(key, value, "the same as "+other+" at "+d.Place(other).Origin)
}

// Failed reports whether an error is recorded for key or for a key below it.
func (d *Decoder) Failed(key string) bool {
	if d.failures == nil {
		d.failures = make(map[string]bool)
	}
	for _, e := range d.Errs[d.indexed:] {
		d.failures[e.Key] = true
		for end := range len(e.Key) {
			if e.Key[end] == '.' || e.Key[end] == '[' {
				d.failures[e.Key[:end]] = true
			}
		}
	}
	d.indexed = len(d.Errs)
	return d.failures[key]
}

// find returns the node at the path key, or the node of the nearest key above it, or nil if there
// is none. whole reports whether it is the node of key, and null whether the value of the nearest
// key is null. The node of an entry of a mapping is its name.
func (d *Decoder) find(key string) (at *yaml.Node, whole, null bool) {
	if d.root == nil {
		return nil, false, false
	}
	errs := d.Errs // pairs has recorded its errors before
	defer func() { d.Errs = errs }()
	return d.findBelow(nil, present(d.root()), key)
}

// findBelow is find in the value n of the node at.
func (d *Decoder) findBelow(at, n *yaml.Node, key string) (nearest *yaml.Node, whole, null bool) {
	if n == nil || key == "" {
		return cmp.Or(n, at), n != nil, n == nil && at != nil
	}
	if n.Kind == yaml.SequenceNode && key[0] == '[' {
		number, rest, _ := strings.Cut(key[1:], "]")
		i, err := strconv.Atoi(number)
		if err != nil || i >= len(n.Content) || present(n.Content[i]) == nil {
			return at, false, false
		}
		entry := present(n.Content[i])
		return d.findBelow(entry, entry, strings.TrimPrefix(rest, "."))
	}
	if n.Kind != yaml.MappingNode {
		return at, false, false
	}
	entries := d.entries(n)
	for end := 1; end <= len(key); end++ { // a name may have dots
		if end < len(key) && key[end] != '.' && key[end] != '[' {
			continue
		}
		p, found := entries[key[:end]]
		if !found {
			continue
		}
		if end == len(key) {
			return p.key, true, false
		}
		if at, whole, null = d.findBelow(p.key, present(p.value), strings.TrimPrefix(key[end:], ".")); whole {
			break
		}
	}
	return at, whole, null
}

// entries returns the entries of a mapping by their names as in Join.
func (d *Decoder) entries(n *yaml.Node) map[string]pair {
	if entries, known := d.mappings[n]; known {
		return entries
	}
	pairs, _ := d.pairs(n, nil)
	entries := make(map[string]pair, len(pairs))
	for _, p := range pairs {
		entries[Join("", p.name)] = p
	}
	if d.mappings == nil {
		d.mappings = make(map[*yaml.Node]map[string]pair)
	}
	d.mappings[n] = entries
	return entries
}
