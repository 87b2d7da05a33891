package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"sluice/route"
)

// Defaults of keys that are lists.
const (
	defaultListener        = "web"
	defaultListenerAddress = ":8080"
	defaultConsulAddress   = "http://127.0.0.1:8500"
)

// complete sets the defaults that depend on other keys, and checks rules that involve
// several keys. It also runs after the decoder has recorded errors; then some values
// are zero.
func (d *decoder) complete(c *Config, tls bool) {
	if b := c.Discovery.Debounce; b.Quiet > b.MaxWait {
		d.fail(d.place("discovery.debounce"), "discovery.debounce.quiet", formatDuration(b.Quiet),
			"want at most discovery.debounce.max_wait, which is "+formatDuration(b.MaxWait))
	}
	d.consul(&c.Consul, tls)
	d.listeners(c)
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s := c.Services[name]
		d.service(&s, name, c)
		c.Services[name] = s
	}
	d.routes(c)
	d.streams(c)
}

func (d *decoder) consul(c *Consul, tls bool) {
	if len(c.Addresses) == 0 {
		c.Addresses = []string{defaultConsulAddress}
	}
	first := make(map[string]string, len(c.Addresses))
	for i, address := range c.Addresses {
		key := fmt.Sprintf("consul.addresses[%d]", i)
		if u, ok := consulURL(address, tls); ok {
			c.Addresses[i] = u
		}
		d.once(first, c.Addresses[i], key, address)
	}
	if t := c.TLS; (t.Cert == "") != (t.Key == "") {
		d.refuse("consul.tls", "", "give both cert and key, or neither")
	}
	if c.Token != "" && c.TokenFile != "" {
		d.refuse("consul.token", "", "give either consul.token or consul.token_file, not both")
	}
	if dir := c.CertificatesDir; dir != "" {
		if info, err := os.Stat(dir); err != nil {
			d.refuse("consul.certificates_dir", dir, "cannot be used: "+err.Error())
		} else if !info.IsDir() {
			d.refuse("consul.certificates_dir", dir, "want a directory")
		}
	}
	if c.Register != nil {
		d.register(c.Register)
	}
}

// once records an error if identity is already in seen, which maps identities to keys.
// value is the text in the file.
func (d *decoder) once(seen map[string]string, identity, key, value string) {
	other, twice := seen[identity]
	if !twice {
		seen[identity] = key
		return
	}
	d.refuse(key, value, "the same as "+other+" at "+d.place(other).origin)
}

func (d *decoder) listeners(c *Config) {
	if len(c.Listeners) == 0 && len(d.errs) == 0 {
		c.Listeners = []Listener{{Name: defaultListener, Address: defaultListenerAddress, Protocol: protocolHTTP, HTTP2: true}}
	}
	names := make(map[string]string, len(c.Listeners))
	taken := []string{"admin.address"}
	addresses := []string{c.Admin.Address}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		l.Name = cmp.Or(l.Name, l.Address)
		key := fmt.Sprintf("listeners[%d]", i)
		if l.Name != "" {
			d.once(names, l.Name, key+".name", l.Name)
		}
		for j, address := range addresses {
			if collide(l.Address, address) {
				d.refuse(key+".address", l.Address,
					fmt.Sprintf("already taken by %s (%s): want another port or address", taken[j], address))
				break
			}
		}
		taken, addresses = append(taken, key+".address"), append(addresses, l.Address)
		if l.TLS != nil {
			d.listenerTLS(l.TLS, key+".tls")
			if l.RedirectHTTPS != nil {
				d.refuse(key+".redirect_https", "", "not on a listener with tls, which serves HTTPS already")
			}
		}
		d.listenerProtocol(l, key, c)
	}
	if a := c.Admin; a.TokenFile == "" && a.Address != "" && !isLoopback(a.Address) {
		d.refuse("admin.address", a.Address,
			"reachable from other machines: set admin.token_file too, or use a loopback address such as 127.0.0.1:8081")
	}
}

// collide reports whether two listeners cannot be open at the same time: they have the
// same port, and the same host or one that means all addresses.
func collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	wildcard := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return hostA == hostB || wildcard(hostA) || wildcard(hostB)
}

