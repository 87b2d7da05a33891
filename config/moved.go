package config

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// moved maps the other names of two keys to their names under discovery, where they apply to every
// registry.
var moved = map[string]string{
	"consul.debounce": "discovery.debounce",
	"consul.snapshot": "discovery.snapshot",
}

// move moves the values of moved keys to their present names.
func (t tree) move() {
	d, root := t.d, t.root
	consul := t.get("consul")
	if consul == nil || consul.Kind != yaml.MappingNode {
		return
	}
	pairs, _ := d.pairs(consul, &keyPath{name: "consul"})
	for _, p := range pairs {
		to := moved["consul."+p.name]
		if to == "" || present(p.value) == nil {
			continue
		}
		i := index(root, "discovery")
		if i < 0 {
			i = len(root.Content)
			root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "discovery", Line: p.key.Line},
				&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: p.key.Line})
		}
		discovery := t.own(root, i+1)
		if discovery == nil {
			continue // the decoder refuses it
		}
		if given, _ := d.pairs(discovery, &keyPath{name: "discovery"}); slices.ContainsFunc(given, func(q pair) bool { return q.name == p.name }) {
			d.fail(d.placeOf(p.key), "consul."+p.name, "", "given twice: use only "+to)
			continue
		}
		discovery.Content = append(discovery.Content, p.key, p.value)
	}
}
