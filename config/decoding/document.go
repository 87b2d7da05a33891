package decoding

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse parses data into a mapping node, which is empty for an empty file.
func (d *Decoder) Parse(data []byte) *yaml.Node {
	empty := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}
	reader := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := reader.Decode(&doc); errors.Is(err, io.EOF) {
		return empty
	} else if err != nil {
		d.syntax(err)
		return nil
	}
	if err := reader.Decode(&second); err == nil {
		d.Fail(d.PlaceOf(&second), "", "", "a second document: a file contains one configuration")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	root := present(&doc)
	if root.Kind == yaml.DocumentNode {
		root = present(root.Content[0])
	}
	if root == nil {
		return empty
	}
	if root.Kind != yaml.MappingNode {
		d.Fail(d.PlaceOf(root), "", "", "want a mapping of keys to values, not a "+kindOf(root))
	}
	d.limitAliases(root)
	return root
}

// maxAliased limits the values that aliases add to a document: of a few lines they could make more
// than any memory has.
const maxAliased = 500_000

// limitAliases records an error if the aliases below root add too many values, or one is within
// what it stands for.
func (d *Decoder) limitAliases(root *yaml.Node) {
	written := 0
	named := make(map[*yaml.Node]int) // the values of nodes that aliases may stand for; 0: not counted yet
	var values func(n *yaml.Node) int // with those of aliases
	values = func(n *yaml.Node) int {
		if n.Kind == yaml.AliasNode {
			if named[n.Alias] == 0 {
				d.Fail(d.PlaceOf(n), "", "*"+n.Value, "an alias within what it stands for")
			}
			return named[n.Alias]
		}
		written++
		all := 1
		for _, below := range n.Content {
			all = min(all+values(below), math.MaxInt32)
		}
		if n.Anchor != "" {
			named[n] = all
		}
		return all
	}
	if added := values(root) - written; added > maxAliased {
		d.Fail(Place{Origin: d.file}, "", "", fmt.Sprintf("aliases add too many values: want at most %d", maxAliased))
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax records an error of the YAML parser, with its line if it has one.
func (d *Decoder) syntax(err error) {
	text := err.Error()
	match := yamlLine.FindStringSubmatch(text)
	p := Place{Origin: d.file}
	if len(match) > 1 && match[1] != "" {
		line, _ := strconv.Atoi(match[1])
		p = d.AtLine(line)
	}
	d.Fail(p, "", "", "not valid YAML: "+strings.TrimSpace(yamlLine.ReplaceAllString(text, "")))
}
