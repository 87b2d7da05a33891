package claim

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"sluice/catalog"
	"sluice/catalog/native"
	"sluice/config"
	"sluice/route"
)

// Instance is an instance with what its tags ask for.
type Instance struct {
	ID, Node string
	Weight   int // share of traffic; 0: it gets none at present
	Meta     map[string]string
	Readings []Reading
}

// Reading is what the tags of an instance in one dialect ask for.
type Reading struct {
	Dialect string // as in catalog.tags
	catalog.Reading
}

// Service is a service with its instances.
type Service struct {
	Name      string // in sluice
	InConsul  string // its name there
	Instances []Instance
}

// Result is what the tags of all instances together come to.
type Result struct {
	Routes []Route
	// Settings are the settings of services, below services.NAME.
	Settings map[string]catalog.Keys
	// Groups divide the instances of a service by their tags, if a route needs it.
	Groups map[string]map[string]Group
	// Holders are the services of the routes, by what they match.
	Holders  map[string]string
	Problems []Problem
}

// Route is a route of a service.
type Route struct {
	config.Route        // complete, but for what needs the whole configuration
	Members      string // the group in Result.Groups that gets the requests; empty: all instances
}

// Group selects instances.
type Group struct {
	Tags []string          // all of them
	Meta map[string]string // all of these keys with these values
}

// Problem is a tag that is not used as it is, or not at all.
type Problem struct {
	Service   string   // in sluice
	Instances []string // ids, at most 10
	Dialect   string   // as in catalog.tags
	Tag       string
	Column    int // from 1; 0: the whole tag
	Reason    string
	// Harmless says that the route exists nevertheless, without what the reason names.
	Harmless bool
}

// maxGroups limits the groups of a service.
const maxGroups = 256

// asked is a route that an instance asks for.
type asked struct {
	dialect string
	route   catalog.Route
	decoded config.Route
	key     string // of what it matches
	text    string // of all of it
}

// member is an instance with the routes that it may have.
type member struct {
	Instance
	settings string // text of its settings
	routes   map[string]asked
	tags     []string // of all dialects
}

// resolver resolves one Result.
type resolver struct {
	rules    Rules
	result   Result
	decoded  map[string]decoding // by text of the keys
	problems map[problemKey]int  // index in result.Problems
}

type decoding struct {
	route config.Route
	key   string
	wrong string
}

// Resolve decides which routes are used. holders are those of the last result: of two services
// that ask for the same route, the one that has it keeps it.
func Resolve(services []Service, rules Rules, holders map[string]string) Result {
	r := &resolver{
		rules: rules, decoded: make(map[string]decoding), problems: make(map[problemKey]int),
		result: Result{Settings: make(map[string]catalog.Keys), Groups: make(map[string]map[string]Group), Holders: make(map[string]string)},
	}
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b Service) int { return cmp.Compare(a.Name, b.Name) })
	wanted := make(map[string][]*want)
	for _, s := range services {
		for _, w := range r.service(s) {
			wanted[w.key] = append(wanted[w.key], w)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		list := wanted[key]
		if origin, taken := rules.Taken[key]; taken {
			for _, w := range list {
				r.problem(w.service, w.members, w.asked, "the operator has a route for the same requests: "+origin, false)
			}
			continue
		}
		winner := list[0]
		for _, w := range list {
			if holders[key] == w.service {
				winner = w
			}
		}
		for _, w := range list {
			if w != winner {
				r.problem(w.service, w.members, w.asked, "the service "+winner.service+" has a route for the same requests, and keeps it", false)
			}
		}
		r.result.Routes = append(r.result.Routes, Route{winner.used, winner.group})
		r.result.Holders[key] = winner.service
	}
	return r.result
}

// want is a route that a service wants to have.
type want struct {
	asked
	service string
	used    config.Route
	group   string
	members []Instance
}

func (r *resolver) problem(service string, instances []Instance, a asked, reason string, harmless bool) {
	p := Problem{Service: service, Dialect: a.dialect, Tag: tagOf(a.route), Reason: reason, Harmless: harmless}
	for _, i := range instances {
		r.add(p, i)
	}
}

// tagOf returns the tag that best names a route: that with its rule, or the only one.
func tagOf(route catalog.Route) string {
	for _, tag := range route.Tags {
		if strings.Contains(tag, ".rule=") {
			return tag
		}
	}
	return route.Tags[0]
}

// maxNamed is the number of instances that a problem names.
const maxNamed = 10

// problemKey is a problem without its instances.
type problemKey struct {
	service, dialect, tag, reason string
	column                        int
}

func (r *resolver) add(p Problem, i Instance) {
	key := problemKey{p.Service, p.Dialect, p.Tag, p.Reason, p.Column}
	at, known := r.problems[key]
	if !known {
		at = len(r.result.Problems)
		r.problems[key] = at
		r.result.Problems = append(r.result.Problems, p)
	}
	if list := &r.result.Problems[at].Instances; len(*list) < maxNamed && !slices.Contains(*list, i.ID) {
		*list = append(*list, i.ID)
	}
}

