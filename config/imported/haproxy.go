package imported

import (
	"cmp"
	"net"
	"regexp"
	"slices"
	"strings"

	"sluice/tags"
)

// haproxy is a configuration of HAProxy.
type haproxy struct {
	*draft
	proxies []*proxy
}

// proxy is a frontend, a backend, or both.
type proxy struct {
	kind, name string
	tcp        bool
	listeners  []*part
	acls       map[string][][]string // the tests of each
	stops      []decision            // rules that deny or redirect, in the order of the file
	backends   []decision            // use_backend, and then default_backend
	service    part
	options    []string // of all servers
	checked    bool     // a server has active checks
}

func readHAProxy(d *draft, files []File) error {
	h := &haproxy{draft: d}
	for _, f := range files {
		if strings.Count(f.Text, "\n") > maxValues {
			return errTooLarge
		}
		h.read(f)
	}
	for _, p := range h.proxies {
		if health, _ := p.service.keys["health"].(tags.Keys); !p.checked {
			delete(health, "active")
		}
		if p.serves() {
			d.add("services", p.name, p.service.at, p.service.keys)
		}
	}
	for _, p := range h.proxies {
		h.listen(p)
	}
	return nil
}

func (p *proxy) serves() bool {
	return p.service.keys["peers"] != nil || p.service.keys["consul"] != nil
}

// read reads a file. A proxy begins with the lines of the last section defaults.
func (h *haproxy) read(f File) {
	var defaults []line
	var p *proxy
	kind, number := "", 0
	for text := range strings.Lines(f.Text) {
		number++
		l := line{split(text), Place{f.Name, number}}
		switch first := l.word(0); first {
		case "":
		case "global", "resolvers", "userlist", "peers", "cache", "program", "ring", "mailers", "http-errors":
			kind, p = first, nil
		case "defaults":
			kind, p, defaults = first, nil, nil
		case "frontend", "backend", "listen":
			p = &proxy{kind: first, name: cmp.Or(l.word(1), "unnamed"), acls: make(map[string][][]string), service: part{keys: make(tags.Keys), at: l.at}}
			h.proxies = append(h.proxies, p)
			if len(l.words) > 2 {
				h.note(l.at, "%s: it has the last section defaults, whichever it names", l.word(1))
			}
			for _, inherited := range defaults {
				h.directive(p, inherited)
			}
		default:
			if p != nil {
				h.directive(p, l)
			} else if kind == "defaults" {
				defaults = append(defaults, l)
			} else {
				h.note(l.at, "%s %s: sluice has no such setting", kind, first)
			}
		}
	}
}

// wordOf finds a word, with its quotes, or a comment. quoting is what it is without.
var (
	wordOf  = regexp.MustCompile(`(?:[^\s"'\\#]|\\.|"(?:[^"\\]|\\.)*"?|'[^']*'?)+|#.*`)
	quoting = regexp.MustCompile(`\\(.)|["']`)
)

func split(text string) (words []string) {
	for _, word := range wordOf.FindAllString(text, -1) {
		if word[0] == '#' {
			break
		}
		words = append(words, quoting.ReplaceAllString(word, "$1"))
	}
	return words
}

// durations are the keys of directives: of the service, or below client.
var durations = map[string][]string{
	"timeout connect": {"timeouts.connect"}, "timeout server": {"timeouts.response_header", "timeouts.idle"}, "timeout tunnel": {"timeouts.tunnel"},
	"timeout queue": {"limits.connection_wait"}, "timeout check": {"health.active.timeout"}, "timeout client": {"client.timeouts.body", "client.timeouts.write"},
	"timeout http-request": {"client.timeouts.head"}, "timeout http-keep-alive": {"client.timeouts.idle"},
}

// asSluice are options of what sluice does by itself, and policies the algorithms of balance.
var (
	asSluice = []string{"httplog", "tcplog", "dontlognull", "forwardfor", "http-keep-alive", "redispatch", "log-health-checks"}
	policies = map[string]string{"roundrobin": "round_robin", "static-rr": "round_robin", "leastconn": "least_conn", "random": "random", "source": "hash"}
)

