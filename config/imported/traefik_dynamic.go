package imported

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
	dialect "sluice/tags/traefik"
)

// object is a router, a middleware or a service of a dynamic file.
type object struct {
	name   string
	at     Place
	leaves []leaf // with paths below it
}

// collect adds a value to its object.
func (t *traefik) collect(l leaf) {
	kind, name := strings.ToLower(l.path[1]), strings.ToLower(l.path[2])
	if t.objects[kind] == nil {
		t.objects[kind] = make(map[string]*object)
	}
	o := t.objects[kind][name]
	if o == nil {
		o = &object{name: cmp.Or(l.path[2], "unnamed"), at: l.at}
		t.objects[kind][name] = o
	}
	if len(l.path) > 3 {
		o.leaves = append(o.leaves, leaf{l.path[3:], l.values, l.at})
	}
}

// sorted returns the values of a map by their keys.
func sorted[V any](of map[string]V) (all []V) {
	for _, key := range slices.Sorted(maps.Keys(of)) {
		all = append(all, of[key])
	}
	return all
}

// question is what package tags/traefik is asked: tags, and the values that they are from.
type question struct {
	about string // for notes
	at    Place
	tags  []string
	from  map[string]leaf
}

// ask returns a question about the router "r".
func ask(about string, at Place) *question {
	return &question{about: about, at: at, from: make(map[string]leaf)}
}

// label adds a tag. A list with a comma in an entry has none: the control character makes a tag
// that is not read, and closes what it may restrict.
func (q *question) label(l leaf, key string, values ...string) {
	value := cmp.Or(strings.Join(values, ","), "true") // a section without keys
	if len(values) > 1 && strings.Count(value, ",") >= len(values) {
		value = "\x00"
	}
	tag := "traefik.http." + key + "=" + value
	q.tags, q.from[tag] = append(q.tags, tag), l
}

func (t *traefik) answer(q *question) tags.Reading {
	reading := dialect.Read(tags.Instance{Service: "s", Tags: append(q.tags, "traefik.enable=true")}, dialect.Options{})
	for _, c := range reading.Complaints {
		l, known := q.from[c.Tag]
		if !known {
			l.at = q.at
		}
		t.note(l.at, "%s: %s", strings.TrimSuffix(q.about+"."+l.key(), "."), c.Want)
	}
	return reading
}

// inRoutes are the kinds of middlewares that become keys of routes, since what they do depends on
// the others. All others become named actions.
var inRoutes = []string{"addprefix", "chain", "redirectregex", "redirectscheme", "replacepath", "replacepathregex", "stripprefix", "stripprefixregex"}

// readMiddlewares makes named actions of middlewares, and says what tags have for each.
func (t *traefik) readMiddlewares() {
	for i, m := range sorted(t.objects["middlewares"]) {
		name := strings.ToLower(m.name)
		if len(m.leaves) > 0 && slices.Contains(inRoutes, strings.ToLower(m.leaves[0].path[0])) {
			t.uses[name] = "m" + strconv.Itoa(i)
			continue
		}
		keys := t.actionsOf(m)
		if t.catalog {
			keys["offered_to"] = []string{"tags"}
		}
		if t.uses[name] = ""; len(keys) > 0 {
			t.uses[name] = m.name + "@file"
			t.add("actions", m.name, m.at, keys)
		}
	}
}

