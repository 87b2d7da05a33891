package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// MarshalYAML shows c as a file that would give the same configuration,
// except that secrets are masked. Defaults are written out.
func (c Config) MarshalYAML() (any, error) {
	return encode(reflect.ValueOf(c), true), nil
}

// MarshalJSON shows c with the keys and the spelling of the file, defaults
// written out, secrets masked.
func (c Config) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	if err := writeJSON(&b, encode(reflect.ValueOf(c), true)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// encode is the inverse of the decoder. What is empty is left out.
func encode(v reflect.Value, mask bool) *yaml.Node {
	switch v.Kind() {
	case reflect.Pointer:
		return encode(v.Elem(), mask)
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for i := range v.NumField() {
			field, f := v.Type().Field(i), v.Field(i)
			if f.IsZero() && (f.Kind() == reflect.Pointer || f.Kind() == reflect.Slice || f.Kind() == reflect.Map || f.Kind() == reflect.String) {
				continue
			}
			n.Content = append(n.Content, textNode(field.Tag.Get("key")), encode(f, mask))
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
func writeJSON(b *bytes.Buffer, n *yaml.Node) error {
	switch {
	case n.Kind == yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, n.Content[i]); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeJSON(b, n.Content[i+1]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case n.Kind == yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, item); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case n.Tag == "!!str":
		text, err := json.Marshal(n.Value)
		if err != nil {
			return err
		}
		b.Write(text)
	default: // a number or true or false, spelled as in JSON
		b.WriteString(n.Value)
	}
	return nil
}
