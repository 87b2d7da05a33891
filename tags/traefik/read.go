package traefik

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// Defaults of [Options].
const (
	Prefix      = "traefik"
	DefaultRule = "Host(`{{ normalize .Name }}`)"
)

// Options configure how tags are read.
type Options struct {
	Prefix string // of the tags; empty: Prefix
	// Exposed says that a service without the tag PREFIX.enable has routes.
	Exposed bool
	// DefaultRule is the rule of a router without one, and of the router that an exposed
	// service without routers has. nil: DefaultRule.
	DefaultRule *Template
}

// normalize replaces all characters but letters and digits, as Traefik does.
func normalize(name string) string {
	return strings.Join(strings.FieldsFunc(name, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}), "-")
}

var defaultRule, _ = ParseDefaultRule(DefaultRule)

// Read returns what the tags of i with the prefix ask for.
func Read(i tags.Instance, o Options) tags.Reading {
	r := &reader{instance: i, rule: cmp.Or(o.DefaultRule, defaultRule), made: make(map[bool]int)}
	prefix := strings.ToLower(cmp.Or(o.Prefix, Prefix))
	r.labels = labels(i.Tags, prefix, &r.reading)
	r.reading.Tags = tags.SortedTags(r.reading.Tags...)
	if len(r.labels) == 0 {
		return r.reading
	}
	p := partsOf(r.labels, &r.reading)
	exposed := o.Exposed
	if p.enable != nil {
		var err error
		if exposed, err = strconv.ParseBool(p.enable.value); err != nil {
			r.reading.Complain(tags.Complaint{Tag: p.enable.tag, Want: "want true or false"})
		}
	}
	if !exposed {
		if p.enable == nil {
			r.reading.Complain(tags.Complaint{Tag: r.labels[0].tag,
				Want: "the instance is not exposed: want the tag " + prefix + ".enable=true, or catalog.traefik.exposed: true in the file"})
		}
		return tags.Reading{Tags: r.reading.Tags, Complaints: r.reading.Complaints}
	}
	r.parts = p
	if len(p.http["routers"]) == 0 && (!p.streams || len(p.http["services"])+len(p.http["middlewares"]) > 0) {
		p.http["routers"][strings.ToLower(i.Service)] = new(part)
	}
	for _, name := range slices.Sorted(maps.Keys(p.http["routers"])) {
		r.router(p.http["routers"][name])
	}
	for _, name := range slices.Sorted(maps.Keys(p.tcp["routers"])) {
		r.streamRouter(p.tcp["routers"][name])
	}
	// The default rule may depend on further tags.
	r.reading.Tags = tags.SortedTags(r.reading.Tags...)
	r.reading.Limit()
	return r.reading
}

// reader reads the tags of one instance.
type reader struct {
	instance tags.Instance
	rule     *Template
	labels   []label
	parts    parts
	reading  tags.Reading
	made     map[bool]int // routes of requests with and without restrictions: each has its room
}

// routerOptions are the keys of a router that are read, or have no effect in sluice.
var routerOptions = []string{"rule", "priority", "entrypoints", "middlewares", "service", "tls", "rulesyntax", "observability"}

func (r *reader) router(router *part) {
	e := newEffects(r, router)
	r.options(router, e, routerOptions)
	rule := r.ruleOf(router, e)
	if rule.unread {
		return
	}
	router.closeUnread(e)
	terms, err := parseRule(rule.value, requestMatchers)
	if err != nil {
		r.complainRule(rule, err)
		return
	}
	r.service(router, e)
	r.middlewares(router, e)
	r.listeners(router, e)
	r.secure(router, e)
	if e.refused {
		if !e.restricts() {
			return
		}
		e.closed = true
	}
	priority, set := priorityOf(router, rule, e)
	sorted := tags.SortedTags(e.tags...)
	for _, term := range terms {
		if r.made[e.restricts()] > tags.MaxRoutes {
			return // each may have all fields of a middleware
		}
		match, more, never, err := keysOf(term)
		if err != nil {
			r.complainRule(rule, err)
			continue
		}
		if never {
			r.reading.Complain(tags.Complaint{Tag: rule.tag, Harmless: true, Want: "no request meets one of the alternatives of the rule: ignored"})
			continue
		}
		for _, keys := range e.routes(match, rule) {
			route := tags.Route{Tags: sorted, Keys: keys, More: more, Priority: priority, Ranked: true, PrioritySet: set}
			if e.closed {
				route = route.Deny()
			}
			r.reading.Routes = append(r.reading.Routes, route)
			r.made[e.restricts()]++
		}
	}
}