// actionsOf returns the named actions for a middleware.
func (t *traefik) actionsOf(m *object) tags.Keys {
	keys := make(tags.Keys)
	q := ask("middlewares."+m.name, m.at)
	q.label(leaf{at: m.at}, "routers.r.rule", "PathPrefix(`/`)")
	q.label(leaf{at: m.at}, "routers.r.middlewares", "m")
	for _, l := range m.leaves {
		switch strings.ToLower(l.key()) {
		case "basicauth.usersfile":
			keys.Set(l.value(), "basic_auth", "users_file")
		case "basicauth.realm":
			keys.Set(l.value(), "basic_auth", "realm")
		case "basicauth.headerfield":
			keys.Set("$user", "request_headers", "set", l.value())
		default:
			q.label(l, "middlewares.m."+l.key(), l.values...)
		}
	}
	if len(keys) > 0 && len(q.tags) == 2 {
		return keys
	}
	routes := t.answer(q).Routes
	if len(routes) != 1 || routes[0].Closed {
		t.note(m.at, "middlewares.%s: the actions %q deny every request: say there who may use their routes", m.name, m.name)
		return tags.Keys{"deny": everybody}
	}
	keys = routes[0].Keys
	for _, key := range []string{"path", "match"} {
		delete(keys, key)
	}
	return keys
}

// namesOf returns what tags have for middlewares. open is false if one of them does not exist.
func (t *traefik) namesOf(middlewares []string) (names []string, open bool) {
	open = true
	for _, name := range middlewares {
		base, provider, _ := strings.Cut(strings.ToLower(name), "@")
		use, known := t.uses[base]
		if !known || provider != "" && provider != "file" {
			open = false
		} else if use != "" {
			names = append(names, use)
		}
	}
	return names, open
}

// inlined adds the tags of the middlewares that are keys of routes.
func (t *traefik) inlined(q *question) {
	for _, m := range sorted(t.objects["middlewares"]) {
		use := t.uses[strings.ToLower(m.name)]
		if use == "" || strings.HasSuffix(use, "@file") {
			continue
		}
		for _, l := range m.leaves {
			values := l.values
			if strings.EqualFold(l.key(), "chain.middlewares") {
				var open bool
				if values, open = t.namesOf(values); !open {
					values = append(values, "missing")
				}
			}
			if len(values) > 0 {
				q.label(leaf{append([]string{"middlewares", m.name}, l.path...), nil, l.at}, "middlewares."+use+"."+l.key(), values...)
			}
		}
	}
}

// readRouters makes routes of the routers.
func (t *traefik) readRouters() {
	for _, r := range sorted(t.objects["routers"]) {
		for _, entry := range t.entriesOf(r) {
			e := t.entries[entry]
			// A listener is for TLS or not; there, routers for the other match nothing.
			plain := e.redirect != "" || strings.HasSuffix(e.address, ":80")
			e.secured = e.secured || e.secure || !plain && slices.ContainsFunc(r.leaves, isTLS)
		}
	}
	for _, r := range sorted(t.objects["routers"]) {
		at := t.entriesOf(r)
		own := func(name string) bool { return len(t.entries[name].middlewares) > 0 || t.entries[name].options != "" }
		if len(at) == 0 {
			t.note(r.at, "routers.%s: no file has its entry points: left out; give the static file to sluice import too", r.name)
		} else if slices.ContainsFunc(at, own) {
			for _, entry := range at { // each may restrict it in another way
				t.router(r, []string{entry})
			}
		} else {
			t.router(r, at)
		}
	}
}

func isTLS(l leaf) bool { return strings.EqualFold(l.path[0], "tls") && l.value() != "false" }

// entriesOf returns the entry points of a router, in lower case: those that it names, those of all
// that name none, or all.
func (t *traefik) entriesOf(r *object) (known []string) {
	var names []string
	for _, l := range r.leaves {
		if strings.EqualFold(l.key(), "entrypoints") {
			names = l.values
		}
	}
	byDefault := slices.ContainsFunc(slices.Collect(maps.Values(t.entries)), func(e *entryPoint) bool { return e.byDefault })
	for _, key := range slices.Sorted(maps.Keys(t.entries)) {
		if named := slices.ContainsFunc(names, func(name string) bool { return strings.ToLower(name) == key }); named || names == nil && (!byDefault || t.entries[key].byDefault) {
			known = append(known, key)
		}
	}
	return known
}

