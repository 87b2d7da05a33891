package config

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"slices"

	"sluice/config/decoding"
	"sluice/consul"
)

// MarshalJSON returns c with the keys and values of the file, with all defaults. Secrets
// are masked.
func (c Config) MarshalJSON() ([]byte, error) {
	return decoding.JSON(schema.Encode(c, true)), nil
}

// ActionsJSON returns actions with the keys of the file; nil: there are none. Secrets are
// masked.
func ActionsJSON(a Actions) json.RawMessage {
	n := schema.Encode(a, true)
	if len(n.Content) == 0 {
		return nil
	}
	return decoding.JSON(n)
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
	schema.WriteCanonical(w, common)
	_ = w.Flush() // a hash accepts everything
	return hex.EncodeToString(h.Sum(nil)[:hashBytes])
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
	if a.checked != nil && a.checked == b.checked && a.Mirror == b.Mirror && a.Dialect == "" {
		return true // the same route of a document; Merge has dropped the mirror of both or of none
	}
	if a.Host != b.Host || a.Path != b.Path || a.Service != b.Service {
		return false
	}
	x, y := *a, *b
	x.Origin, y.Origin, x.checked, y.checked = "", "", nil, nil
	return reflect.DeepEqual(x, y)
}
