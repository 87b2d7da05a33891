package config

import (
	"fmt"
	"maps"
	"slices"

	"sluice/balancer"
	"sluice/config/decoding"
	"sluice/discovery"
	"sluice/tags"
)

// Protocols of a Listener.
const (
	// ProtocolHTTP serves requests, by routes.
	ProtocolHTTP = "http"
	// ProtocolTCP forwards the bytes of each connection to a peer, and the bytes of the
	// peer back.
	ProtocolTCP = "tcp"
)

// ProxyProtocol is who sends PROXY headers.
type ProxyProtocol struct {
	// From are the networks of proxies. Their connections must begin with a PROXY
	// header, connections of others are as without From.
	From []Network `key:"from" format:"proxy" required:"yes"`
}

// ServerName sends the connections of TLS clients that ask for a server to a service.
type ServerName struct {
	Host    string `key:"host" required:"yes"` // as in route.Route
	Service string `key:"service" required:"yes"`
	// Passthrough forwards TLS as it is, at a listener that ends the TLS of the others.
	Passthrough bool `key:"passthrough" default:"false"`
}

// onlyTCP reports whether no listener serves requests.
func (c *Config) onlyTCP() bool {
	return len(c.Listeners) > 0 && !slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Protocol != ProtocolTCP })
}

// checkHTTP3 checks whether the listener can serve HTTP/3.
func (l *Listener) checkHTTP3(d *decoder, key string) {
	switch {
	case !l.HTTP3 && l.HTTP3Port != 0:
		d.Refuse(key+".http3_port", fmt.Sprint(l.HTTP3Port), "only with http3: true")
	case !l.HTTP3:
	case l.TLS == nil && !d.Failed(key+".tls"):
		d.Refuse(key+".http3", "true", "only with tls")
	case l.Address.Value.Network == discovery.NetworkUnix:
		d.Refuse(key+".http3", "true", "not with a unix socket: HTTP/3 needs UDP")
	case l.ProxyProtocol != nil:
		d.Refuse(key+".http3", "true", "not with proxy_protocol: QUIC has no such header")
	}
}

// checkProtocol checks the keys of a listener that belong to one protocol only.
func (l *Listener) checkProtocol(d *decoder, key string, c *Config) {
	switch l.Protocol {
	case ProtocolHTTP:
		if len(l.SNI) > 0 {
			d.Refuse(key+".sni", "", "only with protocol: tcp; with http, routes choose by host")
		}
		if l.Service != "" {
			d.Refuse(key+".service", l.Service, "only with protocol: tcp; with http, routes lead to services")
		}
		l.checkHTTP3(d, key)
	case ProtocolTCP:
		if l.TLS != nil && l.TLS.HSTS != nil {
			d.Refuse(key+".tls.hsts", "", "not with protocol: tcp, which has no responses")
		}
		if d.HasKey(key + ".http2") {
			d.Refuse(key+".http2", "", "not with protocol: tcp, which forwards every protocol as it is")
		}
		if l.HTTP3 {
			d.Refuse(key+".http3", "true", "not with protocol: tcp, which forwards every protocol as it is")
		}
		if l.RedirectHTTPS != nil {
			d.Refuse(key+".redirect_https", "", "not with protocol: tcp, which has no requests")
		}
		if l.Service == "" && len(l.SNI) == 0 && !d.Failed(key+".service") && !c.Catalog.Reads(DialectTraefik) && !c.Catalog.Reads(DialectFabio) {
			d.Refuse(key+".service", "", "required with protocol: tcp, unless there is sni, or catalog.tags has traefik or fabio: the name of a service")
		}
		c.needStreamService(d, l.Service, key+".service")
		first := make(map[string]string, len(l.SNI))
		for i, entry := range l.SNI {
			at := fmt.Sprintf("%s.sni[%d]", key, i)
			if entry.Passthrough && l.TLS == nil {
				d.Refuse(at+".passthrough", "true", "only with tls of the listener: without it, all TLS is forwarded as it is")
			}
			if !d.Failed(at) {
				if checked := (&Route{Host: entry.Host, Path: "/"}).match(d, at); checked != nil {
					d.RefuseDuplicate(first, checked.Key, at, entry.Host+"/")
				}
			}
			c.needStreamService(d, entry.Service, at+".service")
		}
	}
}

// needStreamService checks that the service of a listener for TCP exists.
func (c *Config) needStreamService(d *decoder, service, key string) {
	if _, ok := c.Services[service]; !ok && service != "" && !d.Failed(decoding.Join("services", service)) {
		d.Refuse(key, service, d.whole.serviceNames().want(service))
	}
}

// StreamedServices returns the names of the services that listeners forward connections to.
func StreamedServices(listeners []Listener) map[string]bool {
	names := make(map[string]bool)
	for _, l := range listeners {
		for _, r := range l.StreamRoutes() {
			names[r.Service] = true
		}
	}
	return names
}

