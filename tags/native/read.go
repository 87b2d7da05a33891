// Package native reads sluice's own tags:
//
//	sluice.route=HOST/PATH KEY=VALUE …
//	sluice.upstream=KEY=VALUE …
//	sluice.use=NAME,NAME …
//
// The keys are the keys of a route and of upstream in the configuration file, with dots between
// the levels. Their decoder decides which of them a tag may set. With match=regexp, the pattern
// in PATH begins at the start of the path. All routes of the instance use the named actions of
// sluice.use, below those of their own key use. The meta key sluice_route, or one that begins with
// sluice_route_, is another spelling of the tag sluice.route.
package native

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// Names of tags and of meta keys.
const (
	Route     = "sluice.route"
	Upstream  = "sluice.upstream"
	Use       = "sluice.use"
	MetaRoute = "sluice_route"
)

// Prefix is the prefix of the tags.
const Prefix = "sluice."

// AsksForRoute reports whether an entry of the meta with a key asks for a route.
func AsksForRoute(key string) bool { return key == MetaRoute || strings.HasPrefix(key, MetaRoute+"_") }

// Read returns what sluice's own tags of i ask for.
func Read(i tags.Instance) tags.Reading {
	var reading tags.Reading
	var uses []reader
	for _, tag := range i.Tags {
		// Discovery finds a service with a tag by the same rule.
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(tag)), Prefix) {
			if r := read(&reading, tag, tag); r.use != nil {
				uses = append(uses, r)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(i.Meta)) {
		if AsksForRoute(key) {
			read(&reading, key+"="+i.Meta[key], Route+"="+i.Meta[key])
		}
	}
	for i := range reading.Routes {
		useIn(&reading.Routes[i], uses)
	}
	reading.Tags = tags.SortedTags(reading.Tags...)
	reading.Limit()
	return reading
}

// useIn adds the named actions of the tags sluice.use to a route. One that cannot be read may
// restrict it.
func useIn(route *tags.Route, uses []reader) {
	for _, r := range uses {
		route.Tags = tags.SortedTags(append(route.Tags, r.tag)...)
		if r.failed && !route.Closed {
			*route = route.Deny()
		} else if !route.Closed {
			own, _ := route.Keys["use"].([]string)
			route.Keys["use"] = slices.Concat(r.use, own)
		}
	}
}

// read reads a tag, or the entry of the meta that text is another spelling of.
func read(reading *tags.Reading, tag, text string) reader {
	reading.Tags = append(reading.Tags, tag)
	name, value, _ := strings.Cut(tags.Blanks(text), "=")
	r := reader{reading: reading, tag: tag, meta: tag != text}
	r.at = len(tag) - len(value)
	if c := tags.Check(tag); c != nil {
		reading.Complain(*c)
		r.failed, r.unread = true, true
	}
	switch strings.ToLower(strings.TrimLeft(name, " ")) {
	case Route:
		r.route(value)
	case Upstream:
		r.upstream(value)
	case Use:
		r.use = list(value)
	default:
		r.complain(0, "unknown tag: want "+Route+"=HOST/PATH, "+Upstream+"=KEY=VALUE or "+Use+"=NAME")
	}
	return r
}

// reader reads one tag.
type reader struct {
	reading *tags.Reading
	tag     string
	meta    bool // tag is an entry of the meta
	at      int  // index of the value in tag
	failed  bool
	unread  bool     // see tags.Check
	use     []string // of a tag sluice.use
}

// complain complains about the byte at an index of the value.
func (r *reader) complain(at int, want string) {
	if r.failed = true; !r.unread { // which says enough
		r.reading.Complain(tags.Complaint{Tag: r.tag, Column: r.at + at + 1, Want: want})
	}
}

// lists are keys whose value is a list.
var lists = []string{
	"allow", "deny", "basic_auth.users", "client_certificates", "listeners", "methods", "use", "when.client", "when.not.client",
	"when.client_certificates", "when.not.client_certificates",
	"forward_auth.response_headers", "request_headers.remove", "response_headers.remove",
	"cors.allow_origins", "cors.allow_methods", "cors.allow_headers", "cors.expose_headers",
}

// named are keys above names that may have dots.
var named = []string{
	"when.header", "when.query", "when.cookie", "when.not.header", "when.not.query", "when.not.cookie",
	"request_headers.set", "request_headers.add", "response_headers.set", "response_headers.add",
	"direct_response.headers",
}

