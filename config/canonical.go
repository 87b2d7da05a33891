package config

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// canonicalHash returns a hash of c in canonical form: every key with its value and the
// defaults, mappings in the order of their names. Comments, the order of keys and the division
// into documents do not change it, nor does what differs between replicas with the same
// documents: keys that flags and the environment set, and places on one machine.
func canonicalHash(c *Config) string {
	common := *c
	common.Admin, common.Live, common.Discovery.Snapshot = Admin{}, Live{}, ""
	consul := &common.Consul
	consul.Addresses, consul.Token, consul.TokenFile, consul.TLS, consul.CertificatesDir = nil, "", "", ConsulTLS{}, ""
	if r := consul.Register; r != nil {
		one := *r
		one.ID, one.Address = "", ""
		consul.Register = &one
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
	writeQuoted(w, name)
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			writeCanonical(w, v.Elem(), "")
		}
	case reflect.Struct:
		for _, field := range keyFields(v.Type()) {
			if f := v.FieldByIndex(field.Index); !f.IsZero() {
				writeCanonical(w, f, field.Tag.Get("key"))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			writeCanonical(w, v.Index(i), "")
		}
	case reflect.Map:
		table := make(map[string]reflect.Value, v.Len())
		for _, k := range v.MapKeys() {
			table[k.String()] = v.MapIndex(k)
		}
		for _, name := range slices.Sorted(maps.Keys(table)) {
			writeCanonical(w, table[name], name)
		}
	default:
		writeQuoted(w, formatScalar(v))
	}
	w.WriteByte('}')
}

// writeQuoted writes a text so that its end is certain.
func writeQuoted(w *bufio.Writer, text string) {
	_, _ = w.Write(strconv.AppendQuote(w.AvailableBuffer(), text)) // to a hash, which accepts everything
}

// Equal reports whether a and b are the same configuration, also if a key has moved to another
// line or document.
func Equal(a, b *Config) bool {
	x, y := *a, *b
	x.Routes, y.Routes = routesWithoutOrigins(a.Routes), routesWithoutOrigins(b.Routes)
	return reflect.DeepEqual(x, y)
}

func routesWithoutOrigins(routes []Route) []Route {
	routes = slices.Clone(routes)
	for i := range routes {
		routes[i].Origin = ""
	}
	return routes
}
