package imported

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config"
	"sluice/config/decoding"
	"sluice/tags"
)

// maxRounds limits how often the result is checked: each round mends every part with an error once.
const maxRounds = 100

// finish returns the text of the configuration without what sluice refuses, of which it notes each.
func (d *draft) finish() ([]byte, error) {
	var refused error
	for range maxRounds {
		http := func(p *part) bool { return p.keys["protocol"] != "tcp" }
		if len(d.parts["listeners"]) == 0 && (len(d.parts["routes"]) > 0 || d.sections["catalog"] != nil) {
			d.note(d.top, "no listener carries over: left out are all routes, since the default listener may be another one")
			delete(d.parts, "routes")
			delete(d.sections, "catalog")
		}
		if d.sections["catalog"] == nil && len(d.parts["routes"]) == 0 && (len(d.parts["listeners"]) == 0 || slices.ContainsFunc(d.parts["listeners"], http)) {
			d.add("routes", "", d.top, shut(tags.Keys{"path": "/"}))
		}
		if d.sections["catalog"] == nil && len(d.parts["services"]) == 0 {
			return nil, errors.New("nothing that could be served carries over")
		}
		text, err := d.encode()
		if err != nil {
			return nil, err
		}
		in := config.Input{File: "sluice.yaml", OpenFiles: true}
		_, refused = in.Build([]config.Source{in.FileSource(string(text))})
		mistakes, _ := errors.AsType[config.Errors](refused)
		mended, left := d.mend(text, mistakes)
		switch {
		case refused == nil || mended == 0 && left == 0:
			return text, nil
		case mended == 0:
			return nil, fmt.Errorf("sluice refuses the result: %w", refused)
		}
	}
	return nil, fmt.Errorf("sluice refuses the result: %w", refused)
}

// mend leaves out, or shuts, what mistakes are about, each part once. It returns how many it was,
// and how many mistakes have no place. Files that are not there may be on another machine, and
// stay.
func (d *draft) mend(text []byte, mistakes config.Errors) (mended, left int) {
	var root yaml.Node
	if yaml.Unmarshal(text, &root) != nil || len(root.Content) == 0 {
		return 0, len(mistakes)
	}
	done := make(map[*part]bool)
	for _, m := range mistakes {
		_, line, column := m.Place()
		path, value := pathTo(root.Content[0], line, column, strings.HasSuffix(m.Key, "]"))
		if len(path) == 0 {
			left++
			continue
		}
		p, at := d.partOf(path), d.placeOf(path)
		if p != nil {
			at = p.at
		}
		if isFile(path) && !readable(value) {
			d.note(at, "%s: %s is not on this machine: sluice check needs it", strings.Join(path, "."), value)
		} else if !done[p] {
			done[p] = true
			mended++
			became := d.without(p, path)
			d.note(at, "%s: %s; %s", strings.Join(path, "."), strings.TrimPrefix(m.Value+": "+m.Want, ": "), became)
		}
	}
	for section, parts := range d.parts {
		d.parts[section] = slices.DeleteFunc(parts, func(p *part) bool { return p.gone })
	}
	return mended, left
}

// isFile reports whether a path leads to the path of a file that sluice check reads.
func isFile(path []string) bool {
	last := path[len(path)-1]
	return last == "users_file" || slices.Contains(path, "tls") && slices.Contains([]string{"cert", "key", "ca", "client_ca", "client_crl"}, last)
}