// StreamKeys returns the keys of the connections for which l has a service, as
// [Route.StreamKey].
func (l Listener) StreamKeys() []string {
	var keys []string
	for _, r := range l.StreamRoutes() {
		keys = append(keys, r.StreamKey(l.Name))
	}
	return keys
}

// StreamRoutes returns all routes of connections of l: from its keys, and Streams.
func (l Listener) StreamRoutes() (routes []Route) {
	if l.Protocol != ProtocolTCP {
		return nil
	}
	add := func(protocol, host, service string) {
		routes = append(routes, Route{
			Protocol: protocol, Host: host, Path: "/", Listeners: []string{l.Name}, Service: service, Origin: "listener " + l.Name,
		})
	}
	if l.Service != "" {
		add(tags.ProtocolTCP, "", l.Service)
	}
	for _, entry := range l.SNI {
		protocol := tags.ProtocolTLS
		if l.TLS != nil && !entry.Passthrough {
			protocol = tags.ProtocolEndedTLS
		}
		add(protocol, entry.Host, entry.Service)
	}
	return append(routes, l.Streams...)
}

// StreamKey returns a text that is equal for valid routes of connections that match the same
// ones at a listener.
func (r Route) StreamKey(listener string) string {
	if r.Protocol == tags.ProtocolTCP {
		return r.Protocol + " " + listener
	}
	r.Limit()
	return tags.ProtocolTLS + " " + listener + " " + r.Key()
}

// NoStreams returns why no route of connections can lead to s; empty: one can.
func (s *Service) NoStreams() string {
	switch {
	case s.Upstream.UsesHTTP2():
		return "upstream.protocol " + s.Upstream.Protocol
	case s.Balance.Policy == balancer.PolicySticky:
		return "balance.policy " + string(balancer.PolicySticky)
	case s.Balance.Policy == balancer.PolicyHash && !slices.Contains(s.Balance.Hash.Keys, byClientAddress):
		return "balance.hash.keys without client_address"
	}
	return ""
}

// streams completes and checks the services that get connections of listeners for TCP.
func (w *whole) streams() {
	c := w.config
	if len(c.Routes) > 0 && c.onlyTCP() {
		w.file.Refuse("routes", "", "without effect: no listener has protocol: http")
	}
	routed, streamed := RoutedServices(c.Routes), StreamedServices(c.Listeners)
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		if key := decoding.Join("services", name) + ".proxy_protocol"; c.Services[name].ProxyProtocol != "" && (routed[name] || !streamed[name]) {
			w.ownerOf(name).Refuse(key, c.Services[name].ProxyProtocol, "only for a service of a listener with protocol: tcp that no route leads to: requests of different clients share connections")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(streamed)) {
		if s, ok := c.Services[name]; ok {
			d := w.ownerOf(name)
			s.checkStreams(d, name)
			if !routed[name] && c.Catalog == nil {
				checkStreamOnly(d, name)
			}
			c.Services[name] = s
		}
	}
}

// defaultStreamPolicy is Balance.Policy left out for a service of a listener for TCP:
// the latency of connecting says little about the load of a peer, its number of
// connections more.
const defaultStreamPolicy = balancer.PolicyLeastConn

// checkStreams completes the policy of a service of a listener for TCP, and complains
// about one that needs HTTP.
func (s *Service) checkStreams(d *decoder, name string) {
	if s.Upstream.UsesHTTP2() {
		d.Refuse(decoding.Join("services", name)+".upstream.protocol", s.Upstream.Protocol, "not for a service of a listener with protocol: tcp, which forwards bytes as they are")
	}
	key := decoding.Join("services", name) + ".balance"
	if !d.HasKey(key+".policy") && (!d.whole.givesDefault(d, key+".policy") || s.NoStreams() != "") {
		s.Balance.Policy = defaultStreamPolicy
	}
	switch s.Balance.Policy {
	case balancer.PolicySticky:
		d.Refuse(key+".policy", string(s.Balance.Policy),
			"not for a service of a listener with protocol: tcp, which has no cookies: want ewma, hash, least_conn, random or round_robin")
	case balancer.PolicyHash:
		if !slices.Contains(s.Balance.Hash.Keys, byClientAddress) {
			d.Refuse(key+".hash.keys", "",
				"without client_address, the only key of a connection of a listener with protocol: tcp")
		}
	}
}

// checkStreamOnly complains about settings that need requests, of a service to which no
// route leads.
func checkStreamOnly(d *decoder, name string) {
	for _, key := range []string{
		"timeouts.response_header", "keepalive", "retry.per_try_timeout", "retry.body",
		"health.passive.consecutive_5xx",
	} {
		key = decoding.Join("services", name) + "." + key
		if d.HasKey(key) {
			d.Refuse(key, "", fmt.Sprintf("without effect: only listeners with protocol: tcp use service %q, and this is about requests", name))
		}
	}
}
