package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/config/decoding"
	"sluice/route"
	"sluice/tags"
)

// Addition contains the services and routes that one origin adds to a configuration. They
// are complete, as in a [Config].
type Addition struct {
	Origin   string // for messages
	Services map[string]Service
	Routes   []Route
	Streams  []Route // of connections, each with one listener
}

// Merge returns c with the services, routes and streams of the additions. c has precedence over
// the additions, and an earlier addition over a later one. Merge omits a later service
// with the same name, a later route for the same requests, and a route whose service,
// group or listener does not exist, and returns an error for each in conflicts. Of a route it
// omits a mirror whose service or group does not exist. It changes neither c nor the additions.
func Merge(c *Config, additions ...Addition) (merged *Config, conflicts Errors) {
	copied := *c
	services := make(map[string]string) // the origin of each
	unindexed := make(unindexed)
	copied.Services, copied.Routes = make(map[string]Service), nil
	additions = slices.Insert(slices.Clone(additions), 0, Addition{Origin: "the file", Services: c.Services, Routes: c.Routes})
	refuse := func(added Addition, key, want string) {
		conflicts = append(conflicts, &Error{Origin: added.Origin, Key: key, Want: want})
	}
	for _, added := range additions {
		for _, name := range slices.Sorted(maps.Keys(added.Services)) {
			if first, taken := services[name]; taken {
				refuse(added, decoding.Join("services", name), "ignored: "+first+" has a service with this name")
				continue
			}
			services[name], copied.Services[name] = added.Origin, added.Services[name]
		}
	}
	total := 0
	for _, added := range additions {
		total += len(added.Routes)
	}
	first := make(map[string]string, total) // the origin of each, by the requests of the routes
	copied.Routes = make([]Route, 0, total)
	for _, added := range additions {
		for i, r := range added.Routes {
			r.Origin = cmp.Or(r.Origin, added.Origin)
			refuse := func(key, want string) { refuse(added, decoding.Item("routes", i)+key, want) }
			checked, err := route.Check(r.Target())
			if err != nil {
				refuse("", err.Error())
				continue
			}
			r.checked = checked
			before, taken := first[checked.Key]
			listener, wantListener := c.missingListener(&r)
			missing := missingTarget(&r, copied.Services)
			switch {
			case taken:
				refuse("", "ignored: "+before+" has a route for the same requests")
			case missing != "":
				refuse("", "ignored: "+missing)
			case wantListener != "":
				refuse(".listeners", fmt.Sprintf("ignored: listener %q: %s", listener, wantListener))
			case unindexed.full(checked):
				refuse("", "ignored: "+tooManyRegexps(checked))
			default:
				if missing := missingMirror(&r, copied.Services); missing != "" {
					refuse(".mirror", "ignored: "+missing)
					r.Mirror = nil
				}
				first[checked.Key], copied.Routes = added.Origin, append(copied.Routes, r)
			}
		}
	}
	if len(copied.Routes) == 0 {
		copied.Routes = nil
	}
	for _, added := range additions {
		conflicts = append(conflicts, copied.addStreams(added)...)
	}
	return &copied, conflicts
}

// addStreams adds the routes of connections of an addition to copies of their listeners, and
// returns an error for each that it omits, or changes: one that says who may use it denies every
// connection if its service can have none.
func (c *Config) addStreams(added Addition) (conflicts Errors) {
	if len(added.Streams) == 0 {
		return nil
	}
	c.Listeners = slices.Clone(c.Listeners)
	taken := make(map[string]bool)
	for _, l := range c.Listeners {
		for _, key := range l.StreamKeys() {
			taken[key] = true
		}
	}
	for i, r := range added.Streams {
		name := strings.Join(r.Listeners, ",")
		at := slices.IndexFunc(c.Listeners, func(l Listener) bool { return l.Name == name && l.Protocol == ProtocolTCP })
		service := c.Services[r.Service]
		why, denies := "", false
		switch {
		case at < 0:
			why = fmt.Sprintf("there is no listener %q with protocol: tcp", name)
		case missing(c.Services, r.Service, true, r.groups()...) != "":
			why = missing(c.Services, r.Service, true, r.groups()...)
		case r.Protocol == tags.ProtocolEndedTLS && c.Listeners[at].TLS == nil:
			why = "the listener has no tls: want it in the file, or tls.passthrough"
		case r.Protocol == tags.ProtocolTCP && c.Listeners[at].TLS != nil:
			why = "the listener has tls, so its clients must use it"
		case taken[r.StreamKey(name)]:
			why = "the listener has a service for the same connections"
		case service.NoStreams() != "":
			why = fmt.Sprintf("the service %q has %s, which needs requests", r.Service, service.NoStreams())
			if denies = r.Built().Restricts(); denies { // without it, a broader route might answer
				r.Actions = denial()
			}
		}
		if denies {
			conflicts = append(conflicts, &Error{Origin: added.Origin, Key: decoding.Item("streams", i), Want: "denies every connection: " + why})
		} else if why != "" {
			conflicts = append(conflicts, &Error{Origin: added.Origin, Key: decoding.Item("streams", i), Want: "ignored: " + why})
			continue
		}
		taken[r.StreamKey(name)] = true
		l := &c.Listeners[at]
		l.Streams = append(slices.Clip(l.Streams), r)
	}
	return conflicts
}

// denial returns the actions of a route that lets nobody pass.
func denial() Actions {
	everybody := tags.Route{}.Deny()
	r, err := DecodeRoute(everybody.Keys, ByTag, nil)
	if err != nil {
		panic(err) // its keys are constants
	}
	return r.Actions
}

// missingListener returns the first listener of r that is missing, and why.
func (c *Config) missingListener(r *Route) (name, want string) {
	for _, name := range r.Listeners {
		if want := c.WantListener(name); want != "" {
			return name, want
		}
	}
	return "", ""
}
