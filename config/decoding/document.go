package decoding

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
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
		d.syntax(err, reader, data)
		return nil
	}
	if err := reader.Decode(&second); err == nil {
		d.Fail(d.PlaceOf(&second), "", "", "a second document: a file contains one configuration")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err, reader, data)
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

var yamlLine = regexp.MustCompile(`^yaml: (?:line \d+: )?`)

// syntax records an error of the YAML parser, with its place if it has one.
func (d *Decoder) syntax(err error, reader *yaml.Decoder, data []byte) {
	p := Place{Origin: d.file}
	if line, column := stoppedAt(reader, data); line > 0 {
		p = d.AtLine(line)
		p.column = column
	}
	d.Fail(p, "", "", "not valid YAML: "+strings.TrimSpace(yamlLine.ReplaceAllString(err.Error(), "")))
}

// The kinds of errors of the YAML parser: a word is wrong, or stands where it must not.
const scannerError, parserError = 3, 4

// stoppedAt returns where a parser has failed, from 1, or 0, 0. The parser's errors have no column,
// and often the line before: the place is read from its fields, which it does not export. Without
// these fields, as in another version, there is no place.
func stoppedAt(reader *yaml.Decoder, data []byte) (line, column int) {
	parser := reflect.ValueOf(reader)
	for _, name := range []string{"parser", "parser"} {
		if parser = reflect.Indirect(parser); parser.Kind() != reflect.Struct {
			return 0, 0
		}
		parser = parser.FieldByName(name)
	}
	number := func(names ...string) int {
		v := parser
		for _, name := range names {
			if v.Kind() != reflect.Struct {
				return -1
			}
			v = v.FieldByName(name)
		}
		if !v.CanInt() {
			return -1
		}
		return int(v.Int())
	}
	at := func(mark string) (line, column int) { return number(mark, "line") + 1, number(mark, "column") + 1 }
	switch number("error") {
	case scannerError:
		return at("context_mark") // where what does not end begins
	case parserError:
		if line, column = at("problem_mark"); line > bytes.Count(bytes.TrimSpace(data), []byte("\n"))+1 {
			return at("context_mark") // the end is missing
		}
	}
	return line, column
}
