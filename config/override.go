package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// override writes what the environment and the flags set into the tree of
// the file, so that it is decoded and checked like the file. A flag is
// written last: it wins over the environment, which wins over the file.
func (in Input) override(d *decoder, root *yaml.Node) {
	t := tree{d, root}
	if in.Getenv != nil {
		in.environment(t)
	}
	if in.Consul != "" {
		t.set(t.list("--consul", in.Consul), "consul", "addresses")
	}
	if in.Admin != "" {
		t.set(t.text("--admin", in.Admin), "admin", "address")
	}
	if in.Service != "" {
		text := func(s string) *yaml.Node { return t.text("--service", s) }
		source := t.mapping("--service", text("service"), text(in.Service))
		t.set(t.mapping("--service", text("consul"), source), "services", in.Service)
		t.set(t.sequence("--service", t.mapping("--service", text("service"), text(in.Service))), "routes")
	}
	if in.Listen == "" {
		return
	}
	if listeners := t.get("listeners"); listeners != nil {
		d.fail(place{origin: "--listen"}, "", in.Listen,
			"not allowed here: the listeners are set at "+d.placeOf(listeners).origin)
		return
	}
	text := func(s string) *yaml.Node { return t.text("--listen", s) }
	listener := t.mapping("--listen", text("name"), text(defaultListener), text("address"), text(in.Listen))
	t.set(t.sequence("--listen", listener), "listeners")
}

// environmentKeys are the variables that every tool of Consul knows, and the
// keys that they set. CONSUL_HTTP_AUTH alone has no key: the Consul client
// reads it itself.
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
			t.set(t.text(key.name, v), key.path...)
		}
	}
	if v := in.Getenv(address); v != "" {
		t.set(t.list(address, v), "consul", "addresses")
	}
	if on, err := strconv.ParseBool(in.Getenv(verify)); err == nil {
		t.set(t.text(verify, strconv.FormatBool(!on)), "consul", "tls", "skip_verify")
	}
	// Either one replaces whatever token the file names. Of the two variables
	// the file's name wins, as with Consul's own tools.
	if v := in.Getenv(tokenFile); v != "" {
		t.unset("consul", "token")
		t.set(t.text(tokenFile, v), "consul", "token_file")
	} else if v := in.Getenv(token); v != "" {
		t.unset("consul", "token_file")
		t.set(t.text(token, v), "consul", "token")
	}
}

// tls reports whether an address of Consul without a scheme means HTTPS.
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

// text returns a node for a value that came from origin.
func (t tree) text(origin, value string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	t.d.origins[n] = origin
	return n
}

func (t tree) sequence(origin string, items ...*yaml.Node) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: items}
	t.d.origins[n] = origin
	return n
}

func (t tree) list(origin, value string) *yaml.Node {
	return t.sequence(origin, t.text(origin, value))
}

// mapping returns a mapping node of names and values in turn.
func (t tree) mapping(origin string, content ...*yaml.Node) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: content}
	t.d.origins[n] = origin
	return n
}

// get returns the value of a top-level key, or nil.
func (t tree) get(name string) *yaml.Node {
	if i := index(t.root, name); i >= 0 {
		return present(t.root.Content[i+1])
	}
	return nil
}

// set puts value at the path of keys. Where something that is no mapping
// stands in the way it does nothing: the decoder refuses that anyway.
func (t tree) set(value *yaml.Node, path ...string) {
	n := t.root
	for _, name := range path[:len(path)-1] {
		i := index(n, name)
		if i < 0 {
			child := t.mapping(t.d.origins[value])
			t.put(n, name, child)
			n = child
			continue
		}
		if n = t.own(n, i+1); n == nil {
			return
		}
	}
	t.put(n, path[len(path)-1], value)
}

// put sets one entry of the mapping n.
func (t tree) put(n *yaml.Node, name string, value *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return
	}
	key := t.text(t.d.origins[value], name)
	if i := index(n, name); i >= 0 {
		n.Content[i], n.Content[i+1] = key, value
		return
	}
	n.Content = append(n.Content, key, value)
}

// unset takes an entry away.
func (t tree) unset(section, name string) {
	i := index(t.root, section)
	if i < 0 {
		return
	}
	n := t.own(t.root, i+1)
	if n == nil {
		return
	}
	if j := index(n, name); j >= 0 {
		n.Content = append(n.Content[:j:j], n.Content[j+2:]...)
	}
}

// own returns the mapping at n.Content[i] for editing: what other places
// share through an alias is copied, nothing becomes an empty mapping. It
// returns nil for anything else.
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

// index returns where the key name stands in the mapping n, or -1.
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
