package imported

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// port is an address to listen on. It becomes a listener.
type port struct {
	address string
	at      Place
	servers []*directive // the default one is first
	keys    tags.Keys
	secure  bool
}

// face is a server under one of its names at a listener.
type face struct {
	name    string
	class   int
	host    tags.Keys // of its routes
	answers []answer  // of its server
}

// Classes of names, in the order in which nginx chooses.
const (
	exact      = iota
	beginsAny  // *.NAME
	endsAny    // NAME.*
	expression // ~EXPRESSION
	nameless   // a name that no host has: requests for other hosts, if it is the default server
)

// serve adds the listeners and the routes.
func (n *nginx) serve() error {
	for _, d := range n.http.named["server"] {
		listens := d.named["listen"]
		if listens == nil {
			listens = []*directive{{line: line{[]string{"listen", "80"}, d.at}}}
		}
		for _, l := range listens {
			n.listen(d, l)
		}
	}
	defaults := tags.Keys{"body_limit": "1MiB"} // as in nginx
	n.limits(n.http, defaults)
	n.set(n.http.at, defaults, "defaults", "route")
	for _, p := range sorted(n.ports) {
		if n.open(p); n.left < 0 {
			return errTooLarge
		}
	}
	// Without expressions sluice chooses as nginx does.
	if !slices.ContainsFunc(n.parts["routes"], func(r *part) bool { return r.keys["match"] == "regexp" || r.keys["host_regexp"] != nil }) {
		for _, r := range n.parts["routes"] {
			delete(r.keys, "priority")
		}
	}
	for _, up := range n.http.named["upstream"] {
		if !n.has("services", up.word(1)) {
			n.service("http", up.word(1), up)
		}
	}
	return nil
}

// listen adds a server to a port.
func (n *nginx) listen(server, l *directive) {
	address := listenAddress(l.word(1))
	p := n.ports[address]
	if p == nil {
		p = &port{address: address, at: l.at, keys: tags.Keys{"name": address, "address": address}}
		n.ports[address] = p
	}
	if !slices.Contains(p.servers, server) {
		p.servers = append(p.servers, server)
	}
	for _, option := range l.from(2).words {
		switch {
		case option == "default_server" || option == "default":
			p.servers = slices.DeleteFunc(p.servers, func(other *directive) bool { return other == server })
			p.servers = slices.Insert(p.servers, 0, server)
		case option == "ssl":
			p.secure = true
		case option == "quic":
			p.secure, p.keys["http3"] = true, "true"
		case option == "proxy_protocol":
			n.blind = true
			p.keys["proxy_protocol"] = tags.Keys{"from": everybody}
			n.note(l.at, "listen %s: name the proxies in proxy_protocol.from: until then routes with allow or deny deny every request", address)
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

// open adds the listener of a port, and its routes in the order in which nginx chooses.
func (n *nginx) open(p *port) {
	why := ""
	if host, number, err := net.SplitHostPort(p.address); err == nil && host != "" && n.ports[":"+number] != nil {
		why = ":" + number + " has this address too"
	} else if p.secure && !p.encrypt(n.draft) {
		why = "no certificate is known: want tls.certificates or tls.acme"
	}
	if why != "" {
		n.note(p.at, "listen %s: %s; the listener is left out, with the routes that are only there", p.address, why)
		return
	}
	n.add("listeners", "", p.at, p.keys)
	var faces []face
	taken := make(map[string]bool)
	for i, server := range p.servers {
		answers := n.answers(server)
		for _, name := range serverNames(server) {
			switch f := faceOf(name); {
			case f.class == nameless && i > 0: // it gets no request
			case taken[f.name]:
				n.note(server.at, "server_name %s: another server at %s has it: left out", name, p.address)
			default:
				taken[f.name], f.answers = true, answers
				faces = append(faces, f)
			}
		}
	}
	if !taken[""] {
		n.note(p.servers[0].at, "server: the default one of %s: other hosts than it names get 404 here; see routes without host", p.address)
	}
	slices.SortStableFunc(faces, func(a, b face) int {
		if a.class != b.class || a.class == expression {
			return a.class - b.class
		}
		return len(b.name) - len(a.name)
	})
	for _, f := range faces {
		for _, a := range f.answers {
			match := a.match.Clone()
			if !merge(match, f.host) { // it is for another host
				continue
			}
			if n.left -= len(match.String()) + len(a.keys.String()) + 100; n.left < 0 {
				return
			}
			n.first([]string{p.address}, match, a.keys, a.at)
			if len(match) == len(f.host) { // nothing gets further
				break
			}
		}
	}
}

// encrypt sets the keys of TLS. It returns false if no certificate is known.
func (p *port) encrypt(d *draft) bool {
	var pairs []tags.Keys
	known := make(map[string]bool)
	for _, server := range p.servers {
		certificates, keys := server.all("ssl_certificate"), server.all("ssl_certificate_key")
		for i, c := range certificates {
			if file := c.word(1); strings.Contains(file, "$") || i >= len(keys) {
				d.note(c.at, "ssl_certificate: sluice needs the names of its file and of its key: left out")
			} else if !known[file] {
				pairs, known[file] = append(pairs, tags.Keys{"cert": file, "key": keys[i].word(1)}), true
			}
		}
	}
	p.keys.Set(pairs, "tls", "certificates")
	if protocols := p.servers[0].all("ssl_protocols"); len(protocols) > 0 && !slices.Contains(protocols[0].words, "TLSv1.2") {
		p.keys.Set("1.3", "tls", "min_version")
	}
	return pairs != nil
}

// serverNames returns the names of a server, of which one with a dot at its begin is two.
func serverNames(server *directive) (all []string) {
	for _, c := range server.named["server_name"] {
		for _, name := range c.from(1).words {
			if base, both := strings.CutPrefix(name, "."); both {
				all, name = append(all, base), "*"+name
			}
			all = append(all, name)
		}
	}
	if all == nil {
		return []string{""}
	}
	return all
}

// faceOf returns a face with a name, which is in lower case.
func faceOf(name string) face {
	by, other := strings.CutPrefix(name, "~")
	name = strings.ToLower(name)
	switch {
	case other && name == "~"+by:
		return face{name: name, class: expression, host: tags.Keys{"host_regexp": by}}
	case other:
		return face{name: name, class: expression, host: tags.Keys{"host_regexp": "(?i)" + by}}
	case name == "" || name == "_" || name == "*" || strings.Contains(name, "$"):
		return face{class: nameless}
	case strings.HasSuffix(name, ".*"):
		return face{name: name, class: endsAny, host: tags.Keys{"host_regexp": "^" + regexp.QuoteMeta(name[:len(name)-1]) + ".+$"}}
	case strings.HasPrefix(name, "*."):
		return face{name: name, class: beginsAny, host: tags.Keys{"host": name}}
	}
	return face{name: name, host: tags.Keys{"host": name}}
}