func (r *reader) route(value string) {
	words := r.words(value)
	if len(words) == 0 || words[0].text == "" {
		r.complain(0, "has no route: want HOST/PATH, HOST or /PATH")
		return
	}
	host, path, _ := strings.Cut(words[0].text, "/")
	if strings.Contains(host, "=") {
		r.complain(words[0].at, "want HOST/PATH, HOST or /PATH before the first KEY=VALUE")
		return
	}
	route := tags.Route{Tags: []string{r.tag}, Meta: r.meta, Keys: tags.Keys{"path": "/" + path}}
	if host != "" {
		route.Keys["host"] = host
	}
	for _, w := range words[1:] {
		key, value, ok := strings.Cut(w.text, "=")
		if long := tags.ShortKeys[key]; long != "" {
			key = long
		}
		path := split(key)
		switch {
		case !ok || key == "":
			r.complain(w.at, "want KEY=VALUE")
			if path = path[:1]; (tags.Keys{path[0]: ""}).Restricts() {
				route.Keys.Set("", path...)
			}
		case key == "host" || key == "host_regexp" || key == "path":
			r.complain(w.at, "want the host and the path before the first KEY=VALUE, as HOST/PATH")
		case key == "priority":
			n, err := strconv.Atoi(value)
			if err != nil {
				r.complain(w.at, "want a whole number")
			}
			route.Priority = n
		case slices.Contains(lists, key):
			known, _ := route.Keys.Get(path...).([]string)
			route.Keys.Set(append(known, list(value)...), path...)
		case key == "redirect":
			route.Keys.Set(value, "redirect", "to")
		default:
			route.Keys.Set(value, path...)
		}
	}
	if route.Keys["match"] == "regexp" {
		route.Keys["path"] = "^/" + path // from the start of the path
	}
	if r.failed && !route.Keys.Restricts() {
		return
	}
	if r.failed {
		route = route.Deny() // it was to be for some clients only
	}
	if r.unread {
		r.reading.Complain(tags.Complaint{Tag: r.tag, Want: tags.DeniesUnread})
	}
	r.reading.Routes = append(r.reading.Routes, route)
}

func list(value string) (items []string) {
	for item := range strings.SplitSeq(value, ",") {
		items = append(items, strings.TrimSpace(item))
	}
	return items
}

// split splits a key into its levels.
func split(key string) []string {
	for _, above := range named {
		if name, ok := strings.CutPrefix(key, above+"."); ok {
			return append(strings.Split(above, "."), name)
		}
	}
	return strings.Split(key, ".")
}

func (r *reader) upstream(value string) {
	upstream, plain := make(tags.Keys), false
	for _, w := range r.words(value) {
		key, value, ok := strings.Cut(w.text, "=")
		switch {
		case !ok:
			r.complain(w.at, "want KEY=VALUE")
		case key == "tls" && value == "true":
			if upstream["tls"] == nil {
				upstream["tls"] = make(tags.Keys)
			}
		case key == "tls" && value == "false": // as without the key
			plain = true
		case key == "protocol" || key == "tls.server_name" || key == "tls.skip_verify":
			upstream.Set(value, split(key)...)
		default:
			r.complain(w.at, "unknown key: want protocol, tls=true, tls=false, tls.server_name or tls.skip_verify")
		}
	}
	if plain && upstream["tls"] != nil {
		r.complain(0, "tls=false contradicts another key: want it without tls=true, tls.server_name and tls.skip_verify")
	}
	if r.failed {
		r.reading.UpstreamUnread = true
		return
	}
	if len(upstream) > 0 && !r.reading.Set(tags.Keys{"upstream": upstream}, r.tag) {
		r.reading.UpstreamUnread = true // which of the two is right, nobody knows
	}
}

// word is a part of a value between blanks.
type word struct {
	text string
	at   int // index in the value
}

// words splits a value at blanks, except within double quotes, which it removes. A quote
// within quotes cannot be written.
func (r *reader) words(value string) []word {
	var words []word
	var b strings.Builder
	quoted, began := false, -1
	end := func() {
		if began >= 0 {
			words = append(words, word{b.String(), began})
		}
		b.Reset()
		began = -1
	}
	for i := range len(value) {
		c := value[i]
		if c == ' ' && !quoted {
			end()
			continue
		}
		if began < 0 {
			began = i
		}
		if c == '"' {
			quoted = !quoted
			continue
		}
		b.WriteByte(c)
	}
	if quoted {
		r.complain(len(value), "a quote is not closed")
	}
	end()
	return words
}
