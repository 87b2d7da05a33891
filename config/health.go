package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config/decoding"
	"sluice/healthcheck"
)

// Health limits the health checks of all services.
type Health struct {
	MaxChecks int `key:"max_checks" default:"512" min:"1" max:"10000"` // simultaneous active checks
}

// ServiceHealth configures the health checks of the peers of a service.
type ServiceHealth struct {
	Active  *ActiveCheck        `key:"active"` // nil: none
	Passive healthcheck.Passive `key:"passive"`

	balancer.SlowStart
	PanicThreshold Ratio `key:"panic_threshold" default:"50%" min:"0" max:"1"` // 0: off
}

// ActiveCheck configures periodic checks of each peer.
type ActiveCheck struct {
	Type string `key:"type" default:"http" oneof:"http|tcp|grpc"`
	healthcheck.Schedule
	TLS              *certificates.ClientTLS `key:"tls"` // nil: without TLS
	ReuseConnections bool                    `key:"reuse_connections" default:"false"`

	// Each type of check has only some of these keys: see checkKeys.

	Method  string      `key:"method" default:"GET" oneof:"GET|HEAD|OPTIONS|POST|PUT"`
	Path    Location    `key:"path" default:"/" format:"check_path"`
	Host    string      `key:"host" format:"authority"` // empty: the address of the check
	Headers []Header    `key:"headers" format:"header"`
	Service string      `key:"service"`               // in grpc.health.v1; empty: the whole server
	Send    Escaped     `key:"send" format:"escaped"` // Secret because of passwords
	Expect  CheckExpect `key:"expect"`

	// ByTag says that a tag has configured the check, and not the file or a document.
	ByTag bool `key:"-"`
}

// CheckExpect configures which responses pass a check.
type CheckExpect struct {
	Status Statuses `key:"status" default:"200-299" format:"statuses"`
	Text   string   `key:"text"`                                       // must occur in the response
	Regexp Regexp   `key:"regexp" format:"regexp"`                     // must match the response
	Within Size     `key:"within" default:"64KiB" min:"1" max:"16MiB"` // size of the part of the response that is searched
}

// checkKeys are the keys that only some types of active checks have, and these types.
var checkKeys = []struct {
	key   string
	types []string
}{
	{"method", []string{"http"}},
	{"path", []string{"http"}},
	{"host", []string{"http"}},
	{"headers", []string{"http"}},
	{"reuse_connections", []string{"http", "grpc"}},
	{"service", []string{"grpc"}},
	{"send", []string{"tcp"}},
	{"expect.status", []string{"http"}},
	{"expect.text", []string{"http", "tcp"}},
	{"expect.regexp", []string{"http", "tcp"}},
}

// maxForeignWithin is the largest expect.within of a document of a registry: thousands of checks
// may wait for the rest of answers that they keep.
const maxForeignWithin = 64 << 10

// checkHealth checks rules of a service's health that involve several keys.
func (s *Service) checkHealth(d *decoder, key string) {
	if a := s.Health.Active; a != nil {
		a.check(d, s, key+".active")
		if s.Consul != nil && s.Consul.CheckPort != "" && a.Port != 0 {
			d.Refuse(key+".active.port", strconv.Itoa(a.Port), "not with consul.check_port: want one of them")
		}
	}
	p := s.Health.Passive
	if p.MaxEjection < p.Ejection {
		d.Refuse(key+".passive.max_ejection", decoding.FormatDuration(p.MaxEjection),
			"want at least "+key+".passive.ejection, which is "+decoding.FormatDuration(p.Ejection))
	}
}

func (a *ActiveCheck) check(d *decoder, s *Service, key string) {
	if d.Failed(key) {
		return
	}
	copied := false // others may have a
	for _, k := range checkKeys {
		at := decoding.Join(key, k.key)
		switch {
		case slices.Contains(k.types, a.Type) || schema.IsDefault(a, k.key):
		case d.HasKey(at):
			d.Refuse(at, "", fmt.Sprintf("allowed only with type %s, and the type is %s", strings.Join(k.types, " or "), a.Type))
		default: // the defaults have another type
			if !copied {
				a, copied = new(*a), true
				s.Health.Active = a
			}
			schema.SetDefault(a, k.key)
		}
	}
	if within := a.Expect.Within; within > maxForeignWithin && d.bounded() && d.HasKey(key+".expect.within") {
		d.Refuse(key+".expect.within", decoding.FormatSize(int64(within)), "want at most "+decoding.FormatSize(maxForeignWithin)+" in a document of Consul or etcd")
	}
	if t := a.TLS; t != nil {
		needPair(d, key+".tls", t.Cert, t.Key)
	}
	if a.OverridesRegistry && s.Consul == nil {
		d.Refuse(key+".overrides_consul", "true", "the service does not come from Consul: want false")
	}
}

// parseEscaped replaces the escape sequences of Go's strings, such as \r, \n, \t, \\ and
// \xHH.
func parseEscaped(s string) (b []byte, err error) {
	for s != "" {
		c, multibyte, rest, err := strconv.UnquoteChar(s, 0)
		if err != nil {
			return nil, err
		}
		if multibyte {
			b = utf8.AppendRune(b, c)
		} else {
			b = append(b, byte(c))
		}
		s = rest
	}
	return b, nil
}

// parseHeader splits "NAME: VALUE" (RFC 9110, section 5).
func parseHeader(s string) (header [2]string, ok bool) {
	name, value, ok := strings.Cut(s, ":")
	if !ok || name == "" || strings.ContainsFunc(name, func(c rune) bool {
		return !strings.ContainsRune("!#$%&'*+-.^_`|~", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) {
		return header, false
	}
	return [2]string{name, strings.Trim(value, " \t")}, true
}