// router adds the routes of a router at entry points.
func (t *traefik) router(r *object, entries []string) {
	q := ask("routers."+r.name, r.at)
	var middlewares, hosts, listeners []string
	secure, ruled, resolver, service := slices.ContainsFunc(r.leaves, isTLS), false, "", leaf{at: r.at}
	for _, entry := range entries {
		e := t.entries[entry]
		listeners, middlewares = append(listeners, e.name), append(middlewares, e.middlewares...)
		if secure = secure || e.secure; e.options != "" {
			q.label(leaf{at: e.at}, "routers.r.tls.options", e.options)
		}
	}
	for _, l := range r.leaves {
		switch key := strings.ToLower(l.key()); {
		case key == "middlewares":
			middlewares = append(middlewares, l.values...)
		case key == "service":
			service = l
		case key == "tls.certresolver":
			resolver = l.value()
		case strings.HasPrefix(key, "tls.domains"):
			hosts = append(hosts, l.values...)
		case key != "entrypoints":
			ruled = ruled || key == "rule"
			q.label(l, "routers.r."+l.key(), l.values...)
		}
	}
	if !ruled {
		t.note(r.at, "routers.%s: it has no rule: left out", r.name)
		return
	}
	if secure {
		q.label(leaf{at: r.at}, "routers.r.tls", "true")
	}
	used, open := t.namesOf(middlewares)
	if len(used) > 0 {
		q.label(leaf{[]string{"middlewares"}, nil, r.at}, "routers.r.middlewares", used...)
		t.inlined(q)
	}
	reading, target := t.answer(q), t.target(service, 0)
	if len(reading.Routes) == 0 && len(middlewares) > 0 {
		t.note(r.at, "routers.%s: its rule is not understood, and it may restrict its clients: its listeners deny every request; write the route, and remove this one", r.name)
		t.add("routes", "", r.at, shut(tags.Keys{"listeners": listeners, "priority": strconv.Itoa(maxPriority)}))
	}
	for _, one := range reading.Routes {
		keys := one.Keys
		restricts, priority := !open || one.Restricts(), min(max(one.Priority, -maxPriority), maxPriority)
		maps.Copy(keys, target)
		keys["priority"], keys["listeners"] = strconv.Itoa(priority), listeners
		why := ""
		switch redirect, _ := keys["redirect"].(tags.Keys); {
		case redirect != nil && redirect["regexp"] == nil:
			delete(keys, "service")
		case redirect != nil && target == nil: // as in Traefik, of what it does not match
			keys["direct_response"] = tags.Keys{"status": "404"}
		case target == nil:
			why = "without a service"
		case t.byInstance[service.value()] && keys["host_header"] == nil:
			keys["host_header"] = "peer"
		}
		if one.More != nil {
			why = "with conditions that have no key, such as a path that must not be"
		}
		if why != "" && !restricts {
			t.note(r.at, "routers.%s: left out, %s", r.name, why)
			continue
		}
		if !secure && keys.Get("when", "scheme") == nil && slices.ContainsFunc(entries, func(name string) bool { return t.entries[name].secured }) {
			keys.Set("http", "when", "scheme")
		}
		if why != "" || one.Closed || !open || priority != one.Priority {
			keys = shut(keys)
			t.note(r.at, "routers.%s: the route denies every request, since it cannot be carried over as it is", r.name)
		}
		if host, _ := keys["host"].(string); host != "" && resolver != "" {
			hosts = append(hosts, host)
		}
		t.add("routes", "", r.at, keys)
	}
	for _, entry := range entries {
		e := t.entries[entry]
		e.hosts, e.resolver = append(e.hosts, hosts...), cmp.Or(e.resolver, resolver)
	}
}

// maxPriority is the highest priority of a route in sluice.
const maxPriority = 1_000_000