// options complains about unknown options of a router, each of which may restrict it, and rules of
// another version.
func (r *reader) options(router *part, e *effects, known []string) {
	for _, l := range router.labels {
		if !slices.Contains(known, l.path[0]) || len(l.path) > 1 && l.path[0] != "tls" && l.path[0] != "observability" {
			e.close(l, "unknown key of a router: want one of "+strings.Join(known, ", "))
		}
	}
	if syntax := router.find("rulesyntax"); syntax != nil && syntax.value != "v3" {
		e.refuse(*syntax, "want rules of version 3")
	}
}

// middlewares adds the effects of the middlewares of a router.
func (r *reader) middlewares(router *part, e *effects) {
	if names := router.find("middlewares"); names != nil {
		for _, name := range list(names.value) {
			e.middleware(*names, name, 0)
		}
	}
}

// priorityOf returns the priority of a router, and whether a tag sets it.
func priorityOf(router *part, rule label, e *effects) (priority int, set bool) {
	if l := router.find("priority"); l != nil {
		if n, err := strconv.Atoi(l.value); err != nil {
			e.ignore(*l, "want a whole number: the length of the rule counts instead")
		} else if n != 0 {
			return n, true
		}
	}
	return len(rule.value), false
}

// ruleOf returns the rule of a router, or the default one.
func (r *reader) ruleOf(router *part, e *effects) label {
	if l := router.find("rule"); l != nil {
		return *l
	}
	from := label{tag: r.labels[0].tag}
	if len(router.labels) > 0 {
		from.tag = router.labels[0].tag
	} else {
		// The router exists because of all tags together.
		for _, l := range r.labels {
			e.tags = append(e.tags, l.tag)
		}
	}
	for _, tag := range r.instance.Tags {
		if r.rule.Reads(tag) {
			e.tags, r.reading.Tags = append(e.tags, tag), append(r.reading.Tags, tag)
		}
	}
	from.value = r.rule.expand(r.instance.Service, func(name string) (value string) {
		for _, tag := range r.instance.Tags {
			if key, v, ok := strings.Cut(tag, "="); ok && key == name {
				value = v
			}
		}
		return value
	})
	return from
}

func (r *reader) complainRule(rule label, err error) {
	c := tags.Complaint{Tag: rule.tag, Want: err.Error()}
	if wrong, ok := err.(*ruleError); ok && wrong.column > 0 {
		c.Want = fmt.Sprintf("column %d of the rule: %s", wrong.column, wrong.want)
		if at := strings.Index(rule.tag, rule.value); at >= 0 {
			c.Column, c.Want = at+wrong.column, wrong.want
		}
	}
	r.reading.Complain(c)
}

// listeners reads at which listeners a router's routes count.
func (r *reader) listeners(router *part, e *effects) {
	if l := router.find("entrypoints"); l != nil {
		if names := list(l.value); len(names) > 0 {
			e.keys["listeners"] = names
		}
	}
}

// secure reads whether a router is for requests over TLS only.
func (r *reader) secure(router *part, e *effects) {
	for _, l := range router.labels {
		switch {
		case l.path[0] != "tls" || len(l.path) == 1 && isOff(l.value):
			continue
		case len(l.path) == 1:
		case l.path[1] == "options" && l.value != "default":
			e.close(l, "the options may ask clients for certificates, and the listener has the settings of TLS: want a listener in the file with them, and the router without tls.options")
		default:
			e.ignore(l, "the listener has the certificates and settings of TLS: ignored")
		}
		e.secure = true
	}
}
