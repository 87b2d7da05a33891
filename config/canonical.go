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
// documents, or the same in all but what cannot be equal on one machine: keys that flags and
// the environment set, places on one machine, and addresses that a replica listens on.
func canonicalHash(c *Config) string {
	common := *c
	common.Listeners = slices.Clone(c.Listeners)
	for i := range common.Listeners {
		l := &common.Listeners[i]
		if l.Name == l.Address {
			l.Name = ""
		}
		l.Address = ""
	}
	common.Admin, common.Live, common.Discovery.Snapshot = Admin{}, Live{}, ""
	consul := &common.Consul
	consul.Addresses, consul.Token, consul.TokenFile, consul.TLS, consul.CertificatesDir = nil, "", "", ConsulTLS{}, ""
	if r := consul.Register; r != nil {
		one := *r
		one.ID, one.Address, one.Port = "", "", 0
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
	writeText(w, name)
	switch kindIn(v.Type()) {
	case reflect.Pointer:
		if !v.IsNil() {
			writeCanonical(w, v.Elem(), "")
		}
	case reflect.Struct:
		for _, field := range objectOf(v.Type()).fields {
			if f := v.FieldByIndex(field.index); !f.IsZero() {
				writeCanonical(w, f, field.name)
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
		writeText(w, formatScalar(written(v)))
	}
	w.WriteByte('}')
}

// writeText writes a text so that its end is certain. A hash accepts everything.
func writeText(w *bufio.Writer, text string) {
	_, _ = w.Write(append(strconv.AppendInt(w.AvailableBuffer(), int64(len(text)), 10), ':'))
	_, _ = w.WriteString(text)
}
