package config

import (
	"crypto/tls"
	"io/fs"
	"net/netip"
	"regexp"

	"github.com/rs/zerolog"

	"sluice/config/decoding"
	"sluice/config/units"
	"sluice/discovery"
	"sluice/healthcheck/statuses"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/route/compression"
	"sluice/tags/traefik"
)

// The types of settings that other packages have in their options too.
type (
	Ratio    = units.Ratio
	Size     = units.Size
	Secret   = units.Secret
	Location = units.Location
)

// The types of keys whose text is parsed.
type (
	Header     = decoding.Typed[Secret, [2]string] // name and value of a field; Secret because of credentials
	Meta       = decoding.Typed[string, [2]string] // key and value
	Network    = decoding.Typed[string, netip.Prefix]
	Address    = decoding.Typed[string, Endpoint]
	HashKey    = decoding.Typed[string, route.HashKey]
	TokenPlace = decoding.Typed[string, route.TokenPlace]
	Escaped    = decoding.Typed[Secret, []byte]
	Statuses   = decoding.Typed[string, statuses.Set]
	Regexp     = decoding.Typed[string, *regexp.Regexp]
	FileMode   = decoding.Typed[string, fs.FileMode]
	Rule       = decoding.Typed[string, *traefik.Template]
	Encoding   = decoding.Typed[string, compression.Encoding]
	Peer       = decoding.Typed[string, discovery.Instance]
	LogLevel   = decoding.Typed[string, zerolog.Level]
	LogFormat  = decoding.Typed[string, accesslog.Format]
	MediaType  = decoding.Typed[string, compression.Types]
	Level      = decoding.Typed[string, compression.Level]

	TLSVersion = decoding.Typed[string, uint16]
	TLSSuite   = decoding.Typed[string, uint16]
	TLSCurve   = decoding.Typed[string, tls.CurveID]
	// CertificateName is a name of a client's certificate.
	CertificateName = decoding.Typed[string, route.CertificateName]
)

// typedList returns valid texts of a format.
func typedList[T decoding.Text, V any](format string, texts ...string) []decoding.Typed[T, V] {
	list := make([]decoding.Typed[T, V], len(texts))
	for i, text := range texts {
		list[i] = decoding.NewTyped[T, V](formats[format], text)
	}
	return list
}

// Values returns what the texts of a list mean, nil for none.
func Values[T decoding.Text, V any](list []decoding.Typed[T, V]) (values []V) {
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