// service returns the routes that a service wants to have.
func (r *resolver) service(s Service) []*want {
	members := make([]member, 0, len(s.Instances))
	for _, i := range s.Instances {
		members = append(members, r.member(s, i))
	}
	slices.SortFunc(members, func(a, b member) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node)) })
	r.settle(s, members)
	variants := make(map[string]map[string]*variant) // by key and text
	for i := range members {
		for key, a := range members[i].routes {
			if variants[key] == nil {
				variants[key] = make(map[string]*variant)
			}
			v := variants[key][a.text]
			if v == nil {
				v = &variant{asked: a}
				variants[key][a.text] = v
			}
			v.weight += members[i].Weight
			v.members = append(v.members, i)
		}
	}
	var list []*want
	divided := false
	for _, key := range slices.Sorted(maps.Keys(variants)) {
		chosen := heaviest(variants[key])
		w := &want{asked: chosen.asked, service: s.Name, used: chosen.decoded}
		w.used.Service, w.used.Dialect = s.Name, chosen.dialect
		for _, i := range chosen.members {
			w.members = append(w.members, members[i].Instance)
		}
		for _, v := range variants[key] {
			for _, i := range v.members {
				if v != chosen {
					r.problem(s.Name, []Instance{members[i].Instance}, v.asked, "more instances of the service ask for this route with other options: it gets no requests for it until they are fewer", true)
				}
			}
		}
		w.used.Origin = origin(w)
		switch {
		case len(chosen.members) == len(members):
		case r.rules.Divided[s.Name]:
			r.problem(s.Name, w.members, w.asked, "not all instances of the service have this route, but it has groups of its own: all of them get the requests", true)
		default:
			divided = true
			w.group = largest(members, chosen.members)
		}
		list = append(list, w)
	}
	if divided {
		groups, ok := groupsOf(members)
		if !ok {
			for _, w := range list {
				r.problem(s.Name, w.members, w.asked, fmt.Sprintf("the instances of the service have more than %d different sets of routes", maxGroups), false)
			}
			return nil
		}
		r.result.Groups[s.Name] = groups
	}
	return list
}

// member returns an instance with the routes that it may have.
func (r *resolver) member(s Service, i Instance) member {
	m := member{Instance: i, routes: make(map[string]asked)}
	settings := make(catalog.Keys)
	for _, reading := range i.Readings {
		m.tags = append(m.tags, reading.Tags...)
		for _, c := range reading.Complaints {
			r.add(Problem{Service: s.Name, Dialect: reading.Dialect, Tag: c.Tag, Column: c.Column, Reason: c.Want, Harmless: c.Harmless}, i)
		}
		for key, value := range reading.Service {
			if known, both := settings[key]; both && fmt.Sprint(known) != fmt.Sprint(value) {
				r.add(Problem{Service: s.Name, Dialect: reading.Dialect, Tag: i.ID, Reason: "tags of two dialects ask for another " + key + ": the first one counts", Harmless: true}, i)
				continue
			}
			settings[key] = value
		}
		for _, route := range reading.Routes {
			r.route(s, &m, asked{dialect: reading.Dialect, route: route})
		}
	}
	if m.settings = settings.String(); r.rules.Defined[s.Name] {
		m.settings = "{}"
	}
	m.tags = catalog.SortedTags(m.tags...)
	return m
}

// route adds a route to an instance, if the service may have it.
func (r *resolver) route(s Service, m *member, a asked) {
	refuse := func(reason string, harmless bool) { r.problem(s.Name, []Instance{m.Instance}, a, reason, harmless) }
	d := r.decode(a.route)
	if d.wrong != "" && !a.route.Closed && restricts(a.route.Keys) {
		refuse(d.wrong+"; the route denies every request", false)
		a.route = a.route.Deny()
		d = r.decode(a.route)
	}
	if d.wrong != "" {
		refuse(d.wrong, false)
		return
	}
	priority, refused := r.rules.allow(s.InConsul, d.route)
	if refused != "" {
		refuse(refused, false)
		return
	}
	a.decoded, a.key = d.route, d.key
	if reason, harmless := r.rules.listeners(&a.decoded); reason != "" {
		if refuse(reason, harmless); !harmless {
			return
		}
	}
	if a.decoded.Priority = a.route.Priority; !a.route.Ranked && a.decoded.Priority > priority {
		refuse(fmt.Sprintf("the claim of the service allows priorities up to %d: this one counts", priority), true)
		a.decoded.Priority = priority
	}
	a.text = fmt.Sprintf("%s %d %t %t", a.route.Keys, a.decoded.Priority, a.route.Ranked, a.route.Closed)
	if known, twice := m.routes[a.key]; twice {
		if known.text != a.text {
			refuse("another tag of the instance is a route for the same requests: "+catalog.Shorten(tagOf(known.route)), false)
		}
		return
	}
	m.routes[a.key] = a
}

