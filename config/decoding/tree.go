package decoding

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// A Tree edits a mapping before it is decoded.
type Tree struct {
	d    *Decoder
	root *yaml.Node
}

// Edit returns root, for edits.
func (d *Decoder) Edit(root *yaml.Node) Tree { return Tree{d, root} }

func (t Tree) node(origin string, value any) *yaml.Node {
	n := new(yaml.Node)
	if err := n.Encode(value); err != nil {
		panic(fmt.Sprintf("BUG: decoding: %v", err))
	}
	t.isFrom(origin, n)
	return n
}

// isFrom notes the origin of n and of all below it.
func (t Tree) isFrom(origin string, n *yaml.Node) {
	t.d.origins[n] = origin
	for _, child := range n.Content {
		t.isFrom(origin, child)
	}
}

// Get returns the value of a top-level key, or nil.
func (t Tree) Get(name string) *yaml.Node {
	if i := Index(t.root, name); i >= 0 {
		return present(t.root.Content[i+1])
	}
	return nil
}

// Set sets the value from origin at the path of keys. It does nothing if the path contains a value
// that is not a mapping, which the decoder refuses.
func (t Tree) Set(origin string, value any, path ...string) {
	n := t.root
	for _, name := range path[:len(path)-1] {
		i := Index(n, name)
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
func (t Tree) put(n *yaml.Node, name string, value *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return
	}
	key := t.node(t.d.origins[value], name)
	if i := Index(n, name); i >= 0 {
		n.Content[i], n.Content[i+1] = key, value
		return
	}
	n.Content = append(n.Content, key, value)
}

// Unset removes an entry of a top-level mapping.
func (t Tree) Unset(section, name string) {
	i := Index(t.root, section)
	if i < 0 {
		return
	}
	if n := t.own(t.root, i+1); n != nil {
		if j := Index(n, name); j >= 0 {
			n.Content = append(n.Content[:j:j], n.Content[j+2:]...)
		}
	}
}

// own returns the mapping at n.Content[i] for a change. It copies a mapping that an alias
// shares, and creates one if the value is absent. It returns nil for other values.
func (t Tree) own(n *yaml.Node, i int) *yaml.Node {
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

// Index returns the index of the key name in the mapping n, or -1.
func Index(n *yaml.Node, name string) int {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return i
			}
		}
	}
	return -1
}

// TextNode returns a text.
func TextNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// MappingNode returns a mapping with one entry.
func MappingNode(name string, value *yaml.Node) *yaml.Node {
	key := TextNode(name)
	key.Line = 1
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Content: []*yaml.Node{key, value}}
}

// ListNode returns a list.
func ListNode(items []*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: 1, Content: items}
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
