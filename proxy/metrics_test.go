package proxy

import (
	"testing"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/route"
	"sluice/test/verify"
)

// Each answer counts once by its status and reason, and for its route if that has a name.
func TestAnswersCountByReasonAndRoute(t *testing.T) {
	t.Parallel()
	p := startLogged(t, Options{}, answersOK(t))
	named := metrics.NewRequests()
	none := p.newService("none", balancer.Options{NewTransport: p.NewTransport(transportOf(t))})
	p.setRoutes(
		route.Route{Path: "/named", Service: p.service, Name: "checkout", Requests: named},
		route.Route{Path: "/plain", Service: p.service},
		route.Route{Path: "/none", Service: none, Name: "empty"}, // it has no counters
	)
	for _, path := range []string{"/named", "/plain", "/none", "/nothing", "/named"} {
		p.raw("GET " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	p.raw("TRACE /named HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	var logged []string
	for _, l := range p.lines() {
		logged = append(logged, l.Route)
	}
	verify.Slices(t, logged, []string{"checkout", "", "empty", "", "checkout", ""}, "routes in the log")
	verify.Slices(t, p.pool.Requests.Responses(), []metrics.Response{{Status: "200", Count: 3}}, "answers of peers")
	verify.Slices(t, p.Stats().UnroutedResponses, []metrics.Response{
		{Status: "404", Reason: "no_route", Count: 1}, {Status: "405", Reason: "method_refused", Count: 1},
	}, "answers without a service")
	of := named.Snapshot()
	verify.Equal(t, of.Class(metrics.Class2xx), 2, "requests of the route")
}
