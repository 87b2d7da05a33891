package traefik

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// service reads the service of a router for HTTP.
func (r *reader) service(router *part, e *effects) {
	settings, tag, ok := r.settings(router, e, r.serviceOption, healthcheck, sticky)
	if ok && !r.reading.Set(settings, tag) {
		e.refused = true
	}
}

// settings returns what option reads of each key of a router's service, and what others read of all
// its keys, with the tag that asks for it. ok is false if the router may not have the service.
func (r *reader) settings(router *part, e *effects, option func(key string, l label, settings tags.Keys, e *effects),
	others ...func(s *part, settings tags.Keys, e *effects)) (settings tags.Keys, tag string, ok bool) {
	s, ok := r.serviceOf(router, e)
	settings, tag = tags.Keys{"upstream": tags.Keys{}}, r.labels[0].tag
	if !ok || s == nil {
		return settings, tag, ok
	}
	for _, l := range s.labels {
		if l.path[0] != "loadbalancer" || len(l.path) < 2 {
			e.refuse(l, "want loadbalancer: other kinds of services are not in tags")
			continue
		}
		option(strings.Join(l.path[1:], "."), l, settings, e)
	}
	for _, read := range others {
		read(s, settings, e)
	}
	return settings, s.labels[0].tag, true
}

// serviceOf returns the service of a router; nil: it has no options. It returns false if the
// router may not have the service.
func (r *reader) serviceOf(router *part, e *effects) (s *part, ok bool) {
	services := e.of["services"]
	switch l := router.find("service"); {
	case l != nil:
		name := strings.ToLower(l.value)
		name, at, elsewhere := strings.Cut(name, "@")
		if s = services[name]; elsewhere && at != "consulcatalog" || s == nil && name != strings.ToLower(r.instance.Service) {
			e.refuse(*l, "a tag reaches no other service: want one that tags of the instance define, or "+r.instance.Service)
			return nil, false
		}
	case len(services) > 1:
		names := strings.Join(slices.Sorted(maps.Keys(services)), ", ")
		from := label{tag: r.labels[0].tag}
		if len(router.labels) > 0 {
			from = router.labels[0]
		}
		e.refuse(from, "the instance has several services: want the key service of the router with one of "+names)
		return nil, false
	default:
		for _, s = range services {
		}
	}
	if s != nil {
		e.tags = append(e.tags, s.tags()...)
		if slices.ContainsFunc(s.labels, func(l label) bool { return l.unread }) {
			e.refused = true
			return nil, false
		}
	}
	return s, true
}

// NamesPort reports whether what a tag asks for depends on the port of the instance.
func NamesPort(tag string) bool {
	key, _, _ := strings.Cut(tag, "=")
	return strings.HasSuffix(strings.ToLower(strings.TrimSpace(key)), ".server.port")
}

// port refuses a port that is not the instance's.
func (r *reader) port(l label, e *effects) {
	if r.instance.Port != 0 && l.value != strconv.Itoa(r.instance.Port) {
		e.refuse(l, "the instance is registered with port "+strconv.Itoa(r.instance.Port)+": want a service of its own in Consul for another port")
	}
}

// serviceOption reads one key of a service that needs no other one.
func (r *reader) serviceOption(key string, l label, settings tags.Keys, e *effects) {
	switch key {
	case "server.port":
		r.port(l, e)
	case "server.scheme":
		switch l.value {
		case "http":
		case "https":
			settings.Set(tags.Keys{}, "upstream", "tls")
		case "h2c":
			settings.Set("h2c", "upstream", "protocol")
		default:
			e.refuse(l, "want http, https or h2c")
		}
	case "server.weight":
		e.ignore(l, "an instance has its weights from Consul: ignored")
	case "passhostheader":
		if pass, err := strconv.ParseBool(l.value); err != nil {
			e.refuse(l, "want true or false")
		} else if !pass {
			e.keys["host_header"] = "peer"
		}
	case "responseforwarding.flushinterval":
	case "strategy":
		policy, ok := map[string]string{"wrr": "round_robin", "p2c": "least_conn", "leasttime": "ewma"}[strings.ToLower(l.value)]
		if !ok {
			e.ignore(l, "want wrr, p2c or leasttime: ignored")
			return
		}
		settings.Set(policy, "balance", "policy")
	default:
		if !strings.HasPrefix(key, "healthcheck.") && key != "healthcheck" && !strings.HasPrefix(key, "sticky.") {
			e.ignore(l, "unknown key of a service: ignored")
		}
	}
}

// healthcheck reads the active check.
func healthcheck(s *part, settings tags.Keys, e *effects) {
	check := make(tags.Keys)
	for _, l := range s.labels {
		if len(l.path) < 3 || l.path[1] != "healthcheck" {
			continue
		}
		switch l.path[2] {
		case "path", "port":
			check[l.path[2]] = l.value
		case "method":
			check["method"] = strings.ToUpper(l.value)
		case "hostname":
			check["host"] = l.value
		case "interval", "timeout":
			check[l.path[2]] = duration(l.value)
		case "unhealthyinterval":
			check["failing_interval"] = duration(l.value)
		case "status":
			check.Set(l.value, "expect", "status")
		case "mode":
			if l.value == "grpc" {
				check["type"] = "grpc"
			}
		case "headers":
			if len(l.path) == 4 {
				known, _ := check["headers"].([]string)
				check["headers"] = append(known, l.written[3]+": "+l.value)
			}
		default:
			e.ignore(l, "sluice's checks have no such key: ignored")
		}
	}
	if check["path"] != nil || check["type"] != nil {
		if check["type"] == nil {
			check["type"] = "http"
		}
		settings.Set(check, "health", "active")
	}
}

// sticky reads the cookie that keeps a client at an instance.
func sticky(s *part, settings tags.Keys, e *effects) {
	cookie, on := make(tags.Keys), false
	for _, l := range s.labels {
		if len(l.path) < 3 || l.path[1] != "sticky" {
			continue
		}
		if l.path[2] != "cookie" {
			e.ignore(l, "sluice has no such key: ignored")
			continue
		}
		if len(l.path) == 3 {
			on = !isOff(l.value)
			continue
		}
		on = true
		switch l.path[3] {
		case "name":
			cookie["cookie"] = l.value
		case "path":
			cookie["path"] = l.value
		case "domain", "secure":
			cookie[l.path[3]] = strings.ToLower(l.value)
		case "samesite":
			cookie["same_site"] = strings.ToLower(l.value)
		case "maxage":
			cookie["max_age"] = duration(l.value)
		case "httponly": // always
		default:
			e.ignore(l, "sluice's cookie has no such attribute: ignored")
		}
	}
	if on {
		settings.Set("sticky", "balance", "policy")
		if len(cookie) > 0 {
			settings.Set(cookie, "balance", "sticky")
		}
	}
}

// duration returns a duration of Traefik, whose unit is the second if it has none.
func duration(s string) string {
	if _, err := strconv.Atoi(s); err == nil {
		return s + "s"
	}
	return s
}
