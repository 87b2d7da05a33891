package claim

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"sluice/config"
	"sluice/tags"
)

// asked is a route that an instance asks for.
type asked struct {
	dialect string
	route   tags.Route
	decoding
}

// same reports whether a and o, which match the same requests, differ in their weights at most.
func (a *asked) same(o *asked) bool {
	return a.digest == o.digest && a.decoded.Priority == o.decoded.Priority && a.route.Protocol == o.route.Protocol &&
		a.route.Ranked == o.route.Ranked && a.route.Closed == o.route.Closed
}

// member is an instance with the routes that it may have.
type member struct {
	Instance
	settings    tags.Keys
	whyUnusable string // why it cannot be asked as its tags say; empty: it can
	routes      map[string]asked
	tags        []string // of all dialects
}

// resolver resolves the routes of one service.
type resolver struct {
	service  Service
	rules    *Rules
	decoded  decodings
	problems *problems

	settings tags.Keys               // below services.NAME; nil: none
	groups   map[string]config.Group // nil: none
}

// decodings are checked routes, by their keys and who wrote these.
type decodings map[written]decoding

type written struct {
	digest
	by    config.Setter
	alone bool // without what the file has for routes
}

type decoding struct {
	digest  // of the keys and conditions
	decoded config.Route
	key     string // of what it matches
	parts   int    // of the regular expressions
	wrong   string
}

// digest is equal for equal values, which a map could not have as keys.
type digest [sha256.Size]byte

func digestOf(values ...any) digest {
	text, err := json.Marshal(values)
	if err != nil {
		panic(err) // what tags ask for has JSON
	}
	return sha256.Sum256(text)
}

// add records a problem of a route.
func (r *resolver) add(kind Kind, a asked, reason string, harmless bool, instances ...Named) {
	p := Problem{Ask: askOf(r.service.Name, instances, a), Kind: kind, Reason: reason, Harmless: harmless}
	if a.key != "" {
		p.Wanted = &a.decoded
	}
	r.problems.add(p)
}

// complain records a problem of a tag of an instance.
func (r *resolver) complain(i Instance, dialect, tag string, column int, reason string, harmless bool) {
	r.problems.add(Problem{Ask: Ask{r.service.Name, []Named{i.named()}, dialect, tag}, Kind: KindBad, Column: column, Reason: reason, Harmless: harmless})
}

func (i Instance) named() Named { return Named{i.ID, i.Node} }

// resolve returns the routes that the service wants to have.
func (r *resolver) resolve() []*want {
	members := make([]member, 0, len(r.service.Instances))
	for _, i := range r.service.Instances {
		members = append(members, r.member(i))
	}
	slices.SortFunc(members, func(a, b member) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node)) })
	r.resolveSettings(members)
	r.limitParts(members)
	variants := make(map[string][]*variant) // by key
	for i := range members {
		for key, a := range members[i].routes {
			at := slices.IndexFunc(variants[key], func(v *variant) bool { return v.same(&a) })
			if at < 0 {
				at = len(variants[key])
				variants[key] = append(variants[key], &variant{asked: a, oldest: members[i].Age})
			}
			v := variants[key][at]
			if members[i].Before(v.oldest) {
				v.oldest = members[i].Age
			}
			v.members = append(v.members, i)
			v.names = append(v.names, members[i].named())
		}
	}
	var list []*want
	divided := false
	for _, key := range slices.Sorted(maps.Keys(variants)) {
		w, chosen := r.chooseVariant(variants[key])
		switch {
		case len(chosen.members) == len(members):
		case r.rules.HasGroups[r.service.Name]:
			r.add(KindDifferent, w.asked, "not all instances of the service have this route, but it has groups of its own: all of them get the requests", true, w.members...)
		default:
			divided = true
			w.group = oldest(members, chosen.members)
		}
		if r.setWeights(w, members, chosen.members) {
			divided = true
		}
		list = append(list, w)
	}
	if !divided {
		return list
	}
	groups, ok := groupsOf(members)
	if !ok {
		for _, w := range list {
			r.add(KindDifferent, w.asked, fmt.Sprintf("the instances of the service have more than %d different sets of routes", maxGroups), false, w.members...)
		}
		return nil
	}
	r.groups = groups
	return list
}