// target returns the keys by which a route has a service; nil: there is none.
func (t *traefik) target(from leaf, depth int) tags.Keys {
	name, provider, _ := strings.Cut(from.value(), "@")
	o := t.objects["services"][strings.ToLower(name)]
	switch {
	case provider == "internal" || name == "" || depth > maxDepth:
		return nil
	case provider == "consulcatalog":
		t.add("services", name, from.at, tags.Keys{"consul": tags.Keys{"service": name}})
		return tags.Keys{"service": name}
	case o == nil:
		t.note(from.at, "service %s: no file defines it", name)
		return nil
	}
	var names []string
	var weights []int
	total := 0
	for _, l := range o.leaves {
		switch path := strings.ToLower(l.key()); {
		case strings.HasPrefix(path, "loadbalancer"):
			return t.balanced(o)
		case strings.HasPrefix(path, "weighted.services.") && strings.HasSuffix(path, ".name"):
			part, _ := t.target(leaf{nil, l.values, l.at}, depth+1)["service"].(string)
			names, weights = append(names, part), append(weights, 0)
		case strings.HasPrefix(path, "weighted.services.") && strings.HasSuffix(path, ".weight") && len(names) > 0:
			weight, _ := strconv.ParseUint(l.value(), 10, 16)
			weights[len(names)-1] = int(weight)
			total += int(weight)
		default:
			t.note(l.at, "services.%s.%s: does not carry over; see services and mirror of a route", name, l.key())
		}
	}
	split, rest := make(tags.Keys), 10000
	for i, part := range names {
		share := 10000 * weights[i] / max(total, 1)
		if i == len(names)-1 {
			share = rest
		}
		rest -= share
		split[part] = fmt.Sprintf("%d.%02d%%", share/100, share%100)
	}
	if len(split) < len(names) || total == 0 || split[""] != nil {
		t.note(o.at, "services.%s: its parts do not carry over", name)
		return nil
	}
	return tags.Keys{"services": split}
}

// balanced adds a service with its servers, and returns the keys by which a route has it.
func (t *traefik) balanced(o *object) tags.Keys {
	target := tags.Keys{"service": o.name}
	if t.has("services", o.name) {
		return target
	}
	q := ask("services."+o.name, o.at)
	q.label(leaf{at: o.at}, "routers.r.rule", "PathPrefix(`/`)")
	var peers []string
	scheme := ""
	for _, l := range o.leaves {
		path := strings.Split(strings.ToLower(l.key()), ".")
		switch last := path[len(path)-1]; {
		case len(path) > 1 && path[1] == "serverstransport":
			t.note(l.at, "services.%s.%s: see upstream.tls and timeouts of the service", o.name, l.key())
		case len(path) < 2 || path[1] != "servers":
			q.label(l, "services.s."+l.key(), l.values...)
		case last == "weight" && len(peers) > 0:
			peers[len(peers)-1] += " weight=" + l.value()
		case last == "url":
			u, err := url.Parse(l.value())
			if err != nil || u.Host == "" || scheme != "" && u.Scheme != scheme {
				t.note(l.at, "services.%s.%s: want URLs of servers, all with the same scheme", o.name, l.key())
				return nil
			}
			scheme = u.Scheme
			peers = append(peers, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), map[string]string{"https": "443"}[scheme], "80")))
		default:
			t.note(l.at, "services.%s.%s: sluice has no such setting of a server", o.name, l.key())
		}
	}
	q.label(leaf{at: o.at}, "services.s.loadbalancer.server.scheme", cmp.Or(scheme, "http"))
	reading := t.answer(q)
	if len(reading.Routes) == 0 {
		return nil
	}
	keys := reading.Service
	t.byInstance[o.name] = reading.Routes[0].Keys["host_header"] != nil
	if upstream, _ := keys["upstream"].(tags.Keys); len(upstream) == 0 {
		delete(keys, "upstream")
	}
	if len(peers) > 0 {
		keys["peers"] = peers
	}
	t.add("services", o.name, o.at, keys)
	return target
}
