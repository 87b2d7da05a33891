package imported

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// urlOf is what a location forwards to: scheme, host and path.
var urlOf = regexp.MustCompile(`^(?:(https?|grpcs?)://)?(unix:[^:$]+|[^/$?]+)(?::?(/.*|\$.*))?$`)

// forward sets where the requests of a location go. It returns false if that is not known.
func (n *nginx) forward(l *location, keys tags.Keys) bool {
	d := slices.Concat(l.named["proxy_pass"], l.named["grpc_pass"])[0]
	text := l.withSet(d.word(1))
	url := urlOf.FindStringSubmatch(text)
	if url == nil || url[1] == "" && d.word(0) == "proxy_pass" {
		n.note(d.at, "%s %s: sluice has no such variable: here is 403; write a route with its service", d.word(0), text)
		return false
	}
	scheme, host, path := url[1], url[2], url[3]
	name := n.service(n.http, cmp.Or(scheme, "grpc"), host, l.directive)
	if name == "" {
		n.note(d.at, "%s %s: no server of it carries over: here is 403", d.word(0), host)
		return false
	}
	keys["service"], keys["host_header"] = name, host
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || strings.HasPrefix(host, "unix:") {
		keys["host_header"] = "peer"
	}
	for _, c := range l.named["rewrite"] {
		to, known := variables(c.word(2), groups)
		if code, _ := redirectOf(c); code != "" {
			continue
		}
		if l.again = l.again || c.word(3) != "break"; !known || keys["rewrite"] != nil {
			n.note(c.at, "rewrite %s: sluice has no such variable, or one rewrite already: left out", c.word(1))
			continue
		}
		keys["rewrite"] = tags.Keys{"regexp": c.word(1), "to": strings.TrimSuffix(to, "?")}
	}
	return l.rewritten(n.draft, d, path, keys)
}

// rewritten sets what becomes of the path, of which proxy_pass replaces what the location matches.
func (l *location) rewritten(d *draft, c *directive, to string, keys tags.Keys) bool {
	computed := strings.Contains(c.word(1), "$")
	if computed {
		to = strings.NewReplacer("$is_args$args", "", "?$args", "", "?$query_string", "", "$request_uri", "", "$uri", "").Replace(to)
	}
	text, known := variables(to, groups)
	own := strings.TrimSuffix(l.path, "/")
	switch {
	case to == "":
	case keys["rewrite"] != nil:
		d.note(c.at, "%s: its path is left out, since the location has a rewrite", c.word(0))
	case !known || group.MatchString(to) && !l.regexp():
		d.note(c.at, "%s: sluice has no such variable: here is 403; see rewrite of a route", c.word(0))
		return false
	case l.regexp():
		keys["rewrite"] = tags.Keys{"regexp": l.path, "to": text}
	case l.kind == "=" || computed:
		keys["rewrite"] = tags.Keys{"regexp": "^.*$", "to": text}
	case strings.HasSuffix(l.path, "/") && strings.HasSuffix(to, "/"):
		if own != "" {
			keys["strip_prefix"] = own
		}
		if add := strings.TrimSuffix(to, "/"); add != "" {
			keys["add_prefix"] = add
		}
	default:
		keys["rewrite"] = tags.Keys{"regexp": "^" + regexp.QuoteMeta(l.path) + "(.*)$", "to": text + "$1"}
	}
	return true
}

