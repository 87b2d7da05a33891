package imported

import (
	"cmp"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// location is a location, whose own answer comes after others.
type location struct {
	*directive
	kind  string // "=", "^~", "~", "~*" or ""
	path  string
	stops []answer
	answer
}

func (l *location) regexp() bool { return strings.HasPrefix(l.kind, "~") }

// restricts reports whether not every request gets to a service.
func (l *location) restricts() bool {
	return l.keys == nil || l.keys.Restricts() || l.keys["direct_response"] != nil
}

// modifier is what may be before a path.
var modifier = regexp.MustCompile(`(?s)^(=|\^~|~\*|~)?(.*)$`)

// place returns the modifier and the path of a location, which is an expression after a tilde.
func (d *directive) place() (kind, path string) {
	words := modifier.FindStringSubmatch(d.word(1))
	kind, path = words[1], words[2]+d.word(2)
	if kind == "~*" {
		path = "(?i)" + path
	}
	return kind, path
}

// locate returns the answers of the locations of a server in the order in which nginx chooses: the
// exact path, prefixes with ^~, expressions in their order, and other prefixes; of prefixes the
// longest.
func (n *nginx) locate(server *directive) (all []answer) {
	var places []*location
	for _, d := range server.named["location"] {
		if l := n.location(d); l != nil {
			places = append(places, l)
		}
		if n.left < 0 {
			return nil
		}
	}
	expressions := slices.ContainsFunc(places, (*location).regexp)
	class := func(l *location) int {
		switch {
		case l.kind == "=":
			return 0
		case l.kind == "^~" && expressions:
			return 1
		case l.regexp():
			return 2
		}
		return 3
	}
	for _, l := range places {
		if class(l) == 3 && slices.ContainsFunc(places, func(s *location) bool { return class(s) == 1 && strings.HasPrefix(l.path, s.path) }) {
			l.kind, l.keys, l.stops = "^~", nil, nil
			n.note(l.directive.at, "location %s: it is below one with ^~, but comes after the expressions: here is 403; write ^~ here too", l.path)
		}
	}
	places = sameForSluice(n.draft, places)
	slices.SortStableFunc(places, func(a, b *location) int {
		if c := class(a) - class(b); c != 0 || a.regexp() {
			return c
		}
		return len(b.path) - len(a.path)
	})
	for _, l := range places {
		all = append(append(all, l.stops...), l.answer)
	}
	return all
}

// sameForSluice settles which location has /x and /x/, which are one path for sluice.
func sameForSluice(d *draft, places []*location) []*location {
	byPath := make(map[string][]*location)
	for _, l := range places {
		if !l.regexp() {
			byPath[l.path] = append(byPath[l.path], l)
		}
	}
	return slices.DeleteFunc(places, func(l *location) bool {
		for _, other := range byPath[l.path+"/"] {
			switch {
			case l.regexp() || l.path == "" || reflect.DeepEqual(l.keys, other.keys):
			case l.kind == "=" && !l.restricts():
				d.note(l.directive.at, "location = %s: sluice takes %s/ for the same path: left out", l.path, l.path)
				return true
			case l.restricts():
				l.keys, other.keys = nil, nil
				d.note(l.directive.at, "location %s: sluice takes %s for the same path, which has other rules: both deny every request", l.path, other.path)
			}
		}
		return false
	})
}

// location reads a location; nil: it is left out.
func (n *nginx) location(d *directive) *location {
	l := &location{directive: d, answer: answer{match: make(tags.Keys), at: d.at}}
	l.kind, l.path = d.place()
	switch {
	case strings.HasPrefix(l.path, "@"):
		n.note(d.at, "location %s: sluice has no locations with names: left out", l.path)
		return nil
	case l.kind != "" || l.path != "/":
		match := map[string]string{"=": "exact", "~": "regexp", "~*": "regexp"}[l.kind]
		l.match["path"], l.match["match"] = l.path, cmp.Or(match, "string_prefix")
	}
	l.stops = n.stops(d)
	switch last := len(l.stops) - 1; {
	case l.all("internal") != nil:
		l.stops = nil
	case last >= 0 && len(l.stops[last].match) == 0: // no request gets further
		l.keys, l.at, l.stops = l.stops[last].keys, l.stops[last].at, l.stops[:last]
	default:
		l.keys = n.forwarded(l)
	}
	n.left -= len(l.keys.String())
	return l
}

// forwarded returns the keys for what a location forwards; nil: it denies.
func (n *nginx) forwarded(l *location) tags.Keys {
	keys := make(tags.Keys)
	switch {
	case l.closed() || !l.access(n, keys):
		return nil
	case l.named["proxy_pass"] == nil:
		n.note(l.directive.at, "location %s: without proxy_pass: here is 403", l.path)
		return nil
	case !n.forward(l, keys):
		return nil
	}
	l.headers(n.draft, keys)
	n.limits(l.directive, keys)
	return keys
}

// access sets who may use a route. It returns false if everybody must be denied.
func (l *location) access(n *nginx, keys tags.Keys) bool {
	rules := l.all("allow")
	if len(rules) > 0 && n.blind {
		return false // as noted where it is set
	}
	realm, file := l.value("auth_basic"), l.value("auth_basic_user_file")
	if realm != "" && realm != "off" {
		if keys.Set(file, "basic_auth", "users_file"); !strings.Contains(realm, "$") {
			keys.Set(realm, "basic_auth", "realm")
		}
		if file == "" || strings.Contains(file, "$") || l.value("satisfy") == "any" && len(rules) > 0 {
			n.note(l.directive.at, "auth_basic: sluice needs a file, and an address that is allowed too: the route denies every request; see basic_auth and when.client of a route")
			return false
		}
	}
	var allowed, denied []string
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
			allowed = append(allowed, network)
		case ok:
			if denied = append(denied, network); allowed != nil {
				n.note(r.at, "deny %s: here also for what is allowed before it", network)
			}
		case allows:
			n.note(r.at, "allow %s: no network: left out", who)
		default:
			n.note(r.at, "deny %s: no network: the route denies every request", who)
			return false
		}
	}
	if denied != nil {
		keys["deny"] = denied
	}
	return keys["allow"] == nil || len(allowed) > 0
}