// restricts reports whether a route is to be for some clients only.
func restricts(keys catalog.Keys) bool {
	return slices.ContainsFunc([]string{"allow", "deny", "basic_auth", "forward_auth"}, func(key string) bool { return keys[key] != nil })
}

// decode checks the keys of a route as those in a file.
func (r *resolver) decode(asked catalog.Route) decoding {
	text := asked.Keys.String()
	if d, known := r.decoded[text]; known {
		return d
	}
	var d decoding
	if decoded, err := config.DecodeRoute(asked.Keys); err != nil {
		d.wrong = err.Error()
	} else if checked, err := route.Check(decoded.Target()); err != nil {
		var list []string
		for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
			if wrong, ok := errors.AsType[*route.Error](err); ok {
				list = append(list, fmt.Sprintf("%s %q: %s", wrong.Field, wrong.Value, wrong.Reason))
			}
		}
		d.wrong = strings.Join(list, "; ")
	} else {
		d.route, d.key = decoded, checked.Key
	}
	r.decoded[text] = d
	return d
}

// variant is what some instances of a service ask for with one route.
type variant struct {
	asked
	weight  int
	members []int // indexes
}

// heaviest returns the variant with the most weight, and of several the one with the smallest
// text: all replicas choose the same one.
func heaviest(variants map[string]*variant) *variant {
	var chosen *variant
	for _, text := range slices.Sorted(maps.Keys(variants)) {
		if v := variants[text]; chosen == nil || v.weight > chosen.weight {
			chosen = v
		}
	}
	return chosen
}

// settle decides the settings of a service: those that most of its instances with routes ask
// for. The others lose their routes.
func (r *resolver) settle(s Service, members []member) {
	weights := make(map[string]int)
	for _, m := range members {
		if len(m.routes) > 0 {
			weights[m.settings] += m.Weight
		}
	}
	chosen := ""
	for _, text := range slices.Sorted(maps.Keys(weights)) {
		if chosen == "" || weights[text] > weights[chosen] {
			chosen = text
		}
	}
	settled := false
	for i := range members {
		m := &members[i]
		switch {
		case len(m.routes) == 0:
		case m.settings != chosen:
			r.drop(s, m, "more instances of the service ask for other settings, which the service has only once")
		case !r.rules.Insecure && strings.Contains(chosen, `"insecure":"true"`):
			r.drop(s, m, "TLS without verification needs catalog.insecure: true in the file, or the service there with upstream.tls")
		case !settled:
			settled = true
			settings := make(catalog.Keys)
			for _, reading := range m.Readings {
				for key, value := range reading.Service {
					if _, known := settings[key]; !known {
						settings[key] = value
					}
				}
			}
			r.result.Settings[s.Name] = settings.Clone()
		}
	}
}

// drop takes its routes from an instance.
func (r *resolver) drop(s Service, m *member, reason string) {
	for _, key := range slices.Sorted(maps.Keys(m.routes)) {
		r.problem(s.Name, []Instance{m.Instance}, m.routes[key], reason, false)
	}
	m.routes = nil
}

// origin says for people where a route comes from.
func origin(w *want) string {
	from := w.members[0].ID
	if n := len(w.members) - 1; n > 0 {
		from += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("tag %s of %s", catalog.Shorten(tagOf(w.route)), from)
}

// largest returns the group of most of the members with these indexes.
func largest(members []member, indexes []int) string {
	count := make(map[string]int)
	for _, i := range indexes {
		count[groupName(members[i].tags)] += members[i].Weight
	}
	chosen := ""
	for _, name := range slices.Sorted(maps.Keys(count)) {
		if chosen == "" || count[name] > count[chosen] {
			chosen = name
		}
	}
	return chosen
}

// groupName returns the name of the group of instances whose routes are made by tags. An
// instance with more tags belongs to an earlier group, in the order of names.
func groupName(tags []string) string {
	h := fnv.New64a()
	for _, tag := range tags {
		h.Write([]byte(tag + "\x00"))
	}
	return fmt.Sprintf("tags-%04d-%016x", max(0, 9999-len(tags)), h.Sum64())
}

// has reports whether an entry of the meta makes a route.
func (i Instance) has(key, value string) bool {
	found, ok := i.Meta[key]
	return ok && found == value && strings.HasPrefix(key, native.MetaRoute)
}

// groupsOf divides instances by the tags that make their routes. The instances without any
// belong to no group. It reports false for too many groups.
func groupsOf(members []member) (map[string]Group, bool) {
	groups := make(map[string]Group)
	for _, m := range members {
		if len(m.tags) == 0 {
			continue
		}
		var g Group
		for _, tag := range m.tags {
			key, value, isMeta := strings.Cut(tag, "=")
			if isMeta && m.has(key, value) {
				if g.Meta == nil {
					g.Meta = make(map[string]string)
				}
				g.Meta[key] = value
				continue
			}
			g.Tags = append(g.Tags, tag)
		}
		groups[groupName(m.tags)] = g
	}
	return groups, len(groups) <= maxGroups
}
