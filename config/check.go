package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"sluice/config/decoding"
	"sluice/config/units"
	"sluice/discovery"
	"sluice/route"
)

// Defaults of keys that are lists.
const (
	defaultListener        = "web"
	defaultListenerAddress = ":8080"
	defaultConsulAddress   = "http://127.0.0.1:8500"
)

// complete sets the defaults that depend on other keys, and checks rules that involve
// several keys. It also runs after the decoders have recorded errors; then some values
// are zero.
func (w *whole) complete() {
	c := w.config
	if b := c.Discovery.Debounce; b.Quiet > b.MaxWait {
		w.file.Fail(w.file.Place("discovery.debounce"), "discovery.debounce.quiet", decoding.FormatDuration(b.Quiet),
			"want at most discovery.debounce.max_wait, which is "+decoding.FormatDuration(b.MaxWait))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s := c.Services[name]
		s.check(w.file, decoding.Join("services", name), name, &c.Consul)
		c.Services[name] = s
	}
	w.addServices()
	w.awaitServices()
	c.checkListeners(w.file)
	c.Client.build(w.file)
	if c.Catalog != nil {
		c.Catalog.checkListeners(w.file, c.Listeners)
	}
	w.needRoutes()
	w.addRoutes()
	w.streams()
}

func (c *Consul) check(d *decoder, tls bool) {
	if len(c.Addresses) == 0 {
		c.Addresses = []Location{units.NewLocation(defaultConsulAddress)}
	}
	first := make(map[string]string, len(c.Addresses))
	for i, address := range c.Addresses {
		key := fmt.Sprintf("consul.addresses[%d]", i)
		if u, ok := consulURL(address.Reveal(), tls); ok {
			c.Addresses[i] = units.NewLocation(u)
		}
		d.RefuseDuplicate(first, c.Addresses[i].Reveal(), key, address.String())
	}
	needPair(d, "consul.tls", c.TLS.Cert, c.TLS.Key)
	if !c.Token.IsZero() && c.TokenFile != "" {
		d.Refuse("consul.token", "", "give either consul.token or consul.token_file, not both")
	}
	if dir := c.CertificatesDir; dir != "" {
		if info, err := os.Stat(dir); err != nil {
			d.Refuse("consul.certificates_dir", dir, "cannot be used: "+err.Error())
		} else if !info.IsDir() {
			d.Refuse("consul.certificates_dir", dir, "want a directory")
		}
	}
	c.Connect.check(d)
	if c.Register != nil {
		c.Register.check(d)
	}
}

func (c *Config) checkListeners(d *decoder) {
	if len(c.Listeners) == 0 && len(d.Errs) == 0 {
		address := typedList[string, Endpoint]("listen", defaultListenerAddress)[0]
		c.Listeners = []Listener{{Name: defaultListener, Address: address, Protocol: ProtocolHTTP, HTTP2: true}}
	}
	names := make(map[string]string, len(c.Listeners))
	taken := []string{"admin.address"}
	addresses := []Address{c.Admin.Address}
	remote := false // a listener has a host and a port
	for i := range c.Listeners {
		l := &c.Listeners[i]
		l.Name = cmp.Or(l.Name, l.Address.Text)
		key := fmt.Sprintf("listeners[%d]", i)
		if l.Name != "" {
			d.RefuseDuplicate(names, l.Name, key+".name", l.Name)
		}
		for j, address := range addresses {
			if l.Address.Value.collides(address.Value) {
				d.Refuse(key+".address", l.Address.Text,
					fmt.Sprintf("already taken by %s (%s): want another port or address", taken[j], address))
				break
			}
		}
		taken, addresses = append(taken, key+".address"), append(addresses, l.Address)
		local := l.Address.Value.Network == discovery.NetworkUnix
		remote = remote || !local
		l.Socket.check(d, key+".socket", l.Address)
		if l.TLS != nil {
			l.TLS.check(d, key+".tls", l.HTTP2, local)
			if l.RedirectHTTPS != nil {
				d.Refuse(key+".redirect_https", "", "not on a listener with tls, which serves HTTPS already")
			}
		}
		l.checkProtocol(d, key, c)
	}
	if r := c.Consul.Register; r != nil && len(c.Listeners) > 0 && !remote && (r.Address == "" || r.Port == 0) && !d.Failed("listeners") {
		d.Refuse("consul.register", "", "every listener is a unix socket: give the address and the port that clients use")
	}
	c.checkAdmin(d)
}

// checkAdmin checks rules of the admin API that involve several keys.
func (c *Config) checkAdmin(d *decoder) {
	a := c.Admin
	switch at := a.Address.Value; {
	case at.Network == discovery.NetworkUnix:
		if r := c.Consul.Register; r != nil && r.Check.Type == "http" && r.Check.URL.IsZero() {
			d.Refuse("consul.register.check.type", "http", "the admin API is a unix socket, which Consul cannot ask: give check.url, or use type: ttl")
		}
	case a.TokenFile == "" && a.Address.Text != "" && !isLoopback(at.Host):
		d.Refuse("admin.address", a.Address.Text,
			"reachable from other machines: set admin.token_file too, or use a loopback address such as 127.0.0.1:8081")
	}
	a.Socket.check(d, "admin.socket", a.Address)
	if a.TLS != nil {
		if a.Address.Value.Network == discovery.NetworkUnix {
			d.Refuse("admin.tls", "", "not with a unix socket, which only programs of this machine reach")
		}
		checkCertificate(d, "admin.tls", a.TLS.Cert, a.TLS.Key)
	}
	if a.ReadTokenFile != "" && a.TokenFile == "" {
		d.Refuse("admin.read_token_file", a.ReadTokenFile, "only with admin.token_file, the token with the right to do more than read")
	}
}

