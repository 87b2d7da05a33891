package routes

import (
	"sluice/config"
	"sluice/observe/metrics"
)

// maxNamedRoutes is how many names of routes and services are counted. They share `/metrics`. Those
// of the file come first, then those of documents, then those of tags.
const maxNamedRoutes = 500

// maxNamedByTags is how many of them the tags of one service may have, so that it does not take
// those of all others.
const maxNamedByTags = maxNamedRoutes / 20

// namedRoutes are the counters of routes with a name. They go on in the next configuration that
// has the name for the same service.
type namedRoutes map[namedRoute]*metrics.Requests

type namedRoute struct{ service, name string }

// requestsOf returns the counters of r; nil: it has no name, or there are too many, or it is
// divided, so that each of its parts has its own.
func (b *builder) requestsOf(r *config.Route) *metrics.Requests {
	id := namedRoute{r.Service, r.Name}
	if r.Name == "" || len(r.Divided()) > 0 {
		return nil
	}
	if byTags := r.Dialect != ""; b.named[id] == nil {
		if len(b.named) == maxNamedRoutes || byTags && b.namedByTags[r.Service] == maxNamedByTags {
			return nil
		}
		if byTags {
			b.namedByTags[r.Service]++
		}
	}
	requests, _ := keep(b.named, b.before.named, id, func(namedRoute) (*metrics.Requests, error) { return metrics.NewRequests(), nil })
	return requests
}
