package imported

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
)

// leavesOf returns the values of a file in TOML, by its name, or in YAML.
func leavesOf(f File) ([]leaf, error) {
	if strings.HasSuffix(strings.ToLower(f.Name), ".toml") {
		return tomlLeaves(f)
	}
	d := new(decoding.Schema).Decoder(f.Name)
	root := d.Parse([]byte(f.Text))
	if len(d.Errs) > 0 {
		return nil, d.Errs
	}
	w := &walker{file: f.Name}
	if w.walk(root, nil, root.Line); len(w.leaves) > maxValues {
		return nil, errTooLarge
	}
	return w.leaves, nil
}

// maxDepth limits how deep values are, far above what any setting needs.
const maxDepth = 30

// walker collects the values of a tree.
type walker struct {
	file   string
	leaves []leaf
}

func (w *walker) add(path []string, line int, values ...string) {
	w.leaves = append(w.leaves, leaf{slices.Clone(path), values, Place{w.file, line}})
}

// walk adds the values of n. line is that of its key.
func (w *walker) walk(n *yaml.Node, path []string, line int) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case len(w.leaves) > maxValues || len(path) > maxDepth:
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		w.add(path, line, "")
	case n.Kind == yaml.ScalarNode:
		w.add(path, line, n.Value)
	case n.Kind == yaml.SequenceNode:
		var values []string
		for i, item := range n.Content {
			if item.Kind == yaml.AliasNode {
				item = item.Alias
			}
			if item.Kind == yaml.ScalarNode {
				values = append(values, item.Value)
			} else {
				w.walk(item, append(path, strconv.Itoa(i)), item.Line)
			}
		}
		if len(values) > 0 {
			w.add(path, line, values...)
		}
	case len(n.Content) == 0:
		w.add(path, line, "")
	default:
		for i := 0; i+1 < len(n.Content); i += 2 { // what is merged first, so that the rest wins
			if n.Content[i].ShortTag() == "!!merge" {
				w.walk(n.Content[i+1], path, n.Content[i].Line)
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if key := n.Content[i]; key.ShortTag() != "!!merge" {
				w.walk(n.Content[i+1], append(path, key.Value), key.Line)
			}
		}
	}
}
