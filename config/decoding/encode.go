package decoding

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"iter"
	"reflect"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// entries yields what v contains, with names: the keys of a section in their order, the elements
// of a list, and the entries of a mapping by name. It omits what is empty. This is the canonical
// form: a file with all defaults, a hash and a difference are made of it.
func (s *Schema) entries(v reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		switch v.Kind() {
		case reflect.Struct:
			for _, field := range s.objectOf(v.Type()).fields {
				f := v.FieldByIndex(field.index)
				switch Kind(f.Type()) {
				case reflect.Pointer, reflect.Slice, reflect.Map, reflect.String:
					if f.IsZero() {
						continue
					}
				}
				if !yield(field.name, f) {
					return
				}
			}
		case reflect.Slice:
			for i := range v.Len() {
				if !yield("", v.Index(i)) {
					return
				}
			}
		case reflect.Map:
			for _, name := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) }) {
				if !yield(name.String(), v.MapIndex(name)) {
					return
				}
			}
		}
	}
}

// Encode is the inverse of the decoder. It omits empty fields. With mask, secrets and variables are
// not shown.
func (s *Schema) Encode(v any, mask bool) *yaml.Node { return s.encode(reflect.ValueOf(v), mask) }

func (s *Schema) encode(v reflect.Value, mask bool) *yaml.Node {
	switch Kind(v.Type()) {
	case reflect.Pointer:
		return s.encode(v.Elem(), mask)
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, item := range s.entries(v) {
			n.Content = append(n.Content, s.encode(item, mask))
		}
		return n
	case reflect.Struct, reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for name, value := range s.entries(v) {
			n.Content = append(n.Content, TextNode(name), s.encode(value, mask))
		}
		if mask && v.Kind() == reflect.Struct {
			if o := s.objectOf(v.Type()); o.variables != nil {
				hide(n, v.FieldByIndex(o.variables).Interface().(Variables))
			}
		}
		return n
	}
	v = written(v)
	n := TextNode(formatScalar(v))
	switch {
	case Kind(v.Type()) == reflect.String && mask:
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

// JSON returns n with its keys in order.
func JSON(n *yaml.Node) []byte {
	var b bytes.Buffer
	writeJSON(&b, n)
	return b.Bytes()
}

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

// WriteCanonical writes v in canonical form. A hash, which accepts everything, is behind w.
func (s *Schema) WriteCanonical(w *bufio.Writer, v any) { s.writeCanonical(w, reflect.ValueOf(v), "") }

func (s *Schema) writeCanonical(w *bufio.Writer, v reflect.Value, name string) {
	w.WriteByte('{')
	writeText(w, name)
	switch Kind(v.Type()) {
	case reflect.Pointer:
		s.writeCanonical(w, v.Elem(), "")
	case reflect.Struct, reflect.Slice, reflect.Map:
		for name, value := range s.entries(v) {
			s.writeCanonical(w, value, name)
		}
	default:
		writeText(w, formatScalar(written(v)))
	}
	w.WriteByte('}')
}

// writeText writes a text so that its end is certain. A hash accepts everything.
func writeText(w *bufio.Writer, text string) {
	_, _ = w.Write(append(strconv.AppendInt(w.AvailableBuffer(), int64(len(text)), 10), ':'))
	_, _ = w.WriteString(text)
}