// directive reads a line of a proxy.
func (h *haproxy) directive(p *proxy, l line) {
	name, service := l.word(1), p.service.keys
	keys := durations[l.word(0)+" "+name]
	for _, key := range keys {
		if path := strings.Split(key, "."); path[0] != "client" {
			service.Set(withUnit(l.word(2), "ms"), path...)
		} else if p.kind != "backend" {
			h.set(l.at, withUnit(l.word(2), "ms"), path...)
		}
	}
	switch first := l.word(0); {
	case keys != nil:
	case first == "mode":
		p.tcp = name == "tcp"
	case first == "bind":
		h.bind(p, l)
	case first == "acl":
		p.acls[name] = append(p.acls[name], l.from(2).words)
	case first == "use_backend":
		p.backends = append(p.backends, decision{when: p.condition(l.from(2)), backend: name, at: l.at})
	case first == "default_backend":
		p.backends = append(p.backends, decision{when: met, backend: name, at: l.at})
	case first == "http-request", first == "http-response":
		h.rule(p, l.from(1))
	case first == "tcp-request", first == "tcp-response":
		h.rule(p, l.from(2))
	case first == "redirect":
		h.rule(p, l)
	case first == "server", first == "server-template":
		h.server(p, l)
	case first == "default-server":
		p.options = append(p.options, l.from(1).words...)
	case first == "balance" && policies[name] != "":
		service["balance"] = tags.Keys{"policy": policies[name]}
	case first == "option" && name == "httpchk" && len(l.words) < 4:
		service.Set(cmp.Or(l.word(2), "/"), "health", "active", "path")
	case first == "option" && name == "httpchk":
		service.Set(l.word(2), "health", "active", "method")
		service.Set(l.word(3), "health", "active", "path")
	case first == "option" && slices.Contains(asSluice, name):
	default:
		h.note(l.at, "%s %s: sluice has no such setting", first, name)
	}
}

// bind adds listeners.
func (h *haproxy) bind(p *proxy, l line) {
	keys, why := make(tags.Keys), ""
	for i := 2; i < len(l.words); i += 2 {
		option, value := l.words[i], l.word(i+1)
		key := map[string]string{"ca-file": "client_ca", "crl-file": "client_crl", "verify": "client_auth", "ssl-min-ver": "min_version"}[option]
		switch {
		case slices.Contains([]string{"ssl", "v4v6", "v6only", "tfo", "defer-accept"}, option):
			i-- // it has no value
		case option == "crt":
			known, _ := keys.Get("tls", "certificates").([]tags.Keys)
			keys.Set(append(known, tags.Keys{"cert": value, "key": value}), "tls", "certificates")
		case key != "":
			keys.Set(strings.TrimPrefix(value, "TLSv"), "tls", key)
		case !slices.Contains([]string{"alpn", "name", "maxconn", "backlog", "id"}, option):
			why = "sluice has no option " + option
		}
	}
	if slices.Contains(l.words, "ssl") && keys.Get("tls", "certificates") == nil {
		why = cmp.Or(why, "no certificate is known")
	}
	for address := range strings.SplitSeq(l.word(1), ",") {
		if why != "" {
			h.note(l.at, "bind %s: %s: the listener is left out", address, why)
			continue
		}
		one := keys.Clone()
		one["name"], one["address"] = p.name+" "+address, strings.TrimPrefix(address, "*")
		p.listeners = append(p.listeners, &part{keys: one, at: l.at})
	}
}

// listen adds the listeners of a proxy, and its routes.
func (h *haproxy) listen(p *proxy) {
	if p.serves() {
		p.backends = append(p.backends, decision{when: met, backend: p.name, at: p.service.at})
	}
	var names []string
	for _, listener := range p.listeners {
		if p.tcp && (len(p.stops) > 0 || len(p.backends) != 1) {
			h.note(listener.at, "%s: rules for connections: the listener is left out; see sni of a listener", p.name)
			continue
		}
		if p.tcp {
			listener.keys["protocol"], listener.keys["service"] = "tcp", p.backends[0].backend
		}
		h.add("listeners", "", listener.at, listener.keys)
		names = append(names, listener.keys["name"].(string))
	}
	if p.tcp || len(names) == 0 {
		return
	}
	for _, s := range p.stops {
		h.route(names, met, s, s.keys)
	}
	for _, b := range p.backends {
		i := slices.IndexFunc(h.proxies, func(of *proxy) bool { return of.name == b.backend && of.kind != "frontend" })
		if i < 0 || !h.has("services", b.backend) {
			h.note(b.at, "no backend %q has servers that carry over: its requests are denied", b.backend)
			h.route(names, met, b, nil)
			continue
		}
		if of := h.proxies[i]; of != p {
			for _, s := range of.stops {
				h.route(names, b.when, s, s.keys)
			}
			if b.when.wider && len(of.stops) > 0 {
				h.route(names, met, b, nil)
			}
		}
		h.route(names, met, b, tags.Keys{"service": b.backend})
	}
}