// setWeights sets the weights of a route that the members with these indexes ask for, and reports
// whether these must be divided by tags.
func (r *resolver) setWeights(w *want, members []member, indexes []int) (divided bool) {
	weight := func(i int) float64 { return members[i].routes[w.key].route.Weight }
	w.weights = map[string]float64{w.group: weight(indexes[0])}
	if !slices.ContainsFunc(indexes, func(i int) bool { return weight(i) != weight(indexes[0]) }) {
		return false
	}
	if r.rules.HasGroups[r.service.Name] {
		w.weights[w.group] = 0
		r.add(KindDifferent, w.asked, "the instances ask for different weights, but the service has groups of its own: the weights do not count", true, w.members...)
		return false
	}
	w.weights = make(map[string]float64)
	for _, i := range indexes {
		w.weights[groupName(members[i].tags)] = weight(i)
	}
	return true
}

// chooseVariant returns the route that the service wants to have of several with the same key: what
// the oldest instance asks for, and of several the first one, so that all replicas choose the same.
func (r *resolver) chooseVariant(variants []*variant) (*want, *variant) {
	chosen := slices.MinFunc(variants, func(a, b *variant) int { return a.oldest.Compare(b.oldest) })
	w := &want{asked: chosen.asked, service: r.service.Name, used: chosen.decoded, members: chosen.names}
	w.used.Service, w.used.Dialect = r.service.Name, chosen.dialect
	w.used.Origin = origin(w)
	winner := w.ask()
	for _, v := range variants {
		if v == chosen {
			continue
		}
		w.over = append(w.over, askOf(r.service.Name, v.names, v.asked))
		r.problems.add(Problem{
			Ask: w.over[len(w.over)-1], Kind: KindDifferent, Harmless: true, Wanted: &v.decoded, Winner: &winner,
			Reason: "an older instance of the service asks for this route with other options, which count until no instance in service asks for them: this one gets no requests for it",
		})
	}
	return w, chosen
}

// member returns an instance with the routes that it may have.
func (r *resolver) member(i Instance) member {
	settings := make(tags.Keys)
	m := member{Instance: i, settings: settings, routes: make(map[string]asked)}
	var read []Reading
	for _, reading := range i.Readings {
		if reading.Dialect == config.DialectDefault && r.rules.Named[r.service.Name] {
			continue
		}
		m.tags = append(m.tags, reading.Tags...)
		for _, c := range reading.Complaints {
			r.complain(i, reading.Dialect, c.Tag, c.Column, c.Want, c.Harmless)
		}
		for key, value := range reading.Service {
			if known, both := settings[key]; both && !reflect.DeepEqual(known, value) {
				r.complain(i, reading.Dialect, reading.Tags[0], 0, "tags of two dialects ask for another "+key+": the first one counts", true)
				continue
			}
			settings[key] = value
		}
		read = append(read, reading)
	}
	// Some dialects always write a setting, others only if it matters: an empty one is none.
	maps.DeleteFunc(settings, func(_ string, value any) bool {
		keys, ok := value.(tags.Keys)
		return ok && len(keys) == 0
	})
	if !r.rules.Defined[r.service.Name] {
		m.whyUnusable = r.whyUnusable(settings, read)
	}
	for _, reading := range read {
		for _, route := range reading.Routes {
			r.route(&m, asked{dialect: reading.Dialect, route: route})
		}
	}
	m.tags = tags.SortedTags(m.tags...)
	return m
}

