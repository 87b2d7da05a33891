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
var urlOf = regexp.MustCompile(`^(https?)://(unix:[^:$]+|[^/$?]+)(?::?(/.*|\$.*))?$`)

// forward sets where the requests of a location go. It returns false if that is not known.
func (n *nginx) forward(l *location, keys tags.Keys) bool {
	d := l.named["proxy_pass"][0]
	url := urlOf.FindStringSubmatch(d.word(1))
	if url == nil {
		n.note(d.at, "proxy_pass %s: sluice has no such variable: here is 403; write a route with its service", d.word(1))
		return false
	}
	scheme, host, path := url[1], url[2], url[3]
	name := n.service(scheme, host, l.directive)
	if name == "" {
		n.note(d.at, "proxy_pass %s: no server of it carries over: here is 403", host)
		return false
	}
	keys["service"], keys["host_header"] = name, host
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || strings.HasPrefix(host, "unix:") {
		keys["host_header"] = "peer"
	}
	for _, c := range l.named["rewrite"] {
		if !c.breaks(l.directive) {
			continue // one of its answers
		}
		if to, known := variables(c.word(2), groups); !known || keys["rewrite"] != nil {
			n.note(c.at, "rewrite %s: sluice has no such variable, or one rewrite already: left out", c.word(1))
		} else {
			keys["rewrite"] = tags.Keys{"regexp": c.word(1), "to": strings.TrimSuffix(to, "?")}
		}
	}
	return l.passed(n.draft, d, path, keys)
}

// passed sets what becomes of the path, of which proxy_pass replaces what the location matches.
func (l *location) passed(d *draft, c *directive, to string, keys tags.Keys) bool {
	computed := strings.Contains(c.word(1), "$")
	if computed {
		to = strings.NewReplacer("$request_uri", "", "$uri", "").Replace(query.Replace(to))
	}
	text, known := variables(to, groups)
	own := strings.TrimSuffix(l.path, "/")
	switch {
	case to == "":
	case keys["rewrite"] != nil:
		d.note(c.at, "proxy_pass: its path is left out, since the location has a rewrite")
	case !known || text != to && !l.regexp():
		d.note(c.at, "proxy_pass: sluice has no such variable: here is 403; see rewrite of a route")
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

// service adds the service for an upstream or an address, unless it is there, and returns its name,
// or "" if it has no server that carries over. d says how it is asked.
func (n *nginx) service(scheme, host string, d *directive) string {
	key := scheme + " " + host + " " + d.value("proxy_ssl_verify")
	if name, known := n.services[key]; known {
		return name
	}
	name, at, keys := strings.Trim(strings.ReplaceAll(strings.TrimPrefix(host, "unix:"), ":", "-"), "/"), d.at, make(tags.Keys)
	for base, i := name, 2; n.has("services", name); i++ {
		name = base + "-" + strconv.Itoa(i)
	}
	upstreams := n.http.named["upstream"]
	if i := slices.IndexFunc(upstreams, func(up *directive) bool { return up.word(1) == host }); i >= 0 {
		at = upstreams[i].at
		n.upstream(upstreams[i], keys)
	} else {
		line{[]string{"server", host}, d.at}.server(n.draft, map[string]string{"https": "443"}[scheme], keys)
	}
	if scheme == "https" {
		keys.Set(tags.Keys{}, "upstream", "tls")
		if d.value("proxy_ssl_verify") != "on" {
			keys.Set("true", "upstream", "tls", "skip_verify")
		}
	}
	if keys["peers"] == nil && keys["consul"] == nil {
		name = ""
	} else {
		n.add("services", name, at, keys)
	}
	n.services[key] = name
	return name
}

// policiesOf are the policies of upstreams.
var policiesOf = map[string]string{"least_conn": "least_conn", "random": "random", "ip_hash": "hash"}

// upstream sets the keys of a service.
func (n *nginx) upstream(up *directive, keys tags.Keys) {
	for _, c := range up.block {
		switch first := c.word(0); {
		case first == "server":
			c.server(n.draft, "", keys)
		case policiesOf[first] != "":
			keys.Set(policiesOf[first], "balance", "policy")
		case first != "keepalive" && first != "zone":
			n.leftOut(c)
		}
	}
}

// optionsOfServers are the keys for options of servers; "": sluice needs none.
var optionsOfServers = map[string]string{
	"max_fails": "health.passive.consecutive_failures", "fail_timeout": "health.passive.ejection",
	"max_conns": "limits.connections_per_peer", "slow_start": "health.slow_start", "weight": "", "resolve": "", "service": "",
}

// server adds a server of an upstream. port is its port if it has none; "": 80.
func (l line) server(d *draft, port string, keys tags.Keys) {
	address, options := l.word(1), l.from(2).options()
	if slices.Contains(l.words, "backup") || slices.Contains(l.words, "down") {
		d.note(l.at, "server %s: a backup, or down: left out; see balance.tiers, and sluice drain", address)
		return
	}
	if _, _, err := net.SplitHostPort(address); err != nil && inConsul(address) == "" && !strings.HasPrefix(address, "unix:") {
		address = net.JoinHostPort(strings.Trim(address, "[]"), cmp.Or(port, "80"))
	}
	l.peer(d, address, options["weight"], keys)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		key, has := optionsOfServers[name]
		path, value := strings.Split(key, "."), options[name]
		if name == "fail_timeout" || name == "slow_start" {
			value = timeOf(value)
		}
		if old := keys.Get(path...); !has || old != nil && old != value {
			d.note(l.at, "server %s: %s: sluice has no such option, or one for all peers: left out", l.word(1), name)
		} else if key != "" {
			keys.Set(value, path...)
		}
	}
}