// harmless are rules that restrict nobody, and have no counterpart here.
var harmless = regexp.MustCompile(`^(allow|accept|capture|connection|early-hint|expect-proxy|inspect-delay|normalize-uri|(add|del|set)-header|replace-[a-z]+|` +
	`set-(dst|log-level|mark|method|nice|path|pathq|query|src|status|timeout|tos|uri|var)|track-sc[0-9]|unset-var|wait-for-[a-z]+)\b`)

// rule reads a rule of requests. One that nobody knows may deny.
func (h *haproxy) rule(p *proxy, l line) {
	end := slices.IndexFunc(l.words, func(word string) bool { return word == "if" || word == "unless" })
	if end < 0 {
		end = len(l.words)
	}
	stop := decision{when: p.condition(l.from(end)), at: l.at}
	to := map[string]string{"scheme": l.word(2) + "://$host$path", "prefix": l.word(2) + "$path", "location": l.word(2)}[l.word(1)]
	switch {
	case harmless.MatchString(l.word(0)):
		h.note(l.at, "%s %s: does not carry over: see request_headers, rewrite and allow of a route", l.word(0), l.word(1))
		return
	case l.word(0) == "redirect" && to != "" && !strings.ContainsAny(l.word(2), "%$"):
		stop.keys = tags.Keys{"redirect": tags.Keys{"to": to, "code": "302"}}
		if i := slices.Index(l.words[:end], "code"); i > 0 {
			stop.keys.Set(l.word(i+1), "redirect", "code")
		}
	case l.word(0) != "deny":
		h.note(l.at, "%s: here 403 for all that meet its condition: see allow, basic_auth and rate_limit of a route", l.word(0))
	}
	p.stops = append(p.stops, stop)
}

// serverOptions are the keys of options of servers; "": sluice needs none.
var serverOptions = map[string]string{
	"inter": "health.active.interval", "fall": "health.active.unhealthy_threshold", "rise": "health.active.healthy_threshold", "port": "health.active.port",
	"maxconn": "limits.connections_per_peer", "ca-file": "upstream.tls.ca", "verifyhost": "upstream.tls.server_name",
	"weight": "", "cookie": "", "id": "", "resolvers": "", "init-addr": "", "resolve-prefer": "",
}

// server adds a server, or the servers of a template.
func (h *haproxy) server(p *proxy, l line) {
	first := map[string]int{"server": 2, "server-template": 3}[l.word(0)]
	address, options, service := l.word(first), line{slices.Concat(l.from(first+1).words, p.options), l.at}, p.service.keys
	_, _, err := net.SplitHostPort(address)
	if slices.Contains(options.words, "backup") || slices.Contains(options.words, "disabled") || err != nil && inConsul(address) == "" {
		h.note(l.at, "server %s: a backup, disabled or without a port: left out; see balance.tiers, and sluice drain", l.word(1))
		return
	}
	weight := ""
	if i := slices.Index(options.words, "weight"); i >= 0 {
		weight = options.word(i + 1)
	}
	l.peer(h.draft, address, weight, service)
	for i := 0; i < len(options.words); i++ {
		option, value := options.words[i], options.word(i+1)
		key, known := serverOptions[option]
		switch {
		case option == "check":
			if p.checked = true; service.Get("health", "active", "path") == nil {
				service.Set("tcp", "health", "active", "type")
			}
		case option == "ssl":
			merge(service, tags.Keys{"upstream": tags.Keys{"tls": tags.Keys{}}})
		case option == "verify":
			if i++; value == "none" {
				service.Set("true", "upstream", "tls", "skip_verify")
			}
		case !known:
			h.note(l.at, "server %s: sluice has no option %s", l.word(1), option)
		case key != "":
			if option == "inter" {
				value = withUnit(value, "ms")
			}
			service.Set(value, strings.Split(key, ".")...)
			fallthrough
		default:
			i++
		}
	}
}
