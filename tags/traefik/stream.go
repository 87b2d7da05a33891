package traefik

import (
	"maps"
	"strconv"
	"strings"

	"sluice/tags"
)

// streamOptions are the keys of a router for TCP that are read.
var streamOptions = []string{"rule", "priority", "entrypoints", "middlewares", "service", "tls", "rulesyntax"}

// streamMiddlewares are the middlewares of routers for TCP, as middlewares.
var streamMiddlewares = map[string]func(e *effects, kind label, options *part){
	"inflightconn": ignored("want client.limits.connections_per_address in the file: ignored"),
	"ipallowlist":  (*effects).allowList,
	"ipwhitelist":  (*effects).allowList,
}

// streamRouter reads a router for TCP.
func (r *reader) streamRouter(router *part) {
	e := newEffects(r, router)
	e.of, e.kinds = r.parts.tcp, streamMiddlewares
	r.options(router, e, streamOptions)
	rule := router.find("rule")
	if rule == nil {
		e.refuse(router.labels[0], "a router for TCP needs the key rule, such as HostSNI(`*`)")
		return
	}
	if rule.unread {
		return
	}
	router.closeUnread(e)
	terms, err := parseRule(rule.value, streamMatchers)
	if err != nil {
		r.complainRule(*rule, err)
		return
	}
	protocol := r.streamProtocol(router, e)
	var matches []tags.Keys
	for _, t := range terms {
		keys, err := streamKeys(t, protocol != tags.ProtocolTCP)
		if err != nil {
			if !e.refused { // else it is about a rule that is never used
				r.complainRule(*rule, err)
			}
			continue
		}
		matches = append(matches, keys)
	}
	if len(matches) == 0 {
		return
	}
	r.streamService(router, e)
	r.middlewares(router, e)
	r.listeners(router, e)
	if e.refused {
		if !e.restricts() {
			return
		}
		e.closed = true
	}
	priority, set := priorityOf(router, *rule, e)
	for _, keys := range matches {
		route := tags.Route{
			Tags: tags.SortedTags(e.tags...), Keys: keys, Protocol: protocol, Priority: priority, Ranked: true, PrioritySet: set,
		}
		if len(keys) == 0 && !set {
			route.Priority = -1 // HostSNI(`*`) comes after all others, as in Traefik
		}
		maps.Copy(keys, e.keys.Clone())
		if e.closed {
			route = route.Deny()
		}
		r.reading.Routes = append(r.reading.Routes, route)
	}
}

// streamProtocol returns whether a router is for TLS, passed through or ended at the listener,
// or for connections without it.
func (r *reader) streamProtocol(router *part, e *effects) (protocol string) {
	secure, through := false, false
	if l := router.find("tls", "passthrough"); l != nil {
		var err error
		if through, err = strconv.ParseBool(l.value); err != nil {
			e.refuse(*l, "want true or false")
			return tags.ProtocolTCP
		}
	}
	for _, l := range router.labels {
		switch {
		case l.path[0] != "tls" || len(l.path) == 1 && isOff(l.value):
			continue
		case through && len(l.path) > 1 && l.path[1] != "passthrough":
			e.ignore(l, "with tls.passthrough the instances have the certificates: ignored")
		case !through && len(l.path) > 1 && l.path[1] == "options" && l.value != "default":
			e.close(l, "the options may ask clients for certificates, and the listener has the settings of TLS: want a listener in the file with them, and the router without tls.options")
		case !through && len(l.path) > 1 && l.path[1] != "passthrough":
			e.ignore(l, "the listener has the certificates: ignored")
		}
		secure = true
	}
	switch {
	case through:
		return tags.ProtocolTLS
	case secure:
		return tags.ProtocolEndedTLS
	}
	return tags.ProtocolTCP
}