// groups are the only variables of a path.
var groups = map[string]string{"1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "6", "7": "7", "8": "8", "9": "9"}

// withSet returns a text with the values that set gives to its variables.
func (d *directive) withSet(text string) string {
	return variableOf.ReplaceAllStringFunc(text, func(v string) string {
		name := "$" + strings.Trim(v, "${}")
		for in := d; in != nil; in = in.in {
			for _, c := range slices.Backward(in.named["set"]) {
				if c.word(1) == name && !strings.Contains(c.word(2), "$") {
					return c.word(2)
				}
			}
		}
		return v
	})
}

// service adds the service for an upstream of a block or for an address, unless it is there, and
// returns its name, or "" if it has no server that carries over. d says how it is asked.
func (n *nginx) service(block *directive, scheme, host string, d *directive) string {
	verify, ca, server := d.value("proxy_ssl_verify"), d.value("proxy_ssl_trusted_certificate"), d.value("proxy_ssl_name")
	key := strings.Join([]string{scheme, host, verify, ca, server}, " ")
	if name, known := n.services[key]; known {
		return name
	}
	name, at, keys := strings.Trim(strings.ReplaceAll(strings.TrimPrefix(host, "unix:"), ":", "-"), "/"), d.at, make(tags.Keys)
	for base, i := name, 2; n.has("services", name); i++ {
		name = base + "-" + strconv.Itoa(i)
	}
	upstreams := block.named["upstream"]
	if i := slices.IndexFunc(upstreams, func(up *directive) bool { return up.word(1) == host }); i >= 0 {
		at, upstreams[i].used = upstreams[i].at, true
		upstreams[i].upstream(n.draft, keys)
	} else if host != "" && !strings.Contains(host, "$") {
		port := map[bool]string{true: "443", false: "80"}[scheme == "https" || scheme == "grpcs"]
		line{[]string{"server", host}, d.at}.peer(n.draft, port, keys)
	}
	if scheme == "tcp" {
		d.connections(keys)
	}
	if scheme == "https" || scheme == "grpcs" {
		secure := make(tags.Keys)
		if verify != "on" {
			secure["skip_verify"] = "true"
		} else if ca != "" {
			secure["ca"] = ca
		}
		if server != "" && !strings.Contains(server, "$") {
			secure["server_name"] = server
		}
		keys.Set(secure, "upstream", "tls")
	}
	if protocol := map[string]string{"grpc": "h2c", "grpcs": "h2"}[scheme]; protocol != "" {
		keys.Set(protocol, "upstream", "protocol")
	}
	if keys["peers"] == nil && keys["consul"] == nil {
		name = ""
	} else {
		n.add("services", name, at, keys)
	}
	n.services[key] = name
	return name
}

// upstream sets the keys of a service.
func (up *directive) upstream(d *draft, keys tags.Keys) {
	balances := map[string]string{"least_conn": "least_conn", "random": "random", "ip_hash": "hash", "hash": "hash"}
	for _, c := range up.block {
		switch first := c.word(0); {
		case first == "server":
			c.line.peer(d, "80", keys)
		case first == "hash":
			by := map[string]string{"$request_uri": "path", "$uri": "path", "$remote_addr": "client_address", "$binary_remote_addr": "client_address"}[c.word(1)]
			kind, of, _ := strings.Cut(c.word(1), "_")
			if kind = map[string]string{"$http": "header", "$cookie": "cookie", "$arg": "query"}[kind]; kind != "" {
				by = kind + " " + of
			}
			if kind == "header" {
				by = strings.ReplaceAll(by, "_", "-")
			}
			if by == "" {
				d.note(c.at, "hash %s: sluice has no such key: left out; see balance.hash.keys", c.word(1))
				continue
			}
			keys.Set([]string{by}, "balance", "hash", "keys")
			fallthrough
		case balances[first] != "":
			keys.Set(balances[first], "balance", "policy")
		case first == "keepalive_timeout":
			keys.Set(timeOf(c.word(1)), "keepalive", "idle")
		case first == "keepalive_requests":
			keys.Set(c.word(1), "keepalive", "max_requests")
		case first != "keepalive" && first != "zone":
			d.note(c.at, "%s: a service has no such setting", first)
		}
	}
}

// peer adds a server of an upstream.
func (l line) peer(d *draft, port string, keys tags.Keys) {
	address, options := l.word(1), make(map[string]string)
	for _, word := range l.from(2).words {
		name, value, _ := strings.Cut(word, "=")
		options[name] = value
	}
	_, backup := options["backup"]
	_, down := options["down"]
	peers, _ := keys["peers"].([]string)
	known := inConsul(address)
	switch {
	case backup || down:
		d.note(l.at, "server %s: a backup, or down: left out; see balance.tiers, and sluice drain", address)
		return
	case keys["consul"] != nil, known != "" && peers != nil:
		d.note(l.at, "server %s: a service is from Consul, or has fixed peers: left out", address)
		return
	case known != "":
		keys["consul"] = tags.Keys{"service": known}
		d.note(l.at, "server %s: %s", address, notByDNS)
	default:
		if _, _, err := net.SplitHostPort(address); err != nil && !strings.HasPrefix(address, "unix:") {
			address = net.JoinHostPort(strings.Trim(address, "[]"), port)
		}
		if weight := options["weight"]; weight != "" {
			address += " weight=" + weight
		}
		keys["peers"] = append(peers, address)
	}
	paths := map[string][]string{
		"max_fails": {"health", "passive", "consecutive_failures"}, "fail_timeout": {"health", "passive", "ejection"},
		"max_conns": {"limits", "connections_per_peer"}, "slow_start": {"health", "slow_start"}, "weight": nil, "resolve": nil, "service": nil,
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		path, has := paths[name]
		value := options[name]
		if name == "fail_timeout" || name == "slow_start" {
			value = timeOf(value)
		}
		if !has || path != nil && keys.Get(path...) != nil && keys.Get(path...) != value {
			d.note(l.at, "server %s: %s: sluice has no such option, or one for all peers: left out", l.word(1), name)
		} else if path != nil {
			keys.Set(value, path...)
		}
	}
}
