package imported

import (
	"cmp"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	"sluice/tags"
)

// traefik is what the files of Traefik say. Routers, middlewares and services are read as its tags
// are: see traefik_dynamic.go.
type traefik struct {
	*draft
	entries      map[string]*entryPoint        // by name in lower case
	resolvers    map[string]tags.Keys          // keys of acme, by name in lower case
	objects      map[string]map[string]*object // by kind and name, in lower case
	catalog      bool                          // services in Consul have routes by their tags
	unselected   bool                          // but which ones cannot be said
	streams      []string                      // entry points with routers for TCP
	trusted      []string                      // proxies of all entry points so far
	certificates []tags.Keys
	tls          tags.Keys // settings of all listeners with TLS
	closed       string    // why no listener with TLS may be open; empty: they may

	uses       map[string]string // what tags have for a middleware, by name in lower case
	byInstance map[string]bool   // services whose peers get their own address as Host
}

// entryPoint becomes a listener.
type entryPoint struct {
	name, address    string
	at               Place
	byDefault        bool // of routers without entry points
	secure, secured  bool // all its routers are for TLS; one is
	resolver         string
	options          string // of TLS
	redirect         string // entry point that requests are redirected to
	middlewares      []string
	proxies, trusted []string
	hosts            []string // that need certificates
}

func readTraefik(d *draft, files []File) error {
	t := &traefik{
		draft: d, entries: make(map[string]*entryPoint), resolvers: make(map[string]tags.Keys), objects: make(map[string]map[string]*object),
		tls: make(tags.Keys), uses: make(map[string]string), byInstance: make(map[string]bool),
	}
	var all []leaf
	for _, f := range files {
		leaves, err := leavesOf(f)
		if all = append(all, leaves...); err == nil && len(all) > maxValues {
			err = errTooLarge
		}
		if err != nil {
			return err
		}
	}
	dynamic := func(l leaf) bool {
		return len(l.path) > 2 && strings.EqualFold(l.path[0], "http") && slices.Contains([]string{"routers", "middlewares", "services"}, strings.ToLower(l.path[1]))
	}
	for _, l := range all {
		if dynamic(l) {
			t.collect(l)
		}
	}
	d.apply(slices.DeleteFunc(all, dynamic), t.rows())
	if len(t.entries) == 0 { // as in Traefik
		t.entry("http", d.top).address = ":80"
	}
	delete(t.entries, "traefik") // that of Traefik's own page
	t.finishCatalog()
	t.readMiddlewares()
	t.readRouters()
	t.listen()
	return nil
}

// entry returns the entry point with a name.
func (t *traefik) entry(name string, at Place) *entryPoint {
	key := strings.ToLower(name)
	if t.entries[key] == nil {
		t.entries[key] = &entryPoint{name: name, at: at}
	}
	return t.entries[key]
}

// onEntry returns the rule for a setting of an entry point.
func (t *traefik) onEntry(set func(e *entryPoint, l leaf)) rule {
	return func(l leaf, names []string) { set(t.entry(names[0], l.at), l) }
}

// onResolver returns the rule for a key of acme.
func (t *traefik) onResolver(key string) rule {
	return func(l leaf, names []string) {
		name := strings.ToLower(names[0])
		if t.resolvers[name] == nil {
			t.resolvers[name] = make(tags.Keys)
		}
		if key != "" {
			t.resolvers[name][key] = l.value()
		}
	}
}

// byTag is the only constraint that a selection by tag can stand for.
var byTag = regexp.MustCompile("^Tag\\(`([^`]+)`\\)$")

