package decoding

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Variables are the values of a struct that contain variables of the environment. Their texts in
// the file are shown in their places, since a variable may contain a secret. The decoder sets a
// field of this type to the values of its struct, without those of structs below that have such a
// field too.
type Variables []variable

type variable struct {
	path []string // of names and indices, below the struct
	text string   // with secrets masked
}

// withVariables is a key whose value contains variables.
type withVariables struct {
	key  *keyPath
	text string // as in variable
	kept bool   // a struct has it in its Variables
}

// resolve returns text with the variables of the environment replaced: ${NAME}, or
// ${NAME:-DEFAULT} for one that may be unset or empty. $${ stands for ${. Other variables, of which
// Schema.IsVariable knows, are left as they are. replaced reports whether there were some of the
// environment.
func (d *Decoder) resolve(text string) (resolved string, replaced bool, err error) {
	var b strings.Builder
	for {
		start := strings.Index(text, "${")
		if start < 0 {
			b.WriteString(text)
			return b.String(), replaced, nil
		}
		before, after := text[:start], text[start+len("${"):]
		name := environmentName(after)
		if name == "" || d.schema.IsVariable(name) {
			b.WriteString(before + "${")
			text = after
			continue
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(escaped + "${")
			text = after
			continue
		}
		inner, rest, closed := strings.Cut(after, "}")
		fallback, hasFallback := strings.CutPrefix(inner[len(name):], ":-")
		if !closed || inner != name && !hasFallback || strings.Contains(fallback, "${") {
			return "", false, fmt.Errorf(`want ${%s} or ${%s:-DEFAULT}, or $${ for the text "${"`, name, name)
		}
		if d.Getenv == nil {
			return "", false, fmt.Errorf(`only the configuration file can contain variables of the environment such as ${%s}; $${ stands for the text "${"`, name)
		}
		value := d.Getenv(name)
		if value == "" && !hasFallback {
			return "", false, fmt.Errorf("the environment has no variable %s, or it is empty: set it, or write ${%s:-DEFAULT}", name, name)
		}
		if value == "" {
			value = fallback
		}
		b.WriteString(before + value)
		text, replaced = rest, true
	}
}

// environmentName returns the name of a variable that s begins with, or "".
func environmentName(s string) string {
	n := 0
	for n < len(s) && (s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z' || s[n] == '_' || n > 0 && s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return s[:n]
}

// text returns the text of the scalar n, of a type whose secrets mask masks, or false after an
// error.
func (d *Decoder) text(n *yaml.Node, key *keyPath, mask func(string) string) (text string, fromVariables, ok bool) {
	if _, foreign := d.origins[n]; foreign || !strings.Contains(n.Value, "${") {
		return n.Value, false, true
	}
	text, fromVariables, err := d.resolve(n.Value)
	if err != nil {
		d.Fail(d.PlaceOf(n), key.String(), mask(n.Value), err.Error())
		return "", false, false
	}
	if fromVariables {
		d.variables = append(d.variables, withVariables{key: key, text: mask(n.Value)})
	}
	return text, fromVariables, true
}

// textOf returns what is shown of the value of a key.
func (d *Decoder) textOf(key, value string) string {
	for _, g := range d.variables {
		if g.key.String() == key {
			return g.text
		}
	}
	return value
}

// below returns the names and indices of k below above.
func (k *keyPath) below(above *keyPath) []string {
	if k == above {
		return nil
	}
	name := k.name
	if k.item {
		name = strconv.Itoa(k.index)
	}
	return append(k.above.below(above), name)
}

// variablesBelow returns the values below a key, from the index first on, that no struct has yet.
func (d *Decoder) variablesBelow(key *keyPath, first int) (all Variables) {
	for i := range d.variables[first:] {
		if g := &d.variables[first+i]; !g.kept {
			g.kept = true
			all = append(all, variable{g.key.below(key), g.text})
		}
	}
	return all
}

// unsaid returns the values of v about which the mapping root says nothing.
func (v Variables) unsaid(d *Decoder, root *yaml.Node) (all Variables) {
	for _, one := range v {
		n := root
		for _, name := range one.path {
			if n = present(n); n == nil || n.Kind != yaml.MappingNode {
				break // it says something of all below
			}
			p, found := d.entries(n)[Join("", name)]
			if !found {
				all = append(all, one)
				break
			}
			n = p.value
		}
	}
	return all
}

// Below returns the values at a key of the struct, and below it.
func (v Variables) Below(key string) (all Variables) {
	for _, one := range v {
		if one.path[0] == key {
			all = append(all, one)
		}
	}
	return all
}

// hide replaces the values that contain variables in an encoded tree.
func hide(n *yaml.Node, values Variables) {
	for _, g := range values {
		if at := descend(n, g.path); at != nil {
			*at = *TextNode(g.text)
		}
	}
}

// descend returns the scalar at a path of an encoded tree, or nil: a check has moved it.
func descend(n *yaml.Node, path []string) *yaml.Node {
	if len(path) == 0 {
		if n.Kind != yaml.ScalarNode {
			return nil
		}
		return n
	}
	if n.Kind == yaml.SequenceNode {
		i, err := strconv.Atoi(path[0])
		if err != nil || i >= len(n.Content) {
			return nil
		}
		return descend(n.Content[i], path[1:])
	}
	if i := Index(n, path[0]); i >= 0 {
		return descend(n.Content[i+1], path[1:])
	}
	return nil
}