// streamKeys returns the conditions of t as keys of a route.
func streamKeys(t term, secure bool) (tags.Keys, error) {
	for _, m := range t {
		switch {
		case m.name == "ClientIP":
			return nil, &ruleError{m.column, "sluice does not choose connections by ClientIP: want the middleware ipallowlist, which closes connections of other clients"}
		case m.name == "ALPN":
			return nil, &ruleError{m.column, "sluice does not choose connections by ALPN: want HostSNI"}
		case m.not:
			return nil, &ruleError{m.column, "sluice does not choose connections by what their server name is not: want " + m.name + " without !"}
		case !secure && m.values[0] != "*":
			return nil, &ruleError{m.column, "clients without TLS ask for no server name: want HostSNI(`*`), or tls=true"}
		}
	}
	if len(t) > 1 {
		return nil, &ruleError{t[1].column, "a client asks for one server name: want || between them"}
	}
	one := t[0]
	one.name = strings.Replace(one.name, "HostSNI", "Host", 1)
	keys, _, _, err := keysOf(term{one})
	return keys, err
}

// streamService reads the service of a router for TCP.
func (r *reader) streamService(router *part, e *effects) {
	settings, last, ok := r.settings(router, e, r.streamServiceOption, streamHealthcheck)
	if !ok {
		return
	}
	if r.reading.Service.Get("balance", "policy") == "sticky" {
		e.refuse(router.labels[0], "the service is sticky by cookie for its routers for HTTP, which connections for TCP do not have")
	}
	if settings["proxy_protocol"] != nil && settings.Get("upstream", "tls") != nil {
		e.refuse(router.labels[0], "proxyprotocol and server.tls: the instances would expect the header before the handshake: want one of them")
	}
	if e.refused || !r.reading.Set(settings, last) {
		e.refused = true
		return
	}
	if r.reading.Service["balance"] == nil { // the time to connect says little about load
		r.reading.Set(tags.Keys{"balance": tags.Keys{"policy": "least_conn"}}, last)
	}
}

// streamServiceOption reads one key of a service for TCP.
func (r *reader) streamServiceOption(key string, l label, settings tags.Keys, e *effects) {
	switch key {
	case "server.port":
		r.port(l, e)
	case "server.tls":
		if on, err := strconv.ParseBool(l.value); err != nil {
			e.refuse(l, "want true or false")
		} else if on {
			settings.Set(tags.Keys{}, "upstream", "tls")
		}
	case "proxyprotocol", "proxyprotocol.version":
		version := l.value
		if key == "proxyprotocol" && version == "true" {
			version = "2"
		}
		switch {
		case key == "proxyprotocol" && version == "false":
		case version != "1" && version != "2":
			e.refuse(l, "want 1 or 2")
		case len(r.parts.http["routers"]) > 0:
			e.refuse(l, "the instance has routers for HTTP too, whose requests share connections: want a service of its own in Consul for TCP")
		default:
			settings["proxy_protocol"] = "v" + version
		}
	case "server.weight":
		e.ignore(l, "an instance has its weights from Consul: ignored")
	case "serverstransport":
		e.ignore(l, "want upstream.tls of the service in the file for certificates, and timeouts.connect: ignored")
	case "terminationdelay":
		e.ignore(l, "sluice waits for both sides, up to timeouts.tunnel: ignored")
	default:
		if !strings.HasPrefix(key, "healthcheck") {
			e.ignore(l, "unknown key of a service: ignored")
		}
	}
}

// streamHealthcheck reads the active check, which opens a connection.
func streamHealthcheck(s *part, settings tags.Keys, e *effects) {
	check, on := tags.Keys{"type": "tcp"}, false
	for _, l := range s.labels {
		if len(l.path) < 2 || l.path[1] != "healthcheck" {
			continue
		}
		if len(l.path) == 2 {
			on = on || !isOff(l.value)
			continue
		}
		on = true
		switch l.path[2] {
		case "port":
			check["port"] = l.value
		case "interval", "timeout":
			check[l.path[2]] = duration(l.value)
		case "unhealthyinterval":
			check["failing_interval"] = duration(l.value)
		default:
			e.ignore(l, "sluice's checks of TCP only connect: ignored")
		}
	}
	if on {
		settings.Set(check, "health", "active")
	}
}
