package config

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// gone are removed keys, and what replaces them. A file with such a key is refused,
// because sluice would not do what the file says.
var gone = []struct {
	key *regexp.Regexp
	why string
}{
	{regexp.MustCompile(`^services\..*\.consul\.near$`),
		"removed: the order of instances in Consul has no effect; to prefer instances use balance.tiers, such as [{nodes: [local]}]"},
	{regexp.MustCompile(`^services\..*\.balance\.tiers\[\d+\]\.datacenters$`),
		"removed: all peers of a service are in one data centre at a time; consul.datacenters sets the order"},
}

// goneKey returns what replaces a removed key, or "" for any other key.
func goneKey(key string) string {
	for _, g := range gone {
		if g.key.MatchString(key) {
			return g.why
		}
	}
	return ""
}

// retired are keys, by their last two words, that are accepted but have no effect, and
// what replaces them.
var retired = map[string]string{
	"consul.empty_hold":     "has no effect: use consul.probation",
	"consul.keep_answering": "has no effect: use consul.probation",
}

// moved maps earlier names of keys, which still work, to the present ones.
var moved = map[string]string{
	"consul.allow_local":      "discovery.allow_local",
	"consul.debounce":         "discovery.debounce",
	"consul.snapshot":         "discovery.snapshot",
	"consul.snapshot_max_age": "discovery.snapshot_max_age",
}

// oldKey returns the warning for a retired or moved key, or "" for any other key.
func oldKey(key string) string {
	if to := moved[key]; to != "" {
		return "deprecated: use " + to
	}
	return retired[key[strings.LastIndex(key[:max(strings.LastIndex(key, "."), 0)], ".")+1:]]
}

// move moves the values of moved keys to their present names.
func (d *decoder) move(root *yaml.Node) {
	t := tree{d, root}
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
