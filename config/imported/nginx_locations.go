package imported

import (
	"cmp"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// location is a location, which becomes a route, or one under each name of its server.
type location struct {
	*directive
	server *virtual
	kind   string // "=", "^~", "~", "~*" or ""
	path   string
	match  tags.Keys
	keys   tags.Keys // nil: it denies
	stops  []stop    // answers before it
	again  bool      // a rewrite in it chooses a location again
	cost   int       // entries of its route
}

func (l *location) regexp() bool { return l.kind == "~" || l.kind == "~*" }

// restricts reports whether not every request gets to a service.
func (l *location) restricts() bool {
	for _, s := range l.stops {
		if s.always || s.keys["redirect"] == nil {
			return s.keys["redirect"] == nil
		}
	}
	return l.keys == nil || l.keys.Restricts()
}

// modifier is what may be before a path.
var modifier = regexp.MustCompile(`(?s)^(=|\^~|~\*|~)?(.*)$`)

// locate finds the locations of a server, in the order in which nginx chooses.
func (n *nginx) locate(v *virtual) {
	n.collect(v, v.directive)
	var expressions, strong, restricted []*location
	for _, l := range v.places {
		if l.regexp() {
			expressions = append(expressions, l)
			if l.restricts() {
				restricted = append(restricted, l)
			}
		} else if l.kind == "^~" {
			strong = append(strong, l)
		}
	}
	n.ordered = n.ordered || len(expressions) > 0
	class := make(map[*location]int)
	for _, l := range v.places {
		within := slices.ContainsFunc(strong, func(s *location) bool { return l != s && strings.HasPrefix(l.path, s.path) })
		switch {
		case l.kind == "=":
		case l.regexp():
			class[l] = 2
		case l.kind == "^~":
			class[l] = 1
		case within && len(expressions) > 0:
			class[l] = 1
			n.note(l.at, "location %s: it is below one with ^~, and comes here before all expressions too", l.path)
			if len(restricted) > 0 {
				l.keys = nil
				n.note(l.at, "location %s: an expression restricts some of it: here it denies every request; write ^~ here too", l.path)
			}
		default:
			class[l] = 3
		}
	}
	for _, l := range v.places {
		if l.again && slices.ContainsFunc(v.places, (*location).restricts) {
			l.keys = nil
			n.note(l.at, "location %s: rewrite without break chooses a location again, which may restrict: the route denies every request", l.path)
		}
	}
	v.sameForSluice(n.draft)
	slices.SortStableFunc(v.places, func(a, b *location) int {
		if c := class[a] - class[b]; c != 0 || a.regexp() {
			return c
		}
		return len(b.path) - len(a.path)
	})
}

// sameForSluice settles which location has /x and /x/, which are one path for sluice.
func (v *virtual) sameForSluice(d *draft) {
	byPath := make(map[string]*location)
	for _, l := range v.places {
		if !l.regexp() {
			byPath[l.kind[:min(len(l.kind), 1)]+l.path] = l
		}
	}
	v.places = slices.DeleteFunc(v.places, func(l *location) bool {
		other := cmp.Or(byPath["="+l.path+"/"], byPath[l.path+"/"], byPath["^"+l.path+"/"])
		switch {
		case l.regexp() || l.path == "" || other == nil:
			return false
		case l.kind == "=" && !l.restricts():
			d.note(l.at, "location = %s: sluice takes %s/ for the same path: left out", l.path, l.path)
			return true
		case l.restricts() && l.kind != "=" && !reflect.DeepEqual(l.keys, other.keys) && !other.restricts():
			other.keys = nil
			d.note(other.at, "location %s: sluice takes %s for the same path, which is restricted: the route denies every request", other.path, l.path)
		}
		return false
	})
}

// collect adds the locations of a block, and those within them.
func (n *nginx) collect(v *virtual, in *directive) {
	// What an expression within a location denies closes that location: it is read first.
	slices.SortStableFunc(in.named["location"], func(a, b *directive) int { return cmp.Compare(expressionOf(b), "") - cmp.Compare(expressionOf(a), "") })
	for _, d := range in.named["location"] {
		words := append(modifier.FindStringSubmatch(d.word(1))[1:], d.word(2))
		l := &location{directive: d, server: v, kind: words[0], path: words[1] + words[2], cost: 1}
		if strings.HasPrefix(l.path, "@") {
			n.note(d.at, "location %s: sluice has no locations with names: left out", l.path)
			continue
		}
		n.collect(v, d)
		l.match = tags.Keys{"path": l.path, "match": map[bool]string{true: "exact", false: "string_prefix"}[l.kind == "="]}
		if l.regexp() {
			l.path = map[string]string{"~*": "(?i)"}[l.kind] + l.path
			l.match = tags.Keys{"path": l.path, "match": "regexp"}
		} else if l.path == "/" && l.kind != "=" {
			l.match = tags.Keys{}
		}
		l.stops = n.stops(d)
		l.keys = n.action(l)
		if n.left -= l.cost; in.word(0) == "location" && expressionOf(d)+expressionOf(in) != "" {
			n.note(d.at, "location %s: an expression within a location: left out, and what it would deny is denied in all of that", l.path)
			in.shut = in.shut || l.restricts()
			continue
		}
		v.places = append(v.places, l)
	}
}

// action returns what the route of a location does; nil: it denies.
func (n *nginx) action(l *location) tags.Keys {
	keys := make(tags.Keys)
	switch {
	case len(l.stops) > 0 && l.stops[len(l.stops)-1].always: // no request gets further
		return nil
	case l.closed() || l.all("internal") != nil:
		return nil
	case !l.access(n.draft, keys):
		return nil
	case l.named["proxy_pass"] == nil && l.named["grpc_pass"] == nil:
		n.note(l.at, "location %s: without proxy_pass: here is 403", l.path)
		return nil
	case !n.forward(l, keys):
		return nil
	}
	l.headers(n.draft, keys)
	n.limits(l.directive, keys)
	l.cost += len(l.all("gzip_types")) + len(l.all("proxy_hide_header"))
	return keys
}

// access sets who may use a route. It returns false if everybody must be denied.
func (l *location) access(d *draft, keys tags.Keys) bool {
	rules := l.all("allow")
	if l.cost += len(rules); len(rules) > 0 && l.server.blind {
		return false // as noted at the server
	}
	if l.server.secure {
		keys["client_certificate"] = "required"
	}
	realm, file := l.value("auth_basic"), l.value("auth_basic_user_file")
	if realm != "" && realm != "off" {
		if keys.Set(file, "basic_auth", "users_file"); !strings.Contains(realm, "$") {
			keys.Set(realm, "basic_auth", "realm")
		}
		if file == "" || strings.Contains(file, "$") || l.value("satisfy") == "any" && len(rules) > 0 {
			d.note(l.at, "auth_basic: sluice needs a file, and an address that is allowed too: the route denies every request; see basic_auth and when.client of a route")
			return false
		}
	}
	var allowed, denied []string
	var before []netip.Prefix
	for _, r := range rules {
		who, allows := r.word(1), r.word(0) == "allow"
		if who == "all" {
			if !allows {
				keys["allow"] = allowed
			}
			break
		}
		network, ok := tags.Network(who)
		switch {
		case ok && allows:
			allowed, before = append(allowed, network), append(before, prefixOf(network))
		case ok:
			if denied = append(denied, network); slices.ContainsFunc(before, prefixOf(network).Overlaps) {
				d.note(r.at, "deny %s: here also for what is allowed before it", network)
			}
		case allows:
			d.note(r.at, "allow %s: no network: left out", who)
		default:
			d.note(r.at, "deny %s: no network: the route denies every request", who)
			return false
		}
	}
	if denied != nil {
		keys["deny"] = denied
	}
	return keys["allow"] == nil || len(allowed) > 0
}

// prefixOf returns a network or an address.
func prefixOf(text string) netip.Prefix {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	p, _ := netip.ParsePrefix(text)
	return p
}

// byItself are headers that sluice sends too, with their values.
var byItself = regexp.MustCompile(`(?i)^(connection:.*|upgrade:.*|x-real-ip:\$remote_addr|x-forwarded-for:\$(proxy_add_x_forwarded_for|remote_addr)|` +
	`x-forwarded-proto:\$scheme|x-forwarded-host:\$(http_)?host|host:\$(http_)?host)$`)

// headers sets the headers of requests and answers.
func (l *location) headers(d *draft, keys tags.Keys) {
	var removed, hidden []string
	for _, h := range l.all("proxy_set_header") {
		name, value := h.word(1), h.word(2)
		text, known := variables(value, inHeaders)
		l.cost++
		switch {
		case strings.EqualFold(name, "Host") && !strings.EqualFold(value, "$proxy_host"):
			if delete(keys, "host_header"); known && !strings.Contains(text, "$") {
				keys["host_header"] = value
			} else if !byItself.MatchString(name + ":" + value) {
				d.note(h.at, "proxy_set_header Host: sluice has no such variable: peers get the client's; see host_header of a route")
			}
		case strings.EqualFold(name, "Host") || byItself.MatchString(name+":"+value):
		case known && value != "":
			keys.Set(text, "request_headers", "set", name)
		default:
			if removed = append(removed, name); !known {
				d.note(h.at, "proxy_set_header %s: sluice has no such variable: peers do not get this header", name)
			}
		}
	}
	for _, h := range l.all("add_header") {
		l.cost++
		if text, known := variables(h.word(2), inHeaders); !known || keys.Get("response_headers", "add", h.word(1)) != nil {
			d.note(h.at, "add_header %s: sluice has no such variable, or the header already: left out", h.word(1))
		} else {
			keys.Set(text, "response_headers", "add", h.word(1))
		}
	}
	for _, h := range l.all("proxy_hide_header") {
		hidden = append(hidden, h.word(1))
	}
	if len(hidden) > 0 {
		keys.Set(hidden, "response_headers", "remove")
	}
	if len(removed) > 0 {
		keys.Set(removed, "request_headers", "remove")
	}
}

// limits sets timeouts, attempts, limits and compression. What http says is in defaults.
func (n *nginx) limits(d *directive, keys tags.Keys) {
	value := func(name string) string {
		if found := d.all(name); len(found) > 0 && (d == n.http || found[0].in != n.http) {
			return found[len(found)-1].word(1)
		}
		return ""
	}
	if connect := value("proxy_connect_timeout"); connect != "" {
		keys.Set(timeOf(connect), "timeouts", "connect")
	}
	if read := timeOf(value("proxy_read_timeout")); read != "" {
		for _, key := range []string{"response_header", "idle", "tunnel"} {
			keys.Set(read, "timeouts", key)
		}
	}
	if value("proxy_next_upstream") == "off" {
		keys.Set("1", "retry", "attempts")
	} else if tries, _ := strconv.Atoi(value("proxy_next_upstream_tries")); tries > 0 {
		keys.Set(strconv.Itoa(min(tries, 5)), "retry", "attempts")
	}
	if size := value("client_max_body_size"); size == "0" {
		keys["body_limit"] = nil
	} else if size != "" {
		keys["body_limit"] = sizeOf(size)
	}
	for i, c := range d.all("limit_req") {
		switch limit := n.rate(c); {
		case d == n.http:
		case i > 0 || limit == nil:
			n.note(c.at, "limit_req: a route has one rate_limit, by the address, a header or for all: left out")
		default:
			keys["rate_limit"] = limit
		}
	}
	if value("gzip")+value("gzip_types")+value("gzip_min_length") == "" {
		return
	}
	if d.value("gzip") != "on" {
		if d != n.http && n.http.value("gzip") == "on" {
			keys["compress"] = nil
		}
		return
	}
	types := []string{"text/html"}
	for _, c := range d.all("gzip_types") {
		for _, kind := range c.from(1).words {
			types = append(types, map[string]string{"*": "*/*"}[kind]+strings.TrimPrefix(kind, "*"))
		}
	}
	if keys.Set(types, "compress", "types"); d.value("gzip_min_length") != "" {
		keys.Set(sizeOf(d.value("gzip_min_length")), "compress", "min_length")
	}
}

// rateOf is the rate of a zone.
var rateOf = regexp.MustCompile(`^rate=([0-9]+)r/([sm])$`)

// rate returns the rate limit of a limit_req; nil: it has no zone that carries over.
func (n *nginx) rate(d *directive) tags.Keys {
	limit := tags.Keys{"burst": "1"}
	for _, word := range d.words {
		if burst, ok := strings.CutPrefix(word, "burst="); ok {
			limit["burst"] = burst
		}
	}
	for _, word := range d.words {
		zone := n.zones[word]
		if zone == nil {
			continue
		}
		rate := rateOf.FindStringSubmatch(zone.word(3))
		if rate == nil {
			return nil
		}
		limit["rate"], limit["per"] = rate[1], "1"+rate[2]
		switch header, ok := strings.CutPrefix(zone.word(1), "$http_"); {
		case ok:
			limit["key"] = "header " + strings.ReplaceAll(header, "_", "-")
		case zone.word(1) == "$server_name" || zone.word(1) == "$host" || !strings.Contains(zone.word(1), "$"):
			limit["key"] = "route"
		case zone.word(1) != "$binary_remote_addr" && zone.word(1) != "$remote_addr":
			n.note(zone.at, "limit_req_zone %s: here by the address of the client; see rate_limit.key", zone.word(1))
		}
		return limit
	}
	return nil
}

// Forms of times and sizes.
var (
	daysOf = regexp.MustCompile(`^([0-9]{1,5})d$`)
	unitOf = regexp.MustCompile(`^([0-9]+)([kKmMgG])$`)
)

// timeOf returns a time of nginx, which is in seconds if it has no unit.
func timeOf(text string) string {
	if days := daysOf.FindStringSubmatch(text); days != nil {
		n, _ := strconv.Atoi(days[1])
		return strconv.Itoa(24*n) + "h"
	}
	return seconds(text)
}

// sizeOf returns a size of nginx.
func sizeOf(text string) string {
	if size := unitOf.FindStringSubmatch(text); size != nil {
		return size[1] + strings.ToUpper(size[2]) + "iB"
	}
	return text
}