// rows are the settings of static files, and of TLS in dynamic ones.
func (t *traefik) rows() []row {
	const consul = "providers.consulcatalog."
	on := func(path ...string) rule {
		return func(l leaf, names []string) { t.catalog = true; t.to(path...)(l, names) }
	}
	return []row{
		{"entrypoints.*.address", t.onEntry(func(e *entryPoint, l leaf) { e.address, e.at = l.value(), l.at })},
		{"entrypoints.*.asdefault", t.onEntry(func(e *entryPoint, l leaf) { e.byDefault = l.value() == "true" })},
		{"entrypoints.*.http.redirections.entrypoint.to", t.onEntry(func(e *entryPoint, l leaf) { e.redirect = l.value() })},
		{"entrypoints.*.http.redirections.entrypoint.*", sameByDefault},
		{"entrypoints.*.http.middlewares", t.onEntry(func(e *entryPoint, l leaf) { e.middlewares = l.values })},
		{"entrypoints.*.http.tls", t.onEntry(func(e *entryPoint, l leaf) { e.secure = l.value() != "false" })},
		{"entrypoints.*.http.tls.certresolver", t.onEntry(func(e *entryPoint, l leaf) { e.secure, e.resolver = true, l.value() })},
		{"entrypoints.*.http.tls.domains.*.*", t.onEntry(func(e *entryPoint, l leaf) { e.secure, e.hosts = true, append(e.hosts, l.values...) })},
		{"entrypoints.*.http.tls.options", t.onEntry(func(e *entryPoint, l leaf) { e.secure, e.options = true, l.value() })},
		{"entrypoints.*.proxyprotocol.trustedips", t.onEntry(func(e *entryPoint, l leaf) { e.proxies = l.values })},
		{"entrypoints.*.forwardedheaders.trustedips", t.onEntry(func(e *entryPoint, l leaf) { e.trusted = l.values })},
		{"entrypoints.*.transport.lifecycle.gracetimeout", t.duration("shutdown", "grace")},
		{"entrypoints.*.transport.lifecycle.requestacceptgracetimeout", t.duration("shutdown", "delay")},
		{"entrypoints.*.transport.respondingtimeouts.idletimeout", t.duration("client", "timeouts", "idle")},
		{"entrypoints.*.**", t.unlike("a listener has no such setting; see client")},

		{consul + "endpoint.address", t.list("consul", "addresses")},
		{consul + "endpoint.scheme", func(l leaf, _ []string) {
			if l.value() == "https" {
				t.set(l.at, tags.Keys{}, "consul", "tls")
			}
		}},
		{consul + "endpoint.datacenter", on("consul", "datacenter")},
		{consul + "endpoint.tls.ca", on("consul", "tls", "ca")},
		{consul + "endpoint.tls.cert", on("consul", "tls", "cert")},
		{consul + "endpoint.tls.key", on("consul", "tls", "key")},
		{consul + "exposedbydefault", on("catalog", "traefik", "exposed")},
		{consul + "prefix", on("catalog", "traefik", "prefix")},
		{consul + "defaultrule", on("catalog", "traefik", "default_rule")},
		{consul + "constraints", func(l leaf, _ []string) {
			if tag := byTag.FindStringSubmatch(l.value()); tag != nil {
				t.set(l.at, tag[1], "catalog", "select", "tag")
				return
			}
			t.unselected = true
			t.note(l.at, "%s: sluice selects services by one tag: services in Consul get no routes by their tags; set catalog with select", l.key())
		}},
		{"providers.consulcatalog", on("catalog", "traefik", "exposed")},
		{"providers.consulcatalog.**", func(l leaf, names []string) {
			t.catalog = true
			t.unlike("see consul and catalog; a token is a secret: write it to a file, and set consul.token_file")(l, names)
		}},
		{"providers.file.**", t.unlike("give the files there to sluice import too")},
		{"providers.**", t.unlike("sluice has no such provider: its services are in Consul, etcd, DNS or files")},

		{"certificatesresolvers.*.acme.email", t.onResolver("email")},
		{"certificatesresolvers.*.acme.caserver", t.onResolver("directory")},
		{"certificatesresolvers.*.**", func(l leaf, names []string) {
			t.onResolver("")(l, names)
			t.unlike("sluice orders its certificates anew, by HTTP-01 and TLS-ALPN-01: see tls.acme, and tls.acme.dns for wildcards")(l, names)
		}},
		{"tls.certificates.*.certfile", t.onCertificate("cert")},
		{"tls.certificates.*.keyfile", t.onCertificate("key")},
		{"tls.stores.default.defaultcertificate.certfile", t.onCertificate("cert")},
		{"tls.stores.default.defaultcertificate.keyfile", t.onCertificate("key")},
		{"tls.options.default.minversion", func(l leaf, _ []string) {
			if strings.EqualFold(l.value(), "VersionTLS13") { // sluice has none below 1.2
				t.tls["min_version"] = "1.3"
			}
		}},
		{"tls.options.default.ciphersuites", func(l leaf, _ []string) { t.tls["ciphers"] = l.values }},
		{"tls.options.default.clientauth.cafiles", func(l leaf, _ []string) {
			if t.tls["client_ca"] = l.values[0]; len(l.values) > 1 {
				t.closed = "several files of authorities for clients: want one"
			}
		}},
		{"tls.options.default.clientauth.clientauthtype", func(l leaf, _ []string) {
			kind := map[string]string{"RequireAndVerifyClientCert": "required", "VerifyClientCertIfGiven": "optional"}[l.value()]
			if t.tls["client_auth"] = kind; kind == "" {
				t.closed = "sluice does not ask for certificates as " + l.value() + " does: want client_ca, and client_auth required or optional"
			}
		}},
		{"tls.options.**", t.unlike("sluice has the settings of TLS at a listener; routers with options of another name deny every request")},
		{"tcp.routers.*.entrypoints", func(l leaf, _ []string) { t.streams = append(t.streams, l.values...) }},
		{"tcp.**", t.unlike("connections have no routes: want a listener with protocol: tcp, and service or sni")},

		{"log.level", t.words(logLevels, "log", "level")},
		{"log.format", t.words(map[string]string{"json": "json", "common": "console"}, "log", "format")},
		{"accesslog.filepath", t.to("access_log", "path")},
		{"accesslog.format", t.words(map[string]string{"json": "json", "common": "combined"}, "access_log", "format")},
		{"accesslog.**", t.unlike("see access_log")},
		{"http.**", t.unlike("see upstream.tls and timeouts of the services")},
		{"serverstransport.**", t.unlike("see upstream.tls and timeouts of the services, and catalog.insecure for those found by tags")},
		{"global.**", sameByDefault},
		{"**", t.unlike("see the admin API, which has the page, /metrics, /healthz and /readyz at http://127.0.0.1:8081")},
	}
}