// check checks a service, whose keys are below key, and completes it.
func (s *Service) check(d *decoder, key, name string, consul *Consul) {
	s.checkSource(d, key, name, consul)
	s.checkConnect(d, key)
	s.checkHealth(d, decoding.Join(key, "health"))
	if t := s.Upstream.TLS; t != nil {
		needPair(d, decoding.Join(key, "upstream.tls"), t.Cert, t.Key)
		if s.ProxyProtocol != "" {
			d.Refuse(decoding.Join(key, "proxy_protocol"), s.ProxyProtocol, "not with upstream.tls: peers expect the header before the handshake")
		}
	}
	connect := s.Consul != nil && s.Consul.Connect
	if connect && s.Upstream.Protocol == ProtocolH2C {
		s.Upstream.Protocol = ProtocolH2 // what the application behind a sidecar speaks, as tags of Traefik and fabio say it
	}
	switch secure := s.Upstream.TLS != nil || connect; {
	case s.Upstream.Protocol == ProtocolH2C && secure:
		d.Refuse(decoding.Join(key, "upstream.protocol"), ProtocolH2C, "not with upstream.tls: h2c is HTTP/2 without TLS, h2 is HTTP/2 over TLS")
	case s.Upstream.Protocol == ProtocolH2 && !secure:
		d.Refuse(decoding.Join(key, "upstream.protocol"), ProtocolH2, "only with upstream.tls or consul.connect: h2 is HTTP/2 over TLS, h2c is HTTP/2 without TLS")
	}
	s.Balance.check(d, decoding.Join(key, "balance"))
	s.checkGroups(d, key)
	first := make(map[string]string, len(s.Peers))
	for i, peer := range s.Peers {
		if peer.Text == "" {
			continue // not an address, which is an error already
		}
		address := peer.Value.ID
		if peer.Value.Socket == "" {
			address = strings.ToLower(address)
		}
		d.RefuseDuplicate(first, address, decoding.Item(decoding.Join(key, "peers"), i), peer.Text)
	}
}

// check sets the values that a service inherits from the consul section, and
// checks which keys may be set together.
func (s *ConsulService) check(d *decoder, key, name string, consul *Consul) {
	if s.PreparedQuery == "" {
		s.Service = cmp.Or(s.Service, name)
	} else {
		for _, other := range setKeys([]given{
			{"service", s.Service != ""}, {"tags", len(s.Tags) > 0}, {"filter", s.Filter != ""}, {"peer", s.Peer != ""},
			{"namespace", s.Namespace != ""}, {"partition", s.Partition != ""}, {"datacenters", len(s.Datacenters) > 1},
		}) {
			d.Refuse(decoding.Join(key, other), "", "not allowed with prepared_query, which defines this itself")
		}
	}
	filter, wrong := healthFilter(s.Filter)
	if s.Filter = filter; wrong != "" {
		d.Refuse(decoding.Join(key, "filter"), filter, wantFilter(wrong))
	}
	first := make(map[string]string, len(s.Datacenters))
	for i, datacenter := range s.Datacenters {
		d.RefuseDuplicate(first, datacenter, fmt.Sprintf("%s.datacenters[%d]", key, i), datacenter)
	}
	if s.Nearest && len(s.Datacenters) < 2 {
		d.Refuse(decoding.Join(key, "nearest"), "true", "only with several datacenters")
	}
	switch {
	case !s.Spill:
	case len(s.Datacenters) < 2:
		d.Refuse(decoding.Join(key, "spill"), "true", "only with several datacenters")
	case s.MinHealthy > 1:
		d.Refuse(decoding.Join(key, "min_healthy"), "", "without effect: with spill all data centres are used")
	}
	if len(s.Datacenters) == 0 && consul.Datacenter != "" {
		s.Datacenters = []string{consul.Datacenter}
	}
	s.Consistency = cmp.Or(s.Consistency, consul.Consistency)
	if s.Cached && s.Consistency == "consistent" {
		d.Refuse(decoding.Join(key, "cached"), "true", "not allowed with consistency: consistent")
	}
	s.Leader.check(d, decoding.Join(key, "leader"))
	s.Probation = cmp.Or(s.Probation, &consul.Probation)
}

