package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// override writes the values of the environment and of the flags into the tree of the
// file, so that they are decoded and checked like the file. Flags have precedence over
// the environment, and the environment over the file.
func (in Input) override(d *decoder, root *yaml.Node) {
	type keys = map[string]any
	t := tree{d, root}
	if in.Getenv != nil {
		in.environment(t)
	}
	if in.Consul != "" {
		t.set("--consul", []string{in.Consul}, "consul", "addresses")
	}
	if in.Admin != "" {
		t.set("--admin", in.Admin, "admin", "address")
	}
	if in.Service != "" {
		t.set("--service", keys{"consul": keys{"service": in.Service}}, "services", in.Service)
		t.set("--service", []keys{{"service": in.Service}}, "routes")
	}
	if in.Listen == "" {
		return
	}
	if listeners := t.get("listeners"); listeners != nil {
		d.fail(place{origin: "--listen"}, "", in.Listen,
			"not allowed: the file sets listeners at "+d.placeOf(listeners).origin)
		return
	}
	t.set("--listen", []keys{{"name": defaultListener, "address": in.Listen}}, "listeners")
}

// environmentKeys are the variables of Consul's own tools, and the keys that they set.
// CONSUL_HTTP_AUTH has no key: the client of Consul reads it.
var environmentKeys = []struct {
	name string
	path []string
}{
	{"CONSUL_CACERT", []string{"consul", "tls", "ca"}},
	{"CONSUL_CAPATH", []string{"consul", "tls", "ca_path"}},
	{"CONSUL_CLIENT_CERT", []string{"consul", "tls", "cert"}},
	{"CONSUL_CLIENT_KEY", []string{"consul", "tls", "key"}},
	{"CONSUL_TLS_SERVER_NAME", []string{"consul", "tls", "server_name"}},
	{"CONSUL_NAMESPACE", []string{"consul", "namespace"}},
	{"CONSUL_PARTITION", []string{"consul", "partition"}},
}

func (in Input) environment(t tree) {
	const (
		address, verify  = "CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL_VERIFY"
		token, tokenFile = "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE"
	)
	for _, key := range environmentKeys {
		if v := in.Getenv(key.name); v != "" {
			t.set(key.name, v, key.path...)
		}
	}
	if v := in.Getenv(address); v != "" {
		t.set(address, []string{v}, "consul", "addresses")
	}
	if on, err := strconv.ParseBool(in.Getenv(verify)); err == nil {
		t.set(verify, !on, "consul", "tls", "skip_verify")
	}
	// Each of them replaces both keys of the file. CONSUL_HTTP_TOKEN_FILE has
	// precedence, as in Consul's own tools.
	if v := in.Getenv(tokenFile); v != "" {
		t.unset("consul", "token")
		t.set(tokenFile, v, "consul", "token_file")
	} else if v := in.Getenv(token); v != "" {
		t.unset("consul", "token_file")
		t.set(token, v, "consul", "token")
	}
}

// tls reports whether the scheme of an address of Consul without one is HTTPS.
func (in Input) tls() bool {
	if in.Getenv == nil {
		return false
	}
	on, _ := strconv.ParseBool(strings.TrimSpace(in.Getenv("CONSUL_HTTP_SSL")))
	return on
}

// tree edits the mapping root before it is decoded.
type tree struct {
	d    *decoder
	root *yaml.Node
}

// node returns a node for a value from origin.
func (t tree) node(origin string, value any) *yaml.Node {
	n := new(yaml.Node)
	if err := n.Encode(value); err != nil {
		panic(fmt.Sprintf("BUG: config: %v", err))
	}
	t.isFrom(origin, n)
	return n
}

// isFrom notes the origin of n and of all below it.
func (t tree) isFrom(origin string, n *yaml.Node) {
	t.d.origins[n] = origin
	for _, child := range n.Content {
		t.isFrom(origin, child)
	}
}

// get returns the value of a top-level key, or nil.
func (t tree) get(name string) *yaml.Node {
	if i := index(t.root, name); i >= 0 {
		return present(t.root.Content[i+1])
	}
	return nil
}

// set sets the value from origin at the path of keys. It does nothing if the path contains a value
// that is not a mapping, which the decoder refuses.
func (t tree) set(origin string, value any, path ...string) {
	n := t.root
	for _, name := range path[:len(path)-1] {
		i := index(n, name)
		if i < 0 {
			child := t.node(origin, struct{}{})
			t.put(n, name, child)
			n = child
			continue
		}
		if n = t.own(n, i+1); n == nil {
			return
		}
	}
	t.put(n, path[len(path)-1], t.node(origin, value))
}

// put sets one entry of the mapping n.
func (t tree) put(n *yaml.Node, name string, value *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return
	}
	key := t.node(t.d.origins[value], name)
	if i := index(n, name); i >= 0 {
		n.Content[i], n.Content[i+1] = key, value
		return
	}
	n.Content = append(n.Content, key, value)
}

// unset removes an entry of a top-level mapping.
func (t tree) unset(section, name string) {
	i := index(t.root, section)
	if i < 0 {
		return
	}
	if n := t.own(t.root, i+1); n != nil {
		if j := index(n, name); j >= 0 {
			n.Content = append(n.Content[:j:j], n.Content[j+2:]...)
		}
	}
}

// own returns the mapping at n.Content[i] for a change. It copies a mapping that an alias
// shares, and creates one if the value is absent. It returns nil for other values.
func (t tree) own(n *yaml.Node, i int) *yaml.Node {
	child := present(n.Content[i])
	if child == nil {
		child = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Content[i].Line}
	}
	if child.Kind != yaml.MappingNode {
		return nil
	}
	if child.Anchor != "" || n.Content[i].Kind == yaml.AliasNode {
		copied := *child
		copied.Content = append([]*yaml.Node(nil), child.Content...)
		child = &copied
	}
	n.Content[i] = child
	return child
}

// index returns the index of the key name in the mapping n, or -1.
func index(n *yaml.Node, name string) int {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return i
			}
		}
	}
	return -1
}
