package config

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"sluice/route"
)

// keyPath is the path of a key while it is decoded. Only errors need its text.
type keyPath struct {
	above *keyPath // nil: the file
	name  string
	item  bool // of a list, with an index instead of a name
	index int

	rights *rightsOf // nil: the file sets the key, which may set all
}

// String returns a text such as services.star.peers[0].
func (k *keyPath) String() string {
	switch {
	case k == nil:
		return ""
	case k.item:
		return item(k.above.String(), k.index)
	}
	return join(k.above.String(), k.name)
}

// item returns the path of an entry of the list key.
func item(key string, index int) string { return key + "[" + strconv.Itoa(index) + "]" }

// join appends name to the path of a key. It quotes names that are long, empty or not printable.
func join(key, name string) string {
	if name == "" || len(name) > 80 || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		name = quote(name)
	}
	if key == "" {
		return name
	}
	return key + "." + name
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
		value = quote(d.textOf(key, value))
	}
	d.errs = append(d.errs, &Error{Origin: p.origin, Key: key, Value: value, Want: want, line: p.line})
}

// given is a key, and whether it is set.
type given struct {
	key string
	set bool
}

// setKeys returns those of the keys that are set.
func setKeys(keys []given) (set []string) {
	for _, k := range keys {
		if k.set {
			set = append(set, k.key)
		}
	}
	return set
}

// refuseOption records an error of package route about an option in the section at key, if there is one.
func (d *decoder) refuseOption(key string, err error) {
	if wrong, ok := errors.AsType[*route.OptionError](err); ok {
		d.refuse(join(key, wrong.Key), wrong.Value, wrong.Err.Error())
	}
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
	at, _ := d.find(key)
	return d.placeOf(at)
}

// hasKey reports whether key is in the tree.
func (d *decoder) hasKey(key string) bool {
	_, whole := d.find(key)
	return whole
}

// refuseDuplicate records an error if identity is already in seen, which maps identities to keys.
// value is the text in the file.
func (d *decoder) refuseDuplicate(seen map[string]string, identity, key, value string) {
	other, twice := seen[identity]
	if !twice {
		seen[identity] = key
		return
	}
	d.refuse(key, value, "the same as "+other+" at "+d.place(other).origin)
}

// failed reports whether an error is recorded for key or for a key below it.
func (d *decoder) failed(key string) bool {
	if d.failures == nil {
		d.failures = make(map[string]bool)
	}
	for _, e := range d.errs[d.indexed:] {
		d.failures[e.Key] = true
		for end := range len(e.Key) {
			if e.Key[end] == '.' || e.Key[end] == '[' {
				d.failures[e.Key[:end]] = true
			}
		}
	}
	d.indexed = len(d.errs)
	return d.failures[key]
}

// find returns the node at the path key, or the node of the nearest key above it, or nil if there is
// none. whole reports whether it is the node of key. The node of an entry of a mapping is its name.
func (d *decoder) find(key string) (at *yaml.Node, whole bool) {
	if d.root == nil {
		return nil, false
	}
	errs := d.errs // pairs has recorded its errors before
	defer func() { d.errs = errs }()
	return d.findBelow(nil, present(d.root()), key)
}

// findBelow is find in the value n of the node at.
func (d *decoder) findBelow(at, n *yaml.Node, key string) (nearest *yaml.Node, whole bool) {
	if n == nil || key == "" {
		return cmp.Or(n, at), n != nil
	}
	if n.Kind == yaml.SequenceNode && key[0] == '[' {
		number, rest, _ := strings.Cut(key[1:], "]")
		i, err := strconv.Atoi(number)
		if err != nil || i >= len(n.Content) || present(n.Content[i]) == nil {
			return at, false
		}
		entry := present(n.Content[i])
		return d.findBelow(entry, entry, strings.TrimPrefix(rest, "."))
	}
	if n.Kind != yaml.MappingNode {
		return at, false
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
			return p.key, true
		}
		if at, whole = d.findBelow(p.key, present(p.value), strings.TrimPrefix(key[end:], ".")); whole {
			break
		}
	}
	return at, whole
}

// entries returns the entries of a mapping by their names as in join.
func (d *decoder) entries(n *yaml.Node) map[string]pair {
	if entries, known := d.mappings[n]; known {
		return entries
	}
	pairs, _ := d.pairs(n, nil)
	entries := make(map[string]pair, len(pairs))
	for _, p := range pairs {
		entries[join("", p.name)] = p
	}
	if d.mappings == nil {
		d.mappings = make(map[*yaml.Node]map[string]pair)
	}
	d.mappings[n] = entries
	return entries
}
