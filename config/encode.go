package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// MarshalYAML returns c as a file with all defaults. Secrets are masked.
func (c Config) MarshalYAML() (any, error) {
	return encode(reflect.ValueOf(c), true), nil
}

// MarshalJSON returns c with the keys and values of the file, with all defaults. Secrets
// are masked.
func (c Config) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	writeJSON(&b, encode(reflect.ValueOf(c), true))
	return b.Bytes(), nil
}

// ActionsJSON returns actions with the keys of the file; nil: there are none. Secrets are
// masked.
func ActionsJSON(a Actions) json.RawMessage {
	n := encode(reflect.ValueOf(a), true)
	if len(n.Content) == 0 {
		return nil
	}
	var b bytes.Buffer
	writeJSON(&b, n)
	return b.Bytes()
}

var configType = reflect.TypeFor[Config]()

// encode is the inverse of the decoder. It omits empty fields.
func encode(v reflect.Value, mask bool) *yaml.Node {
	switch kindIn(v.Type()) {
	case reflect.Pointer:
		return encode(v.Elem(), mask)
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, field := range keyFields(v.Type()) {
			f := v.FieldByIndex(field.Index)
			if kind := kindIn(f.Type()); f.IsZero() && (kind == reflect.Pointer || kind == reflect.Slice || kind == reflect.Map || kind == reflect.String) {
				continue
			}
			n.Content = append(n.Content, textNode(field.Tag.Get("key")), encode(f, mask))
		}
		switch {
		case !mask:
		case v.Type() == configType:
			hide(n, v.Interface().(Config).hidden)
		case v.Type() == routeType && v.CanAddr():
			hide(n, v.Addr().Interface().(*Route).hidden)
		}
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.Len() {
			n.Content = append(n.Content, encode(v.Index(i), mask))
		}
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		table := make(map[string]reflect.Value, v.Len())
		for _, k := range v.MapKeys() {
			table[k.String()] = v.MapIndex(k)
		}
		for _, name := range slices.Sorted(maps.Keys(table)) {
			n.Content = append(n.Content, textNode(name), encode(table[name], mask))
		}
		return n
	}
	v = written(v)
	n := textNode(formatScalar(v))
	switch {
	case v.Kind() == reflect.String && mask:
		n.Value = masked(n.Value, v.Type())
	case v.Kind() == reflect.Bool:
		n.Tag = "!!bool"
	case v.Kind() == reflect.Int:
		n.Tag = "!!int"
	case v.Kind() == reflect.Float64:
		n.Tag = "!!float"
	}
	return n
}

func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// writeJSON writes n with its keys in order.
func writeJSON(b *bytes.Buffer, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		text := []byte(n.Value) // a number, true or false: the same in JSON
		if n.Tag == "!!str" {
			text, _ = json.Marshal(n.Value) // strings can always be encoded
		}
		b.Write(text)
		return
	}
	brackets, separators := "[]", ",,"
	if n.Kind == yaml.MappingNode {
		brackets, separators = "{}", ",:"
	}
	b.WriteByte(brackets[0])
	for i, item := range n.Content {
		if i > 0 {
			b.WriteByte(separators[i%2])
		}
		writeJSON(b, item)
	}
	b.WriteByte(brackets[1])
}
