package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
)

// Change is a difference between two configurations at a key. A value that is not there is
// empty. Secrets are masked.
type Change struct {
	Key    string `json:"key"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// String returns "KEY: BEFORE -> AFTER", "KEY: added AFTER" or "KEY: removed BEFORE".
func (c Change) String() string {
	switch {
	case c.Before == "":
		return c.Key + ": added " + c.After
	case c.After == "":
		return c.Key + ": removed " + c.Before
	case c.Before == c.After:
		return c.Key + ": changed (the value is secret)"
	}
	return c.Key + ": " + c.Before + " -> " + c.After
}

// Diff returns the differences between two configurations, sorted by key. An entry of a list
// of mappings is found by its name or, for a route, by its requests; not by its index.
func Diff(a, b *Config) []Change {
	a, b = withoutEqual(a, b)
	return diff(a, b)
}

// manyChanges is the number of services or routes from which on a Summary only counts them.
const manyChanges = 500

// Summary is as Diff, but only counts the services, or the routes, that differ if they are
// many.
func Summary(a, b *Config) []Change {
	a, b = withoutEqual(a, b)
	var counted []Change
	count := func(key string, before, after int) bool {
		if max(before, after) <= manyChanges {
			return false
		}
		counted = append(counted, Change{key, fmt.Sprintf("%d others", before), fmt.Sprintf("%d others", after)})
		return true
	}
	if count("services", len(a.Services), len(b.Services)) {
		a.Services, b.Services = nil, nil
	}
	if count("routes", len(a.Routes), len(b.Routes)) {
		a.Routes, b.Routes = nil, nil
	}
	return sortedChanges(append(diff(a, b), counted...))
}

func sortedChanges(changes []Change) []Change {
	slices.SortStableFunc(changes, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return changes
}

func diff(a, b *Config) []Change {
	return sortedChanges(compare("", schema.Encode(*a, false), schema.Encode(*b, false),
		schema.Encode(*a, true), schema.Encode(*b, true)))
}

// withoutEqual returns copies of a and b without the services and routes that are equal: there
// may be thousands.
func withoutEqual(a, b *Config) (*Config, *Config) {
	x, y := *a, *b
	x.Services, y.Services = maps.Clone(a.Services), maps.Clone(b.Services)
	for name, s := range a.Services {
		if other, ok := b.Services[name]; ok && reflect.DeepEqual(s, other) {
			delete(x.Services, name)
			delete(y.Services, name)
		}
	}
	equalA, equalB := equalIn(a.Routes, b.Routes)
	x.Routes, y.Routes = without(a.Routes, equalA), without(b.Routes, equalB)
	return &x, &y
}

// equalIn says which routes of a, by index, are also in b, and which of b are in a. Those without
// a valid match are in neither.
func equalIn(a, b []Route) (inB, inA []bool) {
	places := make(map[string]int, len(b)) // by the requests of the routes
	for i := range b {
		if checked := b[i].checked; checked != nil {
			places[checked.Key] = i
		}
	}
	inB, inA = make([]bool, len(a)), make([]bool, len(b))
	for i := range a {
		if checked := a[i].checked; checked != nil {
			if at, there := places[checked.Key]; there && equalRoutes(&a[i], &b[at]) {
				inB[i], inA[at] = true, true
			}
		}
	}
	return inB, inA
}

func without(routes []Route, marked []bool) (others []Route) {
	count := 0
	for i := range marked {
		if !marked[i] {
			count++
		}
	}
	others = slices.Grow(others, count) // a route is large
	for i := range routes {
		if !marked[i] {
			others = append(others, routes[i])
		}
	}
	return others
}

// compare compares trees. Each tree comes twice: as it is, and with secrets masked, with the
// same entries.
func compare(key string, a, b, maskedA, maskedB *yaml.Node) (changes []Change) {
	if a == nil || b == nil || a.Kind != b.Kind || a.Kind == yaml.ScalarNode || a.Kind == yaml.SequenceNode && !(keyed(a) && keyed(b)) {
		if sameTree(a, b) {
			return nil
		}
		return []Change{{key, flow(maskedA), flow(maskedB)}}
	}
	before, after := entriesOf(a, maskedA), entriesOf(b, maskedB)
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		entryKey := decoding.Join(key, name)
		if a.Kind == yaml.SequenceNode {
			entryKey = key + "[" + name + "]"
		}
		x, y := before[name], after[name]
		changes = append(changes, compare(entryKey, x.node, y.node, x.masked, y.masked)...)
	}
	return changes
}

// entry is a value in a tree, as it is and masked.
type entry struct{ node, masked *yaml.Node }

// entriesOf returns the values of a mapping, or of a list of mappings, by name.
func entriesOf(n, masked *yaml.Node) map[string]entry {
	all := make(map[string]entry)
	if n.Kind == yaml.SequenceNode {
		for i, item := range n.Content {
			identity := identityOf(masked.Content[i])
			name := identity
			for second := 2; all[name].node != nil; second++ {
				name = fmt.Sprintf("%s #%d", identity, second)
			}
			all[name] = entry{item, masked.Content[i]}
		}
		return all
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		all[n.Content[i].Value] = entry{n.Content[i+1], masked.Content[i+1]}
	}
	return all
}

// keyed reports whether all entries of a list are mappings.
func keyed(n *yaml.Node) bool {
	return !slices.ContainsFunc(n.Content, func(item *yaml.Node) bool { return item.Kind != yaml.MappingNode })
}

// identityOf returns what tells an entry of a list from others: the name, or what it matches.
func identityOf(n *yaml.Node) string {
	var parts []string
	for _, key := range []string{"name", "listeners", "host", "host_regexp", "path", "match", "methods", "when", "file", "consul_kv"} {
		if i := decoding.Index(n, key); i >= 0 {
			if value := n.Content[i+1]; key == "match" && value.Value == "prefix" {
				continue // the default
			} else if value.Kind == yaml.ScalarNode {
				parts = append(parts, value.Value)
			} else {
				parts = append(parts, flow(value))
			}
			if key == "name" {
				break
			}
		}
	}
	return strings.Join(parts, " ")
}

// sameTree reports whether two trees have the same values.
func sameTree(a, b *yaml.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.Value == b.Value && slices.EqualFunc(a.Content, b.Content, sameTree)
}

// flow returns a tree on one line.
func flow(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	if n.Kind == yaml.ScalarNode {
		if n.Value == "" {
			return `""`
		}
		return n.Value
	}
	var parts []string
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			parts = append(parts, flow(item))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		parts = append(parts, n.Content[i].Value+": "+flow(n.Content[i+1]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// restarts are the keys, with all below them, whose change takes effect at the next
// start, and why.
var restarts = []struct{ key, why string }{
	{"admin.address", "it identifies a replica, in Consul and for other replicas"},
	{"admin.tls", "other replicas and Consul ask by HTTP or HTTPS as it was registered; a change of the files takes effect without a restart"},
	{"admin.orders", "the file is read at the start"},
	{"admin.shares", "the file is read at the start"},
	{"config.history", "the file is read at the start"},
	{"discovery.snapshot", "the file is read at the start"},
	{"discovery.snapshot_max_age", "the file is read at the start"},
	{"consul.addresses", consulClient},
	{"consul.token", consulClient},
	{"consul.token_file", consulClient + "; a change of the file takes effect without a restart"},
	{"consul.tls", consulClient + "; a change of the files takes effect without a restart"},
	{"consul.namespace", consulClient},
	{"consul.partition", consulClient},
	{"consul.max_watches", consulClient},
	{"consul.certificates_dir", "the files are read at the start"},
	{"consul.shares", "the prefix is read at the start"},
	{"consul.orders", "the prefix is read at the start"},
	{"health.max_checks", "the checks of all services share workers"},
}

const consulClient = "one client of Consul, with its connections, serves all watches"

// RestartReason returns why a change of key takes effect at the next start, or "" if it
// takes effect without a restart.
func RestartReason(key string) string {
	for _, r := range restarts {
		if rest, below := strings.CutPrefix(key, r.key); below && (rest == "" || rest[0] == '.') {
			return r.why
		}
	}
	return ""
}

// NeedRestart returns the keys that differ and whose change takes effect at the next
// start, in the order of the file.
func NeedRestart(running, loaded *Config) []string {
	a, b := *running, *loaded
	a.Consul.Orders, b.Consul.Orders = a.Consul.OrdersPrefix(), b.Consul.OrdersPrefix() // another default is another value
	return differences(reflect.ValueOf(a), reflect.ValueOf(b), "")
}

func differences(running, loaded reflect.Value, key string) []string {
	if decoding.Kind(running.Type()) != reflect.Struct {
		if RestartReason(key) != "" && !reflect.DeepEqual(running.Interface(), loaded.Interface()) {
			return []string{key}
		}
		return nil
	}
	var keys []string
	for i := range running.NumField() {
		keys = append(keys, differences(running.Field(i), loaded.Field(i), decoding.Join(key, running.Type().Field(i).Tag.Get("key")))...)
	}
	return keys
}
