package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/healthcheck/statuses"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/route/compression"
	"sluice/tags/traefik"
)

// Typed is a text of the file with what it means. The decoder parses the text, by the format of
// the field. T is string, [Secret] or [Location]. The zero value is an absent key.
type Typed[T text, V any] struct {
	Text  T
	Value V
}

type text interface{ ~string | Secret | Location }

// The types of keys whose text is parsed.
type (
	Header     = Typed[Secret, [2]string] // name and value of a field; Secret because of credentials
	Meta       = Typed[string, [2]string] // key and value
	Network    = Typed[string, netip.Prefix]
	Address    = Typed[string, Endpoint]
	HashKey    = Typed[string, route.HashKey]
	TokenPlace = Typed[string, route.TokenPlace]
	Escaped    = Typed[Secret, []byte]
	Statuses   = Typed[string, statuses.Set]
	Regexp     = Typed[string, *regexp.Regexp]
	FileMode   = Typed[string, fs.FileMode]
	Rule       = Typed[string, *traefik.Template]
	Encoding   = Typed[string, compression.Encoding]
	Peer       = Typed[string, discovery.Instance]
	LogLevel   = Typed[string, zerolog.Level]
	LogFormat  = Typed[string, accesslog.Format]
	MediaType  = Typed[string, compression.Types]
	Level      = Typed[string, compression.Level]

	TLSVersion = Typed[string, uint16]
	TLSSuite   = Typed[string, uint16]
	TLSCurve   = Typed[string, tls.CurveID]
	// CertificateName is a name of a client's certificate.
	CertificateName = Typed[string, route.CertificateName]
)

// typedList returns valid texts of a format.
func typedList[T text, V any](format string, texts ...string) []Typed[T, V] {
	list := make([]Typed[T, V], len(texts))
	for i, text := range texts {
		v, _ := (&rules{format: format}).parseTyped(text, reflect.TypeFor[Typed[T, V]]())
		list[i] = v.Interface().(Typed[T, V])
	}
	return list
}

// Values returns what the texts of a list mean, nil for none.
func Values[T text, V any](list []Typed[T, V]) (values []V) {
	for _, t := range list {
		values = append(values, t.Value)
	}
	return values
}

// MetaOf returns the entries by key, nil for none.
func MetaOf(entries []Meta) map[string]string {
	var meta map[string]string
	for _, entry := range entries {
		if meta == nil {
			meta = make(map[string]string, len(entries))
		}
		meta[entry.Value[0]] = entry.Value[1]
	}
	return meta
}

// String returns the text, masked if it may be a secret.
func (t Typed[T, V]) String() string { return fmt.Sprint(t.Text) }

// GoString masks a secret in %#v.
func (t Typed[T, V]) GoString() string { return strconv.Quote(t.String()) }

// MarshalText masks a secret in JSON.
func (t Typed[T, V]) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (Typed[T, V]) isTyped() {}

func isTyped(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.Implements(reflect.TypeFor[interface{ isTyped() }]())
}

// kindIn returns the kind of a type as the file has it: a [Typed] is a String.
func kindIn(t reflect.Type) reflect.Kind {
	if isMasked(t) || isTyped(t) {
		return reflect.String
	}
	return t.Kind()
}

// written returns the text of a value that is one in the file.
func written(v reflect.Value) reflect.Value {
	if isTyped(v.Type()) {
		return v.Field(0)
	}
	return v
}

// typed returns the rule for the texts that parse accepts.
func typed[V any](want string, parse func(string) (V, error)) format {
	return format{
		want:  want,
		ok:    func(s string) bool { _, err := parse(s); return err == nil },
		parse: func(s string) (any, error) { return parse(s) },
	}
}

// known returns the parser of the words that parse knows.
func known[V any](parse func(string) (V, bool)) func(string) (V, error) {
	return func(s string) (v V, err error) {
		v, ok := parse(s)
		if !ok {
			err = errors.New("unknown")
		}
		return v, err
	}
}
