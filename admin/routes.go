package admin

import (
	"net/http"
	"slices"

	"sluice/route"
)

// Route is an element of /api/routes.
type Route struct {
	Host       string   `json:"host"` // empty: any, or HostRegexp
	HostRegexp string   `json:"host_regexp,omitempty"`
	Path       string   `json:"path"`
	Match      string   `json:"match"`                // prefix, exact, string_prefix, regexp
	Conditions []string `json:"conditions,omitempty"` // for people, with methods and listeners
	Listeners  []string `json:"listeners,omitempty"`  // empty: all
	Priority   int      `json:"priority"`
	Class      string   `json:"class"`           // who asks for it: document, tag, traefik
	Origin     string   `json:"origin"`          // the place: "sluice.yaml:12"
	Service    string   `json:"service"`         // empty: none
	Split      *Split   `json:"split,omitempty"` // null: all peers of the service
}

// Split is how the clients of a route are divided among groups.
type Split struct {
	Groups   []Share `json:"groups"`
	Key      string  `json:"key"` // what identifies a client: cookie, header NAME, client_address or none
	Fallback string  `json:"fallback,omitempty"`
}

// Share is a group of a Split, with what the group does on all routes of the service.
type Share struct {
	Share float64 `json:"share"` // of the clients, 0 to 1
	Group
}

func describeSplit(s *route.Split, service *reading) *Split {
	if s == nil {
		return nil
	}
	split := &Split{Key: s.Key.String(), Fallback: groupName(s.Fallback)}
	rest := 1.
	for _, share := range append(slices.Clone(s.Shares), route.Share{Group: s.Rest}) {
		size := share.Size
		if rest -= size; share.Group == s.Rest {
			size = max(rest, 0)
		}
		split.Groups = append(split.Groups, Share{Share: size, Group: groupOf(service, share.Group.Name())})
	}
	return split
}

// groupOf returns a group of a service, which may be nil: it was removed just now.
func groupOf(service *reading, name string) Group {
	if service != nil {
		for i := range service.groups {
			if service.groups[i].name == name {
				return describeGroup(&service.groups[i])
			}
		}
	}
	return Group{Group: name}
}

// describeRoute describes a route. service may be nil, as for groupOf.
func describeRoute(r *route.Route, service *reading) Route {
	return Route{
		Host: r.Host, HostRegexp: r.HostRegexp, Path: r.Path, Match: string(r.PathMatch), Conditions: r.Requirements(),
		Listeners: r.Listeners, Priority: r.Priority, Class: r.Class.String(), Origin: r.Origin, Service: r.Service.Name,
		Split: describeSplit(r.Split, service),
	}
}

// readingsByName returns the state of all services by their names.
func (h *handler) readingsByName() map[string]*reading {
	readings := make(map[string]*reading)
	for _, reading := range h.readings() {
		readings[reading.service] = reading
	}
	return readings
}

func (h *handler) routes(w http.ResponseWriter, r *http.Request) {
	routes := []Route{}
	readings := h.readingsByName()
	for _, route := range h.Table().Routes() {
		routes = append(routes, describeRoute(&route, readings[route.ServiceName()]))
	}
	writeJSON(w, http.StatusOK, routes)
}
