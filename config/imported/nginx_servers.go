package imported

import (
	"cmp"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// virtual is a server of http.
type virtual struct {
	*directive
	ports  []*port
	blind  bool   // who the client is cannot be said as nginx says it
	secure bool   // clients need a certificate
	stops  []stop // answers before all locations
	places []*location
}

// port is an address to listen on. It becomes a listener.
type port struct {
	name    string
	at      Place
	servers []*virtual // the default one is first
	taken   map[string]bool
	keys    tags.Keys
	secure  bool
	proxied bool // connections begin with a PROXY header
	gone    bool
	// patterns are the names of servers, but of the default one, that are not exact ones
	patterns []face
}

// face is a server under one of its names.
type face struct {
	server    *virtual
	keys      tags.Keys // of its host
	listeners []string
	class     int // of the name: exact, *.NAME, NAME.*, ~EXPRESSION, or any other name
	size      int
}

// serve adds the listeners and the routes.
func (n *nginx) serve() error {
	var servers []*virtual
	for _, d := range n.http.named["server"] {
		v := &virtual{directive: d}
		if servers = append(servers, v); d.named["listen"] == nil {
			n.listen(v, line{[]string{"listen", "80"}, d.at})
		}
		for _, l := range d.named["listen"] {
			n.listen(v, l.line)
		}
		v.trust(n)
	}
	for _, zone := range n.http.named["limit_req_zone"] {
		name, _, _ := strings.Cut(zone.word(2), ":")
		n.zones[name] = zone
	}
	for _, p := range sorted(n.ports) {
		n.open(p)
	}
	defaults := tags.Keys{"body_limit": "1MiB"} // as in nginx
	n.limits(n.http, defaults)
	n.set(n.http.at, defaults, "defaults", "route")
	var faces []face
	for _, v := range servers {
		faces = append(faces, v.faces(n)...)
	}
	slices.SortStableFunc(faces, func(a, b face) int { return cmp.Or(a.class-b.class, b.size-a.size) })
	for _, v := range servers {
		v.stops = n.stops(v.directive)
		n.ordered = n.ordered || len(v.stops) > 0 && !v.stops[0].always
		n.locate(v)
	}
	for _, f := range faces {
		if n.routes(f); n.left < 0 {
			return errTooLarge
		}
	}
	if !n.ordered {
		for _, r := range n.parts["routes"] {
			delete(r.keys, "priority")
		}
	}
	for _, up := range n.http.named["upstream"] {
		if !up.used {
			n.service(n.http, "http", up.word(1), up)
		}
	}
	return nil
}

// socketOptions are options of listen that sluice needs not.
var socketOptions = regexp.MustCompile(`^(http2|reuseport|bind|deferred|(ipv6only|backlog|rcvbuf|sndbuf|fastopen|so_keepalive|setfib)=.*)$`)

func (n *nginx) listen(v *virtual, l line) {
	address := listenAddress(l.word(1))
	if slices.Contains(l.words, "quic") || slices.Contains(l.words, "udp") {
		n.note(l.at, "listen %s: sluice has no UDP and no HTTP/3: left out", address)
		return
	}
	p := n.ports[address]
	if p == nil {
		p = &port{name: address, at: l.at, taken: make(map[string]bool), keys: tags.Keys{"name": address, "address": address}}
		n.ports[address] = p
	}
	if !slices.Contains(p.servers, v) {
		v.ports, p.servers = append(v.ports, p), append(p.servers, v)
	}
	for _, option := range l.from(2).words {
		switch {
		case option == "default_server" || option == "default":
			p.servers = slices.DeleteFunc(p.servers, func(other *virtual) bool { return other == v })
			p.servers = slices.Insert(p.servers, 0, v)
		case option == "ssl":
			p.secure = true
		case option == "proxy_protocol":
			p.proxied = true
		case !socketOptions.MatchString(option):
			n.note(l.at, "listen %s: sluice has no option %s", address, option)
		}
	}
}

// listenAddress returns the address that sluice has for one of listen.
func listenAddress(text string) string {
	if strings.HasPrefix(text, "unix:") {
		return text
	}
	host, number, err := net.SplitHostPort(text)
	if _, wrong := strconv.Atoi(text); wrong == nil {
		host, number = "", text
	} else if err != nil {
		host, number = strings.Trim(text, "[]"), "80"
	}
	if slices.Contains([]string{"*", "0.0.0.0", "::"}, host) {
		host = ""
	}
	return net.JoinHostPort(host, number)
}

// trust sets which proxies are believed who the client is: sluice has one list for all servers.
func (v *virtual) trust(n *nginx) {
	own, from, proxied := v.all("set_real_ip_from"), strings.ToLower(v.value("real_ip_header")), false
	var proxies []string
	for _, d := range own {
		proxies = append(proxies, d.word(1))
	}
	n.left -= len(proxies)
	for _, p := range v.ports {
		if proxied = proxied || p.proxied; p.proxied && from == "proxy_protocol" && len(own) > 0 {
			p.keys["proxy_protocol"] = tags.Keys{"from": proxies}
		}
	}
	switch {
	case proxied && from == "proxy_protocol" && len(own) > 0, !proxied && len(own) == 0:
	case !proxied && from == "x-forwarded-for" && own[0].in == n.http:
		n.set(own[0].at, proxies, "client", "trusted_proxies")
	default:
		v.blind = true
		n.note(v.at, "who the client is: sluice trusts proxies by X-Forwarded-For, the same for all servers: routes with allow or deny "+
			"deny every request; see client.trusted_proxies, and proxy_protocol of a listener")
	}
}

// open adds the listener of a port.
func (n *nginx) open(p *port) {
	why := ""
	if host, number, err := net.SplitHostPort(p.name); err == nil && host != "" && n.ports[":"+number] != nil {
		why = ":" + number + " has this address too"
	}
	if p.secure {
		p.encrypt(n)
		if p.keys.Get("tls", "certificates") == nil {
			why = cmp.Or(why, "no certificate is known: want tls.certificates or tls.acme")
		}
	}
	if p.proxied && p.keys["proxy_protocol"] == nil {
		p.keys["proxy_protocol"] = tags.Keys{"from": everybody}
		n.note(p.at, "listen %s: every connection begins with a PROXY header: name the proxies in proxy_protocol.from", p.name)
	}
	for _, v := range p.servers[1:] {
		for _, name := range v.names() {
			if f := hostOf(name); f.class > 0 {
				p.patterns = append(p.patterns, f)
			}
		}
	}
	if p.gone = why != ""; p.gone {
		n.note(p.at, "listen %s: %s; the listener is left out, with the routes that are only there", p.name, why)
		return
	}
	n.add("listeners", "", p.at, p.keys)
}

// encrypt sets the keys of TLS. Servers of a port have one authority for certificates of clients.
func (p *port) encrypt(n *nginx) {
	var pairs []tags.Keys
	known, authority := make(map[string]bool), p.servers[0].value("ssl_client_certificate")
	for _, v := range p.servers {
		certificates, keys := v.all("ssl_certificate"), v.all("ssl_certificate_key")
		n.left -= len(certificates)
		for i, c := range certificates {
			if file := c.word(1); strings.Contains(file, "$") || i >= len(keys) {
				n.note(c.at, "ssl_certificate: sluice needs the names of its file and of its key: left out")
			} else if !known[file] {
				pairs, known[file] = append(pairs, tags.Keys{"cert": file, "key": keys[i].word(1)}), true
			}
		}
		verify, ca, crl := v.value("ssl_verify_client"), v.value("ssl_client_certificate"), v.value("ssl_crl")
		authority = cmp.Or(authority, ca)
		switch v.secure = verify == "on"; {
		case verify == "" || verify == "off":
		case ca == "" || ca != authority || verify == "optional_no_ca" || crl != p.servers[0].value("ssl_crl"):
			v.shut = true
			n.note(v.at, "ssl_verify_client %s: sluice verifies with one ssl_client_certificate and ssl_crl for all of %s: the server denies every request", verify, p.name)
		default:
			p.keys.Set(ca, "tls", "client_ca")
			if p.keys.Set("optional", "tls", "client_auth"); crl != "" {
				p.keys.Set(crl, "tls", "client_crl")
			}
		}
	}
	if pairs != nil {
		p.keys.Set(pairs, "tls", "certificates")
	}
	if protocols := p.servers[0].all("ssl_protocols"); len(protocols) > 0 && !slices.Contains(protocols[0].words, "TLSv1.2") {
		p.keys.Set("1.3", "tls", "min_version")
	}
}

// faces returns a server under each of its names, at the listeners where it has them. Where it is
// the default one, it has all names that no other has.
func (v *virtual) faces(n *nginx) (all []face) {
	var first []string
	for _, p := range v.ports {
		if !p.gone && p.servers[0] == v {
			first = append(first, p.name)
		}
	}
	for _, d := range v.named["server_name"] {
		if len(first) > 0 && slices.ContainsFunc(d.words[1:], func(name string) bool { return hostOf(name).keys != nil }) {
			n.note(d.at, "server_name: it is the default server of %s: there its routes are for all hosts that no other server has", strings.Join(first, " "))
		}
	}
	for _, name := range v.names() {
		f := hostOf(name)
		f.server = v
		for _, p := range v.ports {
			switch {
			case p.gone || f.keys == nil || p.servers[0] == v && !p.others(f):
			case p.taken[name]:
				n.note(v.at, "server_name %s: another server at %s has it: left out", name, p.name)
			default:
				p.taken[name], f.listeners = true, append(f.listeners, p.name)
			}
		}
		if len(f.listeners) > 0 {
			all = append(all, f)
		}
	}
	if n.ordered = n.ordered || slices.ContainsFunc(all, func(f face) bool { return f.class > 1 }); len(first) > 0 {
		all = append(all, face{server: v, keys: tags.Keys{}, listeners: first, class: 4})
	}
	return all
}

// names returns the names of a server.
func (v *virtual) names() (all []string) {
	for _, d := range v.named["server_name"] {
		for _, name := range d.from(1).words {
			if name[:min(len(name), 1)] != "~" {
				name = strings.ToLower(name)
			}
			if strings.HasPrefix(name, ".") {
				all = append(all, name[1:], "*"+name)
			} else {
				all = append(all, name)
			}
		}
	}
	return all
}

// others reports whether another server than the default one may have hosts of a name of that.
func (p *port) others(f face) bool {
	own, _ := f.keys["host"].(string)
	return slices.ContainsFunc(p.patterns, func(other face) bool {
		expression, _ := other.keys["host_regexp"].(string)
		compiled, err := regexp.Compile(expression)
		host, _ := other.keys["host"].(string)
		return other.keys != nil && (f.class > 0 || err != nil || expression != "" && compiled.MatchString(own) || host != "" && strings.HasSuffix(own, host[1:]))
	})
}

// hostOf returns a face for a name. It has no keys if no request has that host.
func hostOf(name string) face {
	f := face{size: len(name)}
	switch expression, other := strings.CutPrefix(name, "~"); {
	case other:
		f.class, f.size = 3, 0
		if f.keys = (tags.Keys{"host_regexp": expression}); strings.ToLower(expression) != expression {
			f.keys["host_regexp"] = "(?i)" + expression
		}
	case name == "" || name == "_" || name == "*" || strings.Contains(name, "$"):
	case strings.HasSuffix(name, ".*"):
		f.class, f.keys = 2, tags.Keys{"host_regexp": "^" + regexp.QuoteMeta(name[:len(name)-1]) + ".+$"}
	case strings.HasPrefix(name, "*."):
		f.class, f.keys = 1, tags.Keys{"host": name}
	default:
		f.keys = tags.Keys{"host": name}
	}
	return f
}

// routes adds the routes of a server under a name. Where it has no location is 403, and no file.
func (n *nginx) routes(f face) {
	for _, s := range f.server.stops {
		if n.stop(f, nil, s); s.always {
			return
		}
	}
	rest := true
	for _, l := range f.server.places {
		n.left -= l.cost
		always := false
		for _, s := range l.stops {
			n.stop(f, l.match, s)
			always = s.always
		}
		if rest = rest && len(l.match) > 0; !always {
			n.route(f.listeners, condition{any: []tags.Keys{f.keys}}, decision{when: condition{any: []tags.Keys{l.match}}, at: l.at}, l.keys)
		}
	}
	if rest {
		n.route(f.listeners, met, decision{when: condition{any: []tags.Keys{f.keys}}, at: f.server.at}, nil)
	}
}