// whyUnusable returns why an instance with these settings cannot be asked as its tags say; empty:
// it can. Then it removes upstream from settings: another protocol, or no TLS, would be wrong.
func (r *resolver) whyUnusable(settings tags.Keys, readings []Reading) string {
	if r.rules.Upstream == nil {
		return ""
	}
	const reason = "the instance cannot be asked as its tags say: "
	if slices.ContainsFunc(readings, func(read Reading) bool { return read.UpstreamUnread }) {
		delete(settings, "upstream")
		return reason + "its tag sluice.upstream cannot be read, or contradicts another one"
	}
	upstream, ok := settings["upstream"].(tags.Keys)
	if !ok {
		return ""
	}
	at := written{digestOf("upstream", upstream), config.ByTag, false}
	checked, known := r.decoded[at]
	if !known {
		if err := r.rules.Upstream(upstream); err != nil {
			checked.wrong = reason + err.Error()
		}
		r.decoded[at] = checked
	}
	if checked.wrong != "" {
		delete(settings, "upstream")
	}
	return checked.wrong
}

// route adds a route to an instance, if the service may have it.
func (r *resolver) route(m *member, a asked) {
	problem := func(kind Kind, reason string, harmless bool) { r.add(kind, a, reason, harmless, m.named()) }
	d := r.decode(a.route)
	if a.route.Protocol != "" && a.route.Keys["use"] != nil {
		d.wrong = "named actions are for requests, and not for connections"
	}
	if d.wrong == "" && !a.route.Closed {
		d.wrong = m.whyUnusable
	}
	if d.wrong != "" && !a.route.Closed && config.MayRestrict(a.route.Keys) {
		problem(KindBad, d.wrong+"; the route denies every request", false)
		a.route = a.route.Deny()
		d = r.decode(a.route)
	}
	if d.wrong != "" {
		problem(KindBad, d.wrong, false)
		return
	}
	if reason := r.rules.auth(a.route.Keys, d.decoded); reason != "" {
		problem(KindRefused, reason, false)
		a.route = a.route.Deny()
		d = r.decode(a.route)
	}
	a.decoding = d
	a.decoded.Service, a.decoded.Dialect, a.decoded.Protocol = r.service.Name, a.dialect, a.route.Protocol
	priority, refused := r.rules.allow(r.service.InConsul, a.decoded)
	if refused != "" {
		problem(KindRefused, refused, false)
		return
	}
	if setting := r.rules.Requests[r.service.Name]; a.route.Protocol != "" && setting != "" {
		reason := "the service has " + setting + " in the file, which connections for TCP cannot have"
		if !a.route.Restricts() {
			problem(KindRefused, reason, false)
			return
		}
		problem(KindRefused, reason+"; the route denies every request", false) // by config.Merge
	}
	if port := a.route.Port; port != "" {
		if a.decoded.Limit(r.rules.StreamPorts[port]...); len(a.decoded.Listeners) == 0 {
			problem(KindRefused, "a tag opens no port: want a listener for TCP in the file, { address: ':"+port+"', protocol: tcp }", false)
			return
		}
	}
	if reason, harmless := r.rules.listeners(&a.decoded); reason != "" {
		if problem(KindRefused, reason, harmless); !harmless {
			return
		}
	}
	if l := a.decoded.RateLimit; l != nil && l.OfFleet() && !r.rules.Replicas {
		problem(KindRefused, "rate_limit.scope: fleet needs consul.register in the file, which says who is a replica: each replica keeps the limit by itself", true)
	}
	if a.decoded.Priority = a.route.Priority; !a.route.Ranked && a.decoded.Priority > priority {
		problem(KindRefused, fmt.Sprintf("the claim of the service allows priorities up to %d: this one counts", priority), true)
		a.decoded.Priority = priority
	}
	if a.route.Protocol == "" {
		r.addRoute(m, a)
		return
	}
	for _, name := range a.decoded.Listeners { // each may be another service's
		a.decoded.Limit(name)
		a.key = a.decoded.StreamKey(name)
		r.addRoute(m, a)
	}
}

