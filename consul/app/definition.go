package app

import (
	"cmp"
	"crypto/tls"
	"net"
	"strconv"
	"strings"

	"sluice/certificates"
	"sluice/consul/registration"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/healthcheck/statuses"
)

// metaApp is the key of the meta that identifies the application over restarts, also under
// another id.
const metaApp = "sluice-app"

// self describes the application on a machine to a registrar.
func (o Options) self(host string) registration.Self {
	return registration.Self{
		Host:    host,
		Owner:   registration.Owner{Key: metaApp, Value: o.defaultID(host)},
		Checked: o.listener(),
	}
}

// listener is "host:port". The host is empty if the application may listen on any address.
func (o Options) listener() string { return net.JoinHostPort(o.Address, strconv.Itoa(o.Port)) }

// defaultID is the same over restarts. An address is unique for more than a machine's name:
// an application may run once on each of several addresses.
func (o Options) defaultID(host string) string {
	return o.Name + "-" + registration.IDPart(cmp.Or(o.Address, host, "localhost")) + "-" + strconv.Itoa(o.Port)
}

// settings returns the settings of the registration.
func (o Options) settings(host string) *registration.Settings {
	kind, name := registration.CheckType(o.Check.Type), "process" // what Consul's user interface shows
	if probe := o.probe(); probe != nil {
		name = probe.String()
	}
	if o.Check.TTL {
		kind = registration.CheckTTL
	}
	return &registration.Settings{
		Listener: o.listener(),
		Name:     o.Name,
		ID:       cmp.Or(o.ID, o.defaultID(host)),
		Tags:     o.Tags,
		Meta:     o.Meta,
		Weight:   o.Weight,
		Check: registration.Check{
			Type:     kind,
			Name:     name,
			Path:     o.Check.Path,
			Service:  o.Check.Service,
			TLS:      o.Check.TLS,
			Interval: o.Check.Interval,
			Timeout:  o.Check.Timeout,
		},
		DeregisterAfter: o.DeregisterAfter,
	}
}

// anyCertificate is the TLS of checks, as TLSSkipVerify of Consul's.
type anyCertificate struct{}

// TermsFor implements [certificates.Security].
func (anyCertificate) TermsFor(*discovery.Instance) (certificates.Terms, error) {
	return certificates.Terms{Config: &tls.Config{InsecureSkipVerify: true}}, nil
}

// probe returns a probe that does what Consul's check does; nil: none.
func (o Options) probe() healthcheck.Probe {
	var secure certificates.Security
	if o.Check.TLS {
		secure = anyCertificate{}
	}
	switch o.Check.Type {
	case TCP:
		return healthcheck.NewTCP(healthcheck.TCPOptions{})
	case HTTP:
		accepted, _ := statuses.Parse("2xx") // is valid
		return healthcheck.NewHTTP(healthcheck.HTTPOptions{Method: "GET", Path: o.Check.Path, Status: accepted, TLS: secure})
	case GRPC:
		return healthcheck.NewGRPC(healthcheck.GRPCOptions{Service: o.Check.Service, TLS: secure})
	}
	return nil
}

// onlyHere returns an agent on another machine if the address is for this machine only.
func (o Options) onlyHere(agents []string) string {
	if !registration.IsLoopback(strings.TrimSuffix(o.Address, ".")) {
		return ""
	}
	for _, url := range agents {
		if !registration.IsLocal(url) {
			return url
		}
	}
	return ""
}
