package route

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	mirrorRequests = descriptions.New("mirror_requests_total", "Copies of requests that were sent and have ended, by class of the status; one without an answer is 5xx.", "service", "mirror", "group", "class")
	mirrorDuration = descriptions.New("mirror_request_duration_seconds", "Time from the pick of a peer for a copy to its response head.", "service", "mirror", "group")
	mirrorFailures = descriptions.New("mirror_failures_total", "Copies of requests that were sent and got no complete answer.", "service", "mirror", "group")
	mirrorDropped  = descriptions.New("mirror_dropped_total", "Requests that were selected for a copy and not sent, by reason.", "service", "mirror", "group", "reason")
	mirrorInFlight = descriptions.New("mirror_requests_in_flight", "Copies of requests in flight.", "service", "mirror", "group")

	routeRequests = descriptions.New("route_requests_total", "Finished requests of the routes with a name, by class of the status sent to the client.", "service", "route", "class")
	routeDuration = descriptions.New("route_request_duration_seconds", "Time from a request's arrival to the end of its response, of the routes with a name.", "service", "route")

	routeShare = descriptions.New("route_share", "Share of a service in the requests of a route with several, at present, 0 to 1; of several routes for a host and path, of the first.", "host", "path", "service", "group")
	chainShare = descriptions.New("chain_share", "Share of a service in the requests of a branch of a discovery chain that a splitter divides, at present, 0 to 1.", "service", "branch", "target")
)

// Metrics returns the collector of the table that read returns.
func Metrics(read func() *Table) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		table := read()
		collectMirrors(s.PerService(), table)
		collectNamed(s.PerService(), table)
		collectShares(s, table)
		collectChains(s, table)
	})
}

// collectMirrors sends the series of the copies of all routes.
func collectMirrors(s metrics.Series, table *Table) {
	var seen []*Copies
	for _, r := range table.ends() {
		m := r.Mirror
		if m == nil || slices.Contains(seen, m.Copies) {
			continue
		}
		c := m.Copies
		seen = append(seen, c)
		answers := c.Answers().Snapshot()
		for class := range metrics.Class(metrics.NumClasses) {
			s.Counter(mirrorRequests, answers.Class(class), c.From, c.To, c.Group, class.String())
		}
		s.Histogram(mirrorDuration, &answers, c.From, c.To, c.Group)
		s.Counter(mirrorFailures, c.Failed(), c.From, c.To, c.Group)
		for why, n := range c.Dropped() {
			s.Counter(mirrorDropped, n, c.From, c.To, c.Group, Dropped(why).String())
		}
		s.Gauge(mirrorInFlight, float64(c.InFlight()), c.From, c.To, c.Group)
	}
}

// collectNamed sends the series of the routes that are counted by name.
func collectNamed(s metrics.Series, table *Table) {
	seen := make(map[*metrics.Requests]bool)
	for _, r := range table.ends() {
		if r.Requests == nil || seen[r.Requests] {
			continue
		}
		seen[r.Requests] = true
		requests := r.Requests.Snapshot()
		for class := range metrics.Class(metrics.NumClasses) {
			s.Counter(routeRequests, requests.Class(class), r.ServiceName(), r.Name, class.String())
		}
		s.Histogram(routeDuration, &requests, r.ServiceName(), r.Name)
	}
}

// collectShares sends the series of the routes with several services.
func collectShares(s metrics.Series, table *Table) {
	seen := make(map[[2]string]bool)
	for _, e := range table.entries {
		r := &e.route
		if r.Weighted == nil {
			continue
		}
		of := [2]string{r.Host, r.Path}
		if r.HostRegexp != "" {
			of[0] = "~" + r.HostRegexp
		}
		if seen[of] {
			continue
		}
		seen[of] = true
		for i, share := range r.Weighted.Shares() {
			target := &r.Weighted.Targets[i]
			s.Gauge(routeShare, share, of[0], of[1], target.Route.Service.Name, target.Group())
		}
	}
}

// collectChains sends the series of the discovery chains with splitters.
func collectChains(s metrics.Series, table *Table) {
	seen := make(map[*Chain]bool)
	for _, r := range table.ends() {
		if r.Router == nil || seen[r.Router.Chain] {
			continue
		}
		seen[r.Router.Chain] = true
		named := make(map[string]bool)
		for i := range r.Router.Ways {
			w, branch := r.Router.Ways[i].Weighted, r.Router.Chain.branches[i].Route.Origin
			if w == nil || named[branch] {
				continue
			}
			named[branch] = true
			shares := make(map[string]float64) // several targets may be one service, with other edits
			for j, share := range w.Shares() {
				shares[w.Targets[j].Route.Service.Name] += share
			}
			for target, share := range shares {
				s.Gauge(chainShare, share, r.Service.Name, branch, target)
			}
		}
	}
}

// ends returns the routes and the targets of the ones with several services: what requests get.
func (t *Table) ends() (all []*Route) {
	for _, e := range t.entries {
		all = append(all, &e.route)
		if w := e.route.Weighted; w != nil {
			for i := range w.Targets {
				all = append(all, w.Targets[i].Route)
			}
		}
	}
	return all
}
