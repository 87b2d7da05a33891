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
	Header     = decoding.Parsed[Secret, [2]string] // name and value of a field, maybe credentials
	Meta       = decoding.Parsed[string, [2]string] // key and value
	Network    = decoding.Parsed[string, netip.Prefix]
	Address    = decoding.Parsed[string, Endpoint]
	HashKey    = decoding.Parsed[string, route.HashKey]
	TokenPlace = decoding.Parsed[string, route.TokenPlace]
	Escaped    = decoding.Parsed[Secret, []byte]
	Statuses   = decoding.Parsed[string, statuses.Set]
	Regexp     = decoding.Parsed[string, *regexp.Regexp]
	FileMode   = decoding.Parsed[string, fs.FileMode]
	Rule       = decoding.Parsed[string, *traefik.Template]
	Encoding   = decoding.Parsed[string, compression.Encoding]
	Peer       = decoding.Parsed[string, discovery.Instance]
	LogLevel   = decoding.Parsed[string, zerolog.Level]
	LogFormat  = decoding.Parsed[string, accesslog.Format]
	MediaType  = decoding.Parsed[string, compression.Types]
	Level      = decoding.Parsed[string, compression.Level]

	TLSVersion = decoding.Parsed[string, uint16]
	TLSSuite   = decoding.Parsed[string, uint16]
	TLSCurve   = decoding.Parsed[string, tls.CurveID]
	// CertificateName is a name of a client's certificate.
	CertificateName = decoding.Parsed[string, route.CertificateName]
)

// typedList returns valid texts of a format.
func typedList[T decoding.Text, V any](format string, texts ...string) []decoding.Parsed[T, V] {
	list := make([]decoding.Parsed[T, V], len(texts))
	for i, text := range texts {
		list[i] = decoding.NewParsed[T, V](formats[format], text)
	}
	return list
}

// Values returns what the texts of a list mean, nil for none.
func Values[T decoding.Text, V any](list []decoding.Parsed[T, V]) (values []V) {
	for _, t := range list {
		values = append(values, t.Value)
	}
	return values
}

// MetaOf returns the entries by key, nil for none.
func MetaOf(entries []Meta) map[string]string {
	if len(entries) == 0 {
		return nil
	}
	meta := make(map[string]string, len(entries))
	for _, entry := range entries {
		meta[entry.Value[0]] = entry.Value[1]
	}
	return meta
}
