package claim

import (
	"slices"

	"sluice/config"
	"sluice/discovery"
	"sluice/tags"
)

// Instance is an instance with what its tags ask for.
type Instance struct {
	ID, Node string
	Age
	Meta     map[string]string
	Readings []Reading
}

// Age decides which of several instances says what a service gets.
type Age struct {
	Serving, Usable bool   // as the methods of discovery.Instance
	Registered      uint64 // of discovery.Instance
}

// AgeOf returns the age of an instance.
func AgeOf(i *discovery.Instance) Age { return Age{i.Serving(), i.Usable(), i.Registered} }

// Before reports whether an instance of age a decides before one of age o: the oldest in service,
// else the oldest on probation, else the oldest.
func (a Age) Before(o Age) bool {
	switch {
	case a.Serving != o.Serving:
		return a.Serving
	case a.Usable != o.Usable:
		return a.Usable
	}
	return a.Registered < o.Registered
}

// Compare orders ages by who decides.
func (a Age) Compare(o Age) int {
	switch {
	case a.Before(o):
		return -1
	case o.Before(a):
		return 1
	}
	return 0
}

// Reading is what the tags of an instance in one dialect ask for.
type Reading struct {
	Dialect string // as in catalog.tags
	tags.Reading
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
	Settings map[string]tags.Keys
	// Groups divide the instances of a service by their tags, if a route needs it.
	Groups map[string]map[string]config.Group
	// Holders are the services of the routes, with spaces between them, by what they match.
	Holders  map[string]string
	Problems []Problem
}

// Lacking returns the services whose tags ask for a route that they do not get, or get closed for
// everybody, sorted.
func (r *Result) Lacking() (services []string) {
	for _, p := range r.Problems {
		if !p.Harmless {
			services = append(services, p.Service)
		}
	}
	slices.Sort(services)
	return slices.Compact(services)
}

// Route is a route of a service.
type Route struct {
	config.Route        // complete, but for what needs the whole configuration
	Key          string // route.Checked.Key, or config.Route.StreamKey
	Members      string // the group in Result.Groups that gets the requests; empty: all instances
	By           Ask
	Tags         []string // all that make the route, sorted
	// With are the other services that share the route. Then, and if the instances have
	// different weights, config.Route.Parts are what each gets, and there is no one service.
	With []Claim
	// Over are the asks for the same requests that lost against this one: of other
	// services, and of instances of the same service with other options.
	Over []Ask
}

// Claims returns the parts of all services in the route; most routes have one.
func (r *Route) Claims() []Claim { return append([]Claim{{r.By, r.Tags}}, r.With...) }

func (r *Route) services() (names []string) {
	for _, c := range r.Claims() {
		names = append(names, c.Service)
	}
	return names
}

// Claim is the part of a service in a route that several share.
type Claim struct {
	Ask
	Tags []string // all that make the route, sorted
}

// Ask is what instances of a service ask for with a tag.
type Ask struct {
	Service   string  // in sluice
	Instances []Named // sorted, each once
	Dialect   string  // as in catalog.tags
	Tag       string  // as registered; of a route of several tags, that with its rule
}

// Named names an instance.
type Named struct{ ID, Node string }

// IDs returns the ids of the instances, sorted, each once.
func (a Ask) IDs() []string {
	ids := make([]string, len(a.Instances))
	for i, named := range a.Instances {
		ids[i] = named.ID
	}
	return slices.Compact(ids)
}

// Kind says why a tag is not used as it is.
type Kind string

const (
	// KindBad: it is wrong, or asks for what sluice does not have.
	KindBad Kind = "bad"
	// KindRefused: the operator does not allow it.
	KindRefused Kind = "refused"
	// KindConflict: another service, or a document of the operator, has a route for the
	// same requests.
	KindConflict Kind = "conflict"
	// KindDifferent: an older instance of the service asks for something else.
	KindDifferent Kind = "different"
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{KindBad, KindRefused, KindConflict, KindDifferent} }

// Problem is a tag that is not used as it is, or not at all.
type Problem struct {
	Ask
	Kind   Kind
	Column int // from 1; 0: the whole tag
	Reason string
	// Harmless says that the route exists nevertheless, without what the reason names.
	Harmless bool
	// Wanted is the route that the tag asks for; nil: it is about more than one, or about none.
	Wanted *config.Route
	// Winner has the route instead; nil: nobody, or an operator.
	Winner *Ask
}
