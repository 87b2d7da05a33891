package config

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"iter"
	"reflect"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"sluice/consul"
)

// MarshalJSON returns c with the keys and values of the file, with all defaults. Secrets
// are masked.
func (c Config) MarshalJSON() ([]byte, error) {
	return asJSON(encode(reflect.ValueOf(c), true)), nil
}

// ActionsJSON returns actions with the keys of the file; nil: there are none. Secrets are
// masked.
func ActionsJSON(a Actions) json.RawMessage {
	n := encode(reflect.ValueOf(a), true)
	if len(n.Content) == 0 {
		return nil
	}
	return asJSON(n)
}

var configType = reflect.TypeFor[Config]()

// entries yields what v contains, with names: the keys of a section in their order, the elements
// of a list, and the entries of a mapping by name. It omits what is empty. This is the canonical
// form: a file with all defaults, a hash and a difference are made of it.
func entries(v reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		switch v.Kind() {
		case reflect.Struct:
			for _, field := range objectOf(v.Type()).fields {
				f := v.FieldByIndex(field.index)
				switch kindIn(f.Type()) {
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

// encode is the inverse of the decoder. It omits empty fields.
func encode(v reflect.Value, mask bool) *yaml.Node {
	switch kindIn(v.Type()) {
	case reflect.Pointer:
		return encode(v.Elem(), mask)
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, item := range entries(v) {
			n.Content = append(n.Content, encode(item, mask))
		}
		return n
	case reflect.Struct, reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for name, value := range entries(v) {
			n.Content = append(n.Content, textNode(name), encode(value, mask))
		}
		switch {
		case !mask:
		case v.Type() == configType:
			hide(n, v.Interface().(Config).hidden)
		case v.Type() == routeType && v.CanAddr():
			hide(n, v.Addr().Interface().(*Route).hidden)
		}
		return n
	}
	v = written(v)
	n := textNode(formatScalar(v))
	switch {
	case kindIn(v.Type()) == reflect.String && mask:
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

// asJSON returns n with its keys in order.
func asJSON(n *yaml.Node) []byte {
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

// canonicalHash returns a hash of c in canonical form: every key with its value and the
// defaults, mappings in the order of their names. Comments, the order of keys and the division
// into documents do not change it, nor does what differs between replicas with the same
// documents, or the same in all but what cannot be equal on one machine: keys that flags and
// the environment set, places on one machine, and addresses that a replica listens on.
func canonicalHash(c *Config) string {
	common := *c
	common.Listeners = slices.Clone(c.Listeners)
	for i := range common.Listeners {
		l := &common.Listeners[i]
		if l.Name == l.Address.Text {
			l.Name = ""
		}
		l.Address = Address{}
	}
	common.Admin, common.Live, common.Discovery.Snapshot = Admin{}, Live{}, ""
	registry := &common.Consul
	registry.Addresses, registry.Token, registry.TokenFile, registry.TLS, registry.CertificatesDir = nil, Secret{}, "", consul.TLSOptions{}, ""
	if r := registry.Register; r != nil {
		one := *r
		one.ID, one.Address, one.Port = "", "", 0
		registry.Register = &one
	}
	h := sha256.New()
	w := bufio.NewWriterSize(h, 4096)
	writeCanonical(w, reflect.ValueOf(common), "")
	_ = w.Flush() // a hash accepts everything
	return hex.EncodeToString(h.Sum(nil)[:hashBytes])
}

// writeCanonical writes a value and its name.
func writeCanonical(w *bufio.Writer, v reflect.Value, name string) {
	w.WriteByte('{')
	writeText(w, name)
	switch kindIn(v.Type()) {
	case reflect.Pointer:
		writeCanonical(w, v.Elem(), "")
	case reflect.Struct, reflect.Slice, reflect.Map:
		for name, value := range entries(v) {
			writeCanonical(w, value, name)
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

// Equal reports whether a and b are the same configuration, also if a key has moved to another
// line or document.
func Equal(a, b *Config) bool { return equalBut(a, b, equalRoutes) }

// Identical reports whether a and b are the same configuration, with each key in the same place.
func Identical(a, b *Config) bool {
	return a == b || a != nil && b != nil && equalBut(a, b, func(a, b *Route) bool { return a.Origin == b.Origin && equalRoutes(a, b) })
}

// equalBut compares all but the routes, which equalRoutes compares.
func equalBut(a, b *Config, equalRoutes func(a, b *Route) bool) bool {
	if len(a.Routes) != len(b.Routes) {
		return false
	}
	for i := range a.Routes {
		if !equalRoutes(&a.Routes[i], &b.Routes[i]) {
			return false
		}
	}
	x, y := *a, *b
	x.Routes, y.Routes = nil, nil
	return reflect.DeepEqual(x, y)
}

// equalRoutes reports whether two routes differ in nothing but their places.
func equalRoutes(a, b *Route) bool {
	if a.checked != nil && a.checked == b.checked {
		return true // the same route of a document that has not changed
	}
	if a.Host != b.Host || a.Path != b.Path || a.Service != b.Service {
		return false
	}
	x, y := *a, *b
	x.Origin, y.Origin, x.checked, y.checked = "", "", nil, nil
	return reflect.DeepEqual(x, y)
}