func readable(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// pathTo returns the path of the node at a place of the text, with indices of lists, and its value
// if it is a single one. The place of an entry of a list is also that of its first key: item says
// which of them is meant.
func pathTo(n *yaml.Node, line, column int, item bool) (path []string, value string) {
	for i, child := range n.Content {
		name, of := strconv.Itoa(i), child
		if n.Kind == yaml.MappingNode {
			if i%2 == 1 {
				continue
			}
			name, of = child.Value, n.Content[i+1]
		}
		here := func(n *yaml.Node) bool { return n.Line == line && n.Column == column }
		if here(child) && (n.Kind == yaml.MappingNode || item) || here(of) && len(of.Content) == 0 {
			return []string{name}, of.Value
		}
		if below, value := pathTo(of, line, column, item); below != nil {
			return append([]string{name}, below...), value
		}
	}
	return nil, ""
}

// partOf returns the part that a path leads into; nil: a section.
func (d *draft) partOf(path []string) *part {
	for i, p := range d.parts[path[0]] {
		if len(path) > 1 && (p.name == path[1] || p.name == "" && strconv.Itoa(i) == path[1]) {
			return p
		}
	}
	return nil
}

// placeOf returns the line that has set the key of a section, or one near it.
func (d *draft) placeOf(path []string) (nearest Place) {
	most := -1
	for _, key := range slices.Sorted(maps.Keys(d.places)) {
		same := 0
		for i, name := range strings.Split(key, ".") {
			if same == i && i < len(path) && path[i] == name {
				same++
			}
		}
		if same > most {
			most, nearest = same, d.places[key]
		}
	}
	return nearest
}

// matching are the keys that say which requests a route gets, and essential others without which
// it would do something else.
var (
	matching  = []string{"host", "host_regexp", "path", "match", "methods", "when"}
	essential = []string{"", "listeners", "priority", "service", "services", "body_limit", "rate_limit", "direct_response", "redirect"}
)

// without leaves out what a path of a part leads to, or all of the part if less would open what was
// shut. It returns what it has done, for a note.
func (d *draft) without(p *part, path []string) string {
	if p == nil && path[0] == "catalog" { // what it selects by may exclude services
		delete(d.sections, "catalog")
		return "services in Consul's catalog get no routes by their tags"
	}
	if p == nil {
		remove(d.sections, path)
		return "left out"
	}
	first := strings.Join(path[2:min(3, len(path))], "")
	denied, _ := p.keys["deny"].([]string)
	denies := slices.Equal(denied, everybody)
	switch {
	case path[0] == "listeners":
		p.gone = true
		d.forget(p.keys["name"])
		return "the listener is left out"
	case path[0] == "routes" && slices.Contains(matching, first):
		if p.keys["direct_response"] == nil && !p.keys.Restricts() {
			break // its requests get another route
		}
		p.keys = shut(p.keys)
		if delete(p.keys, first); first == "path" {
			delete(p.keys, "match")
		}
		return "the route denies every request, whatever its " + first
	case path[0] == "routes" && !denies && (slices.Contains(essential, first) || (tags.Keys{first: true}).Restricts()):
		p.keys = shut(p.keys)
		return "the route denies every request"
	case path[0] == "actions" && !denies:
		p.keys["deny"] = everybody
		maps.DeleteFunc(p.keys, func(key string, _ any) bool { return key != "deny" && key != "offered_to" })
		return "the actions deny every request"
	case path[0] == "services" && !slices.Contains([]string{"", "upstream", "consul"}, first), path[0] == "routes" && !denies:
		remove(p.keys, path[2:])
		return "left out"
	}
	p.gone = true
	return "all of it is left out"
}

// forget removes a listener from all routes, also those of tags. A route of no other one is left
// out.
func (d *draft) forget(listener any) {
	if names, ok := d.sections.Get("catalog", "listeners").([]string); ok {
		if names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == listener }); len(names) == 0 {
			delete(d.sections, "catalog")
		} else {
			d.sections.Set(names, "catalog", "listeners")
		}
	}
	for _, r := range d.parts["routes"] {
		names, _ := r.keys["listeners"].([]string)
		kept := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == listener })
		if r.gone = r.gone || len(names) > 0 && len(kept) == 0; len(kept) > 0 {
			r.keys["listeners"] = kept
		}
	}
}

// remove removes what a path leads to.
func remove(keys tags.Keys, path []string) {
	if len(path) > 1 {
		i, _ := strconv.Atoi(path[1])
		switch below := keys[path[0]].(type) {
		case tags.Keys:
			remove(below, path[1:])
			return
		case []string:
			if len(below) > 1 {
				keys[path[0]] = slices.Delete(slices.Clone(below), i, i+1)
				return
			}
		}
	}
	delete(keys, path[0])
}

// encode returns the text of the configuration. Each part has a comment with the line it is from.
func (d *draft) encode() ([]byte, error) {
	root := node(d.sections)
	for section, parts := range d.parts {
		if len(parts) == 0 {
			continue
		}
		all := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if parts[0].name != "" {
			all.Kind, all.Tag = yaml.MappingNode, "!!map"
		}
		for _, p := range parts {
			nodes := []*yaml.Node{node(p.keys)}
			if p.name != "" {
				nodes = slices.Insert(nodes, 0, decoding.TextNode(p.name))
			}
			nodes[0].HeadComment = p.at.String()
			all.Content = append(all.Content, nodes...)
		}
		root.Content = append(root.Content, decoding.TextNode(section), all)
	}
	sortKeys(root)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), e.Close()
}

// order is the order of keys for readers; others follow by name.
var order = []string{
	"name", "address", "host", "host_regexp", "path", "match", "methods", "when", "listeners", "priority", "service",
	"client", "consul", "catalog", "defaults", "services", "actions", "use", "routes",
}

func sortKeys(mapping *yaml.Node) {
	pairs := slices.Collect(slices.Chunk(mapping.Content, 2))
	slices.SortFunc(pairs, func(a, b []*yaml.Node) int {
		x, y := slices.Index(order, a[0].Value), slices.Index(order, b[0].Value)
		if x >= 0 && y >= 0 || x == y {
			return cmp.Or(x-y, strings.Compare(a[0].Value, b[0].Value))
		}
		return y - x // what is in order comes first
	})
	mapping.Content = slices.Concat(pairs...)
}

// number is a whole number that YAML reads as it is written.
var number = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,8})$`)

// variable begins a variable of the environment, which a text of another program is not.
var variable = regexp.MustCompile(`\$\{([A-Za-z_])`)

// node returns the value of keys as YAML.
func node(value any) *yaml.Node {
	switch v := value.(type) {
	case tags.Keys:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for name, below := range v {
			n.Content = append(n.Content, decoding.TextNode(name), node(below))
		}
		sortKeys(n)
		return n
	case []tags.Keys:
		n := decoding.ListNode(nil)
		for _, keys := range v {
			n.Content = append(n.Content, node(keys))
		}
		return n
	case []string:
		n := decoding.ListNode(nil)
		n.Style = yaml.FlowStyle
		for _, text := range v {
			n.Content = append(n.Content, node(text))
		}
		return n
	case nil: // in place of the value in defaults
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
	text, _ := value.(string)
	n := decoding.TextNode(variable.ReplaceAllString(text, "$$$${$1"))
	switch {
	case number.MatchString(text):
		n.Tag = "!!int"
	case text == "true" || text == "false":
		n.Tag = "!!bool"
	}
	return n
}