// onCertificate returns the rule for a file of a certificate of all listeners.
func (t *traefik) onCertificate(key string) rule {
	return func(l leaf, _ []string) {
		last := len(t.certificates) - 1
		if last < 0 || t.certificates[last][key] != nil {
			t.certificates, last = append(t.certificates, tags.Keys{}), last+1
		}
		t.certificates[last][key] = l.value()
	}
}

// finishCatalog completes what sluice needs to read tags.
func (t *traefik) finishCatalog() {
	if !t.catalog {
		return
	}
	var open []string
	for _, e := range sorted(t.entries) {
		if len(e.middlewares) > 0 || e.options != "" && e.options != "default" {
			t.note(e.at, "entryPoints.%s: routes by tags have no middlewares of the entry point, which may restrict them: they are not at this listener; see catalog.listeners", e.name)
		} else {
			open = append(open, e.name)
		}
	}
	if t.catalog = len(open) > 0 && !t.unselected; !t.catalog {
		delete(t.sections, "catalog")
		return
	}
	t.sections.Set([]string{"traefik"}, "catalog", "tags")
	t.sections.Set([]tags.Keys{{"service": "*", "hosts": []string{"*"}}}, "catalog", "claims")
	if exposed := t.sections.Get("catalog", "traefik", "exposed"); exposed == nil || exposed == "" {
		t.sections.Set("true", "catalog", "traefik", "exposed")
	}
	if len(open) < len(t.entries) {
		t.sections.Set(open, "catalog", "listeners")
	}
}

// listen adds the listeners. Those that need TLS, and have no certificate, are left out with what
// is only theirs.
func (t *traefik) listen() {
	for _, e := range sorted(t.entries) {
		address, protocol, _ := strings.Cut(e.address, "/")
		keys, why := tags.Keys{"name": e.name, "address": address}, ""
		if e.redirect != "" {
			keys["redirect_https"] = tags.Keys{}
			to := cmp.Or(t.entries[strings.ToLower(e.redirect)], &entryPoint{address: e.redirect})
			if _, port, err := net.SplitHostPort(strings.TrimSuffix(to.address, "/tcp")); err == nil && port != "443" {
				keys.Set(port, "redirect_https", "port")
			}
		} else if t.trust(e); len(e.proxies) > 0 {
			keys["proxy_protocol"] = tags.Keys{"from": e.proxies}
		}
		if protocol == "udp" || slices.Contains(t.streams, e.name) {
			why = "it is not for HTTP: want a listener with protocol: tcp, and service or sni"
		}
		if e.secured || e.secure || t.catalog && strings.HasSuffix(address, ":443") && len(t.certificates)+len(t.resolvers) > 0 {
			keys["tls"] = t.tls.Clone()
			if why = cmp.Or(why, t.closed); len(t.certificates) > 0 {
				keys.Set(t.certificates, "tls", "certificates")
			}
			if !t.order(e, keys) && len(t.certificates) == 0 {
				why = cmp.Or(why, "no certificate is known: want tls.certificates or tls.acme")
			}
		}
		if why != "" {
			t.note(e.at, "entryPoints.%s: %s; the listener is left out, with the routes that are only there", e.name, why)
			t.forget(e.name)
			continue
		}
		t.add("listeners", "", e.at, keys)
	}
	t.parts["routes"] = slices.DeleteFunc(t.parts["routes"], func(p *part) bool { return p.gone })
	if len(t.trusted) > 0 {
		t.set(t.top, t.trusted, "client", "trusted_proxies")
	}
}

// trust trusts the proxies of an entry point that all before it trust too: sluice has one list.
func (t *traefik) trust(e *entryPoint) {
	kept := e.trusted
	if t.trusted != nil {
		kept = slices.DeleteFunc(slices.Clone(t.trusted), func(network string) bool { return !slices.Contains(e.trusted, network) })
		if len(kept) < max(len(t.trusted), len(e.trusted)) {
			t.note(e.at, "entryPoints.%s: sluice trusts the same proxies at all listeners: those that not all entry points trust are left out", e.name)
		}
	}
	t.trusted = append([]string{}, kept...)
}

// order adds the keys of certificates by ACME, and returns false if the entry point needs none.
func (t *traefik) order(e *entryPoint, listener tags.Keys) bool {
	if e.resolver == "" && t.catalog && len(t.resolvers) == 1 { // tags name it
		e.resolver = slices.Collect(maps.Keys(t.resolvers))[0]
	}
	keys := t.resolvers[strings.ToLower(e.resolver)].Clone()
	hosts := slices.Compact(slices.Sorted(slices.Values(e.hosts)))
	if t.catalog {
		hosts = []string{"*"}
	}
	if len(keys) == 0 || len(hosts) == 0 {
		return false
	}
	keys["routes"] = hosts
	listener.Set(keys, "tls", "acme")
	return true
}