func (d *decoder) service(s *Service, name string, c *Config) {
	key := join("services", name)
	switch {
	case s.Consul != nil && len(s.Peers) > 0:
		d.fail(d.place(key+".peers"), key, "", "has two sources, consul and peers: want one")
	case s.Consul == nil && len(s.Peers) == 0 && !d.failed(key):
		d.refuse(key, "", `no source: want "consul: { service: NAME }" or "peers: [HOST:PORT, …]"`)
	}
	if s.Consul != nil {
		d.consulService(s.Consul, join(key, "consul"), name, &c.Consul)
	}
	d.health(s, key+".health")
	if t := s.Upstream.TLS; t != nil && (t.Cert == "") != (t.Key == "") {
		d.refuse(key+".upstream.tls", "", "give both cert and key, or neither")
	}
	switch secure := s.Upstream.TLS != nil; {
	case s.Upstream.Protocol == ProtocolH2C && secure:
		d.refuse(key+".upstream.protocol", ProtocolH2C, "not with upstream.tls: h2c is HTTP/2 without TLS, h2 is HTTP/2 over TLS")
	case s.Upstream.Protocol == ProtocolH2 && !secure:
		d.refuse(key+".upstream.protocol", ProtocolH2, "only with upstream.tls: h2 is HTTP/2 over TLS, h2c is HTTP/2 without TLS")
	}
	d.balance(&s.Balance, key+".balance")
	first := make(map[string]string, len(s.Peers))
	for i, peer := range s.Peers {
		d.once(first, peerAddress(peer), fmt.Sprintf("%s.peers[%d]", key, i), peer)
	}
}

// consulService sets the values that a service inherits from the consul section, and
// checks which keys may be set together.
func (d *decoder) consulService(s *ConsulService, key, name string, consul *Consul) {
	if s.PreparedQuery == "" {
		s.Service = cmp.Or(s.Service, name)
	} else {
		for _, other := range []struct {
			key string
			set bool
		}{
			{"service", s.Service != ""}, {"tags", len(s.Tags) > 0}, {"filter", s.Filter != ""}, {"peer", s.Peer != ""},
			{"namespace", s.Namespace != ""}, {"partition", s.Partition != ""}, {"datacenters", len(s.Datacenters) > 1},
		} {
			if other.set {
				d.refuse(join(key, other.key), "", "not allowed with prepared_query, which defines this itself")
			}
		}
	}
	first := make(map[string]string, len(s.Datacenters))
	for i, datacenter := range s.Datacenters {
		d.once(first, datacenter, fmt.Sprintf("%s.datacenters[%d]", key, i), datacenter)
	}
	if len(s.Datacenters) == 0 && consul.Datacenter != "" {
		s.Datacenters = []string{consul.Datacenter}
	}
	s.Consistency = cmp.Or(s.Consistency, consul.Consistency)
	if s.Cached && s.Consistency == "consistent" {
		d.refuse(join(key, "cached"), "true", "not allowed with consistency: consistent")
	}
	s.Probation = cmp.Or(s.Probation, &consul.Probation)
}

// failed reports whether an error is recorded for key or for a key below it.
func (d *decoder) failed(key string) bool {
	return slices.ContainsFunc(d.errs, func(e *Error) bool {
		rest, under := strings.CutPrefix(e.Key, key)
		return under && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func (d *decoder) routes(c *Config) {
	names := slices.Sorted(maps.Keys(c.Services))
	if len(names) == 0 && c.Catalog == nil && !d.failed("services") {
		d.refuse("services", "", `empty: want at least one, such as "star: { consul: { service: star } }"`)
	}
	if len(c.Routes) == 0 && c.Catalog == nil && !d.failed("routes") && !c.onlyTCP() {
		d.refuse("routes", "", `empty: want at least one, such as "- { path: /, service: star }"`)
	}
	first := make(map[string]string, len(c.Routes))
	for i := range c.Routes {
		r := &c.Routes[i]
		key := fmt.Sprintf("routes[%d]", i)
		if !d.failed(key) {
			d.match(first, key, *r)
		}
		if _, ok := c.Services[r.Service]; ok || r.Service == "" || d.failed(join("services", r.Service)) {
			continue
		}
		if c.Catalog != nil && formats["name"].ok(r.Service) {
			continue // the catalog may have it
		}
		d.noService(key+".service", r.Service, names)
	}
}

// noService records an error for the name of a service that does not exist.
func (d *decoder) noService(key, service string, names []string) {
	want := "no such service"
	if word := suggest(service, names); word != "" {
		want += fmt.Sprintf(", did you mean %q?", word)
	}
	if len(names) > 0 {
		want += " (known: " + strings.Join(names, ", ") + ")"
	}
	d.refuse(key, service, want)
}

// match checks that the route table accepts the host and the path of a route, and that
// no other route matches the same requests.
func (d *decoder) match(first map[string]string, key string, r Route) {
	requests, err := requestsOf(r)
	if err == nil {
		d.once(first, requests, key, r.Host+r.Path)
		return
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		var wrong *route.Error
		if errors.As(err, &wrong) {
			field := join(key, wrong.Field)
			d.refuse(field, wrong.Value, wrong.Reason)
		}
	}
}

// requestsOf returns the normalized host and path: equal for two routes that match the
// same requests.
func requestsOf(r Route) (string, error) {
	table, err := route.NewTable([]route.Route{{Host: r.Host, Path: r.Path, Service: &route.Service{}}})
	if err != nil {
		return "", err
	}
	normal := table.Routes()[0]
	return normal.Host + normal.Path, nil
}
