package decoding

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// pair is an entry of a mapping.
type pair struct {
	name       string
	key, value *yaml.Node
}

// pairs returns the entries of the mapping n and of the mappings that it merges ("<<"),
// each name once, or false if n is not a mapping.
func (d *Decoder) pairs(n *yaml.Node, key *keyPath) ([]pair, bool) {
	if n.Kind != yaml.MappingNode {
		d.Fail(d.PlaceOf(n), key.String(), "", "want a mapping of keys to values, not a "+kindOf(n))
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
			d.Fail(d.PlaceOf(k), key.String(), "", "want a name before the colon")
		case name.ShortTag() == "!!merge":
			merged = append(merged, d.merge(value, key)...)
		case given[name.Value] != nil:
			d.Fail(d.PlaceOf(k), Join(key.String(), name.Value), "", fmt.Sprintf("given twice, first in line %d", given[name.Value].Line))
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
func (d *Decoder) merge(n *yaml.Node, key *keyPath) []pair {
	n = present(n)
	sources := []*yaml.Node{n}
	if n != nil && n.Kind == yaml.SequenceNode {
		sources = n.Content
	}
	var all []pair
	for _, source := range sources {
		source = present(source)
		if source == nil || source.Kind != yaml.MappingNode {
			d.Fail(d.PlaceOf(n), Join(key.String(), "<<"), "", "want an alias of a mapping, such as *defaults")
			continue
		}
		for i := 0; i+1 < len(source.Content); i += 2 {
			k := source.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				d.Fail(d.PlaceOf(k), Join(key.String(), "<<"), "", "a merged mapping may contain only plain keys")
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