// needRoutes checks that there is something to serve, or may be.
func (w *whole) needRoutes() {
	c := w.config
	if c.Catalog != nil || len(c.Dynamic) > 0 {
		return
	}
	needed := len(c.Routes) == 0 || slices.ContainsFunc(c.Routes, func(r Route) bool { return r.hasService() || r.needsService() })
	if len(c.Services) == 0 && needed && !w.file.Failed("services") {
		w.file.Refuse("services", "", `empty: want at least one, such as "star: { consul: { service: star } }"`)
	}
	if len(c.Routes) == 0 && !w.file.Failed("routes") && !c.onlyTCP() {
		w.file.Refuse("routes", "", `empty: want at least one, such as "- { path: /, service: star }"`)
	}
}

// check adds the named actions that the route uses and the defaults of c, checks what depends on
// nothing else but the route itself, and sets checked.
func (r *Route) check(d *decoder, key string, c *Config) {
	if d.Failed(key) || len(r.Use) > 0 && d.Failed("actions") {
		return
	}
	r.complete(d, key, r.Use, c)
	r.checked = r.match(d, key)
	r.build(d, r.Match, key)
	r.checkCORS(d, key)
	r.checkServices(d, key)
	if built := r.Built(); r.AdminAPI != "" && built != nil {
		who := *built
		if len(r.Allow) == 0 { // deny alone leaves everybody else
			who.Access = nil
		}
		if !who.Restricts() {
			d.Refuse(decoding.Join(key, "admin_api"), r.AdminAPI, "everybody could read which instances there are: want allow, a password, a token or a certificate of clients")
		}
	}
	switch {
	case r.hasService():
	case r.needsService():
		d.Refuse(key+".service", "", "required, except with redirect, direct_response or admin_api: "+decoding.WantText)
	case r.Group != "":
		d.Refuse(key+".group", r.Group, "the route has no service, of which this could be a group")
	case len(r.Split) > 0:
		d.Refuse(key+".split", "", "the route has no service, of which these could be groups")
	}
}

// checkReferences checks what a route of a document refers to: listeners, the services and their
// groups, and the replicas.
func (r *Route) checkReferences(d *decoder, at routeAt, c *Config) {
	if len(r.Listeners) > 0 {
		r.checkListeners(d, at.key(), c)
	}
	if r.Mirror != nil {
		r.checkMirror(d, decoding.Join(at.key(), "mirror"), c)
	}
	r.checkScope(d, at.key(), c)
	for _, share := range r.Services.Shares() {
		c.needService(d, decoding.Join(at.key(), "services."+share.Group), share.Group)
	}
	switch s, ok := c.Services[r.Service]; {
	case r.Service == "":
	case !ok:
		c.needService(d, at.key()+".service", r.Service)
	case d.whole.awaited[r.Service]:
	case r.divides():
		r.checkGroups(d, &s, at.key())
	case r.ForwardAuth.decides("group") && len(s.Split) == 0:
		d.Refuse(decoding.Join(at.key(), "forward_auth.decides"), "group", "only with a split of the route or of its service, from which the answer chooses a group; a share may be 0%")
	}
}

// checkScope checks that a rate limit of all replicas can be kept.
func (a *Actions) checkScope(d *decoder, key string, c *Config) {
	if l := a.RateLimit; l != nil && l.OfFleet() && c.Consul.Register == nil && !d.Failed("consul.register") {
		d.Refuse(key+".rate_limit.scope", l.Scope, "needs consul.register, which says who is a replica: want that section, or replica")
	}
}

// match checks that the route table accepts a route; nil: it does not.
func (r *Route) match(d *decoder, key string) *route.Checked {
	target := r.Target()
	target.Bounded = target.Bounded || d.bounded()
	checked, err := route.Check(target)
	if err == nil {
		return checked
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		if wrong, ok := errors.AsType[*route.Error](err); ok {
			d.Refuse(decoding.Join(key, wrong.Field), wrong.Value, wrong.Reason)
		}
	}
	return nil
}

// checkListeners checks that the listeners of a route exist and serve requests.
func (r *Route) checkListeners(d *decoder, key string, c *Config) {
	for i, name := range r.Listeners {
		if want := c.WantListener(name); want != "" && !d.Failed("listeners") {
			d.Refuse(fmt.Sprintf("%s.listeners[%d]", key, i), name, want)
		}
	}
}

// checkListeners checks that the listeners for tags exist.
func (c *Catalog) checkListeners(d *decoder, listeners []Listener) {
	var known []string
	for _, l := range listeners {
		known = append(known, l.Name)
	}
	for i, name := range c.Listeners {
		if !slices.Contains(known, name) && !d.Failed("listeners") {
			d.Refuse(fmt.Sprintf("catalog.listeners[%d]", i), name, noListener(name, known))
		}
	}
}

// WantListener returns why routes cannot have a listener, or "".
func (c *Config) WantListener(name string) string {
	var known []string
	for _, l := range c.Listeners {
		switch {
		case l.Protocol != ProtocolHTTP && l.Name == name:
			return "has protocol: tcp, which has no routes"
		case l.Name == name:
			return ""
		case l.Protocol == ProtocolHTTP:
			known = append(known, l.Name)
		}
	}
	return noListener(name, known)
}

// noListener is the error for a name that no known listener has.
func noListener(name string, known []string) string {
	return "no such listener" + decoding.DidYouMean(name, known) + " (known: " + strings.Join(known, ", ") + ")"
}
