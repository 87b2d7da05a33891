package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"sluice/route"
)

// What stands for keys that are left out and whose default is more than a
// single value.
const (
	defaultListener        = "web"
	defaultListenerAddress = ":8080"
	defaultConsulAddress   = "http://127.0.0.1:8500"
)

// complete fills the defaults that depend on other keys and checks what one
// key alone does not show. It runs after mistakes too, and then may see zero
// values that the decoder has complained about already.
func (d *decoder) complete(c *Config, tls bool) {
	d.consul(&c.Consul, tls)
	d.listeners(c)
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s := c.Services[name]
		d.service(&s, name, &c.Consul)
		c.Services[name] = s
	}
	d.routes(c)
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
		d.fail(d.place("consul.tls"), "consul.tls", "", "give both cert and key, or neither")
	}
	if c.Token != "" && c.TokenFile != "" {
		d.fail(d.place("consul.token"), "consul.token", "", "give either consul.token or consul.token_file, not both")
	}
	if c.Debounce.Quiet > c.Debounce.MaxWait {
		d.fail(d.place("consul.debounce"), "consul.debounce.quiet", formatDuration(c.Debounce.Quiet),
			"want at most consul.debounce.max_wait, which is "+formatDuration(c.Debounce.MaxWait))
	}
	if c.Register != nil {
		d.register(c.Register)
	}
}

// once complains if what was seen before under another key. The value is what
// the operator wrote.
func (d *decoder) once(seen map[string]string, what, key, value string) {
	other, twice := seen[what]
	if !twice {
		seen[what] = key
		return
	}
	d.fail(d.place(key), key, value, "the same as "+other+" at "+d.place(other).origin)
}

func (d *decoder) listeners(c *Config) {
	if len(c.Listeners) == 0 && len(d.errs) == 0 {
		c.Listeners = []Listener{{Name: defaultListener, Address: defaultListenerAddress}}
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
				d.fail(d.place(key+".address"), key+".address", l.Address,
					fmt.Sprintf("already taken by %s (%s): want another port or address", taken[j], address))
				break
			}
		}
		taken, addresses = append(taken, key+".address"), append(addresses, l.Address)
	}
	if a := c.Admin; a.TokenFile == "" && a.Address != "" && !isLoopback(a.Address) {
		d.fail(d.place("admin.address"), "admin.address", a.Address,
			"reachable from other machines: set admin.token_file too, or use a loopback address such as 127.0.0.1:8081")
	}
}

// collide reports whether two listeners cannot be open at the same time: the
// port is the same and so is the host, or one of them is every address.
func collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	every := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return hostA == hostB || every(hostA) || every(hostB)
}

func (d *decoder) service(s *Service, name string, consul *Consul) {
	key := join("services", name)
	switch {
	case s.Consul != nil && len(s.Peers) > 0:
		d.fail(d.place(key+".peers"), key, "", "has two sources, consul and peers: want one")
	case s.Consul == nil && len(s.Peers) == 0 && !d.failed(key):
		d.fail(d.place(key), key, "", `no source: want "consul: { service: NAME }" or "peers: [HOST:PORT, …]"`)
	}
	if s.Consul != nil {
		d.consulService(s.Consul, join(key, "consul"), name, consul)
	}
	d.health(s, key+".health")
	d.balance(&s.Balance, key+".balance")
	first := make(map[string]string, len(s.Peers))
	for i, peer := range s.Peers {
		d.once(first, peerAddress(peer), fmt.Sprintf("%s.peers[%d]", key, i), peer)
	}
}

// consulService fills in what a service takes from the rest of the
// configuration, and complains about what does not go together.
func (d *decoder) consulService(s *ConsulService, key, name string, consul *Consul) {
	if s.PreparedQuery == "" {
		s.Service = cmp.Or(s.Service, name)
	} else {
		for _, other := range []struct {
			key   string
			given bool
		}{
			{"service", s.Service != ""}, {"tags", len(s.Tags) > 0}, {"filter", s.Filter != ""}, {"peer", s.Peer != ""},
			{"namespace", s.Namespace != ""}, {"partition", s.Partition != ""}, {"datacenters", len(s.Datacenters) > 1},
		} {
			if other.given {
				d.fail(d.place(join(key, other.key)), join(key, other.key), "", "not allowed beside prepared_query, which decides on that itself")
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
		d.fail(d.place(join(key, "cached")), join(key, "cached"), "true", "not allowed with consistency: consistent")
	}
	s.Probation = cmp.Or(s.Probation, &consul.Probation)
}

// failed reports whether there is a mistake at key or below.
func (d *decoder) failed(key string) bool {
	return slices.ContainsFunc(d.errs, func(e *Error) bool {
		rest, under := strings.CutPrefix(e.Key, key)
		return under && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func (d *decoder) routes(c *Config) {
	names := slices.Sorted(maps.Keys(c.Services))
	if len(names) == 0 && c.Catalog == nil && !d.failed("services") {
		d.fail(d.place("services"), "services", "", `empty: want at least one, such as "star: { consul: { service: star } }"`)
	}
	if len(c.Routes) == 0 && c.Catalog == nil && !d.failed("routes") {
		d.fail(d.place("routes"), "routes", "", `empty: want at least one, such as "- { path: /, service: star }"`)
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
			continue // it may be found
		}
		want := "no such service"
		if word := suggest(r.Service, names); word != "" {
			want += fmt.Sprintf(", did you mean %q?", word)
		}
		if len(names) > 0 {
			want += " (known: " + strings.Join(names, ", ") + ")"
		}
		d.fail(d.place(key+".service"), key+".service", r.Service, want)
	}
}

// match checks what a route matches: that the route table takes it and that
// no other route is the same.
func (d *decoder) match(first map[string]string, key string, r Route) {
	table, err := route.NewTable([]route.Route{{Host: r.Host, Path: r.Path, Service: &route.Service{}}})
	if err == nil {
		normal := table.Routes()[0]
		d.once(first, normal.Host+normal.Path, key, r.Host+r.Path)
		return
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		var wrong *route.Error
		if errors.As(err, &wrong) {
			field := join(key, wrong.Field)
			d.fail(d.place(field), field, wrong.Value, wrong.Reason)
		}
	}
}
