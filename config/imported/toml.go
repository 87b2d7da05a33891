package imported

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// tomlLeaves returns the values of a file in TOML. The parser is the one that tells lines.
func tomlLeaves(f File) ([]leaf, error) {
	w, p := &walker{file: f.Name}, new(unstable.Parser)
	p.Reset([]byte(f.Text))
	line, seen := 1, 0
	var table []string
	empty := false                  // the table has no values yet
	entries := make(map[string]int) // the last entries of lists of tables, by their paths
	end := func(next []string) {    // adds the table if it is empty
		if empty && (len(next) <= len(table) || !slices.Equal(next[:len(table)], table)) {
			w.add(table, line, "")
		}
		empty = false
	}
	for p.NextExpression() && len(w.leaves) <= maxValues {
		e := p.Expression()
		var path []string
		if e.Kind == unstable.KeyValue {
			path = slices.Clone(table)
		}
		for keys := e.Key(); keys.Next(); {
			if at := int(keys.Node().Raw.Offset); at > seen {
				line, seen = line+strings.Count(f.Text[seen:at], "\n"), at
			}
			path = append(path, string(keys.Node().Data))
			list := strings.Join(path, "\x00")
			if last, known := entries[list]; e.Kind == unstable.ArrayTable && keys.IsLast() {
				if known {
					last++
				}
				entries[list], path = last, append(path, strconv.Itoa(last))
			} else if known && e.Kind != unstable.KeyValue {
				path = append(path, strconv.Itoa(last))
			}
		}
		if e.Kind == unstable.KeyValue {
			empty = false
			w.toml(e.Value(), path, line)
			continue
		}
		end(path)
		table, empty = path, true
	}
	if end(nil); p.Error() != nil {
		return nil, fmt.Errorf("%s: not valid TOML after line %d: %w", f.Name, line, p.Error())
	}
	if len(w.leaves) > maxValues {
		return nil, errTooLarge
	}
	return w.leaves, nil
}

// toml adds the values of n.
func (w *walker) toml(n *unstable.Node, path []string, line int) {
	var values []string
	children := n.Children()
	for i := 0; (n.Kind == unstable.Array || n.Kind == unstable.InlineTable) && children.Next(); i++ {
		switch child := children.Node(); child.Kind {
		case unstable.KeyValue:
			below := slices.Clone(path)
			for keys := child.Key(); keys.Next(); {
				below = append(below, string(keys.Node().Data))
			}
			w.toml(child.Value(), below, line)
		case unstable.Array, unstable.InlineTable:
			w.toml(child, append(slices.Clone(path), strconv.Itoa(i)), line)
		default:
			values = append(values, string(child.Data))
		}
	}
	switch {
	case len(values) > 0:
		w.add(path, line, values...)
	case n.Kind == unstable.InlineTable && !n.Child().Valid():
		w.add(path, line, "")
	case n.Kind != unstable.Array && n.Kind != unstable.InlineTable:
		w.add(path, line, string(n.Data))
	}
}