// addRoute adds a route to an instance, unless another tag of it has one for the same requests.
// A route with restrictions counts before one without.
func (r *resolver) addRoute(m *member, a asked) {
	if known, twice := m.routes[a.key]; twice {
		if a.route.Restricts() && !known.route.Restricts() {
			m.routes[a.key], a, known = a, known, a
		}
		if !known.same(&a) || known.route.Weight != a.route.Weight {
			r.add(KindBad, a, "another tag of the instance is a route for the same requests: "+tags.Shorten(tagOf(known.route)), false, m.named())
		}
		return
	}
	m.routes[a.key] = a
}

// decode checks the keys of a route as in a file, and that tags or the meta may set them.
func (r *resolver) decode(asked tags.Route) decoding {
	d, by, c := decoding{digest: digestOf(asked.Keys, asked.More)}, config.ByTag, r.rules.Config
	if asked.Meta {
		by = config.ByRegistration
	}
	if asked.Closed || asked.Protocol != "" {
		c = nil // it needs no actions, or cannot have those of requests
	}
	at := written{d.digest, by, c == nil}
	if known, ok := r.decoded[at]; ok {
		return known
	}
	decoded, err := config.DecodeRoute(asked.Keys, by, c)
	if err != nil {
		d.wrong = err.Error()
	} else if checked, err := decoded.Compile(asked.More); err != nil {
		d.wrong = err.Error()
	} else {
		d.decoded, d.key, d.parts = decoded, checked.Key, checked.Parts
	}
	r.decoded[at] = d
	return d
}

// variant is what some instances of a service ask for with one route.
type variant struct {
	asked
	oldest  Age
	members []int // indexes
	names   []Named
}

// resolveSettings takes the settings of the oldest usable instance with routes; those asking for
// others lose their routes.
func (r *resolver) resolveSettings(members []member) {
	var first *member
	for i := range members {
		if m := &members[i]; len(m.routes) > 0 && m.whyUnusable == "" && (first == nil || m.Before(first.Age)) {
			first = m
		}
	}
	if first == nil {
		return
	}
	for i := range members {
		m := &members[i]
		switch {
		case len(m.routes) == 0 || m.whyUnusable != "": // its routes deny every request
		case !r.rules.Defined[r.service.Name] && !reflect.DeepEqual(m.settings, first.settings):
			r.closeRoutes(m, KindDifferent, "an older instance of the service asks for other settings, which the service has only once: they count until no instance in service asks for them")
		case !r.rules.Insecure && m.settings.Get("upstream", "tls", "skip_verify") == "true":
			r.closeRoutes(m, KindRefused, "TLS without verification needs catalog.insecure: true in the file, or the service there with upstream.tls")
		case r.settings == nil:
			r.settings = m.settings.Clone()
		}
	}
}

// closeRoutes removes the routes of an instance. Those with restrictions stay and deny every
// request: else a broader route of others might answer.
func (r *resolver) closeRoutes(m *member, kind Kind, reason string) {
	for _, key := range slices.Sorted(maps.Keys(m.routes)) {
		a := m.routes[key]
		if !a.route.Restricts() {
			r.add(kind, a, reason, false, m.named())
			delete(m.routes, key)
			continue
		}
		r.add(kind, a, reason+"; the route denies every request", false, m.named())
		a.route = a.route.Deny()
		closed := r.decode(a.route)
		a.decoded.Actions, a.digest = closed.decoded.Actions, closed.digest
		m.routes[key] = a
	}
}

// origin says for people where a route comes from.
func origin(w *want) string {
	from := w.members[0].ID
	if n := len(w.members) - 1; n > 0 {
		from += fmt.Sprintf(" and %d more", n)
	}
	if w.dialect == config.DialectDefault {
		return fmt.Sprintf("%s, for %s without tags", tags.Shorten(tagOf(w.route)), from)
	}
	return fmt.Sprintf("tag %s of %s", tags.Shorten(tagOf(w.route)), from)
}