// headers sets the headers of requests and answers.
func (l *location) headers(d *draft, keys tags.Keys) {
	for _, h := range l.all("proxy_set_header") {
		name, value := h.word(1), h.word(2)
		text, known := variables(value, inHeaders)
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
			if extend(keys, name, "request_headers", "remove"); !known {
				d.note(h.at, "proxy_set_header %s: sluice has no such variable: peers do not get this header", name)
			}
		}
	}
	for _, h := range l.all("add_header") {
		if strings.EqualFold(h.word(1), "Alt-Svc") { // a listener with http3 sends its own
			continue
		}
		if text, known := variables(h.word(2), inHeaders); !known || keys.Get("response_headers", "add", h.word(1)) != nil {
			d.note(h.at, "add_header %s: sluice has no such variable, or the header already: left out", h.word(1))
		} else {
			keys.Set(text, "response_headers", "add", h.word(1))
		}
	}
	for _, h := range l.all("proxy_hide_header") {
		extend(keys, h.word(1), "response_headers", "remove")
	}
}

// timeoutsOf are the timeouts of a route for directives.
var timeoutsOf = map[string][]string{"proxy_connect_timeout": {"connect"}, "proxy_read_timeout": {"response_header", "idle", "tunnel"}}

// limits sets timeouts, limits and compression. What http says is in defaults.
func (n *nginx) limits(d *directive, keys tags.Keys) {
	value := func(name string) string {
		if found := d.all(name); len(found) > 0 && (d == n.http || found[0].in != n.http) {
			return found[len(found)-1].word(1)
		}
		return ""
	}
	for name, timeouts := range timeoutsOf {
		for _, key := range timeouts {
			if text := value(name); text != "" {
				keys.Set(timeOf(text), "timeouts", key)
			}
		}
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
			n.note(c.at, "limit_req: a route has one rate_limit, with a zone of http: left out")
		default:
			keys["rate_limit"] = limit
		}
	}
	if gzip := value("gzip"); gzip == "on" {
		keys["compress"] = tags.Keys{}
	} else if gzip == "off" && n.http.value("gzip") == "on" {
		keys["compress"] = nil
	}
}

// rateOf is the rate of a zone.
var rateOf = regexp.MustCompile(`^([0-9]+)r/([sm])$`)

// rate returns the rate limit of a limit_req; nil: its zone does not carry over.
func (n *nginx) rate(d *directive) tags.Keys {
	options := d.options()
	for _, zone := range n.http.named["limit_req_zone"] {
		name, _, _ := strings.Cut(zone.options()["zone"], ":")
		rate := rateOf.FindStringSubmatch(zone.options()["rate"])
		if name != options["zone"] || rate == nil {
			continue
		}
		if zone.word(1) != "$binary_remote_addr" && zone.word(1) != "$remote_addr" {
			n.note(zone.at, "limit_req_zone %s: here by the address of the client; see rate_limit.key", zone.word(1))
		}
		return tags.Keys{"burst": cmp.Or(options["burst"], "1"), "rate": rate[1], "per": "1" + rate[2]}
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
	return withUnit(text, "s")
}

// sizeOf returns a size of nginx.
func sizeOf(text string) string {
	if size := unitOf.FindStringSubmatch(text); size != nil {
		return size[1] + strings.ToUpper(size[2]) + "iB"
	}
	return text
}
