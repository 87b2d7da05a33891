package proxy

import (
	"cmp"
	"slices"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/route"
)

// take takes a way: what follows is done with its service and its actions. It may be a call of gRPC
// for one service, with a deadline, and not for another one.
func (x *chosenRoute) take(way *route.Route) *refusal.Refusal {
	x.way, x.service, x.actions = way, way.Service, cmp.Or(way.Actions, noActions)
	x.decideFor(x.service)
	return x.request.setDeadline()
}

// hasOther reports whether the target that was taken has lost its last usable peer, and another one
// has some. A target with a discovery chain has lost it if neither the branch of the request nor
// the usual one has any.
func (x *chosenRoute) hasOther() bool {
	return x.splitter.HasOther(x.way) || !x.targetChosen && x.divided.HasOther(x.way) && x.divided.HasOther(x.matched)
}

// chooseAgain chooses a target of the route anew, as followChain does then of the chain. Nothing is
// done yet of what the route asks for.
func (x *chosenRoute) chooseAgain() *refusal.Refusal {
	if x.divided != nil && !x.targetChosen {
		x.matched = x.chooseTarget(x.divided, x.request.bytes())
	}
	x.unprepare()
	x.query, x.splitter = balancer.Query{Waited: x.query.Waited}, nil
	return x.take(x.matched)
}

// unprepare forgets what the preparations have made of the request.
func (x *chosenRoute) unprepare() {
	x.target, x.authorized, x.clientFields = x.target[:0], x.authorized[:0], x.clientFields[:0]
	x.stripped, x.user, x.group = false, "", ""
}

// followChain takes the way that the discovery chain of the service has for the request, as it is
// after all that the route does with it: the chain is the service's, and knows nothing of the
// route.
func followChain(x *exchange) *refusal.Refusal {
	router := x.route.way.Router
	if router == nil {
		return nil
	}
	b := x.request.bytes()
	path, _ := x.route.sentPath(b)
	taken := router.Choose(path, &x.route.sent)
	if taken < 0 {
		return nil
	}
	if x.request.steps.Exceeded() {
		return refusal.RegexpBudget
	}
	if rewrite := &router.Chain.Branches()[taken].Rewrite; !rewrite.Empty() {
		if _, r := x.route.editPath(rewrite, b); r != nil {
			return r
		}
	}
	way := &router.Ways[taken]
	if x.route.splitter = way.Weighted; x.route.splitter != nil {
		way = x.route.chooseTarget(x.route.splitter, b)
	}
	if r := x.route.take(way); r != nil {
		return r
	}
	return x.route.maintenance()
}

// maintenance returns why operators who work on the service keep it from the client; nil: they do
// not.
func (x *chosenRoute) maintenance() *refusal.Refusal {
	if x.service == nil {
		return nil
	}
	return refusal.OfMaintenance(x.service.Pool.Maintenance.Load(), x.request.identity.client)
}

// noActions are those of a route without any, and of a request without a route.
var noActions = new(route.Actions)

// sentFields is a request with the fields that peers get by its route, so that a client cannot have
// a branch by a field that the route removes.
type sentFields struct {
	route.Request
	by *chosenRoute
}

func (s *sentFields) Field(name string, from int) (value []byte, next int) {
	return s.by.actions.RequestHeaders.Field((*authorizedFields)(s.by), s.by, name, from)
}

// authorizedFields has the fields that peers get of the client, of its token and of the
// authentication server.
type authorizedFields chosenRoute

// firstAuthorized is above every index of a field of a client: positions in a head have 16 bits.
const firstAuthorized = 1 << 16

func (a *authorizedFields) Field(name string, from int) (value []byte, next int) {
	if from < firstAuthorized && !slices.Contains(a.actions.Authorized.Dropped, name) {
		if value, next = a.request.Field(name, from); next >= 0 {
			return value, next
		}
	}
	i := firstAuthorized
	for line := range http1.Lines(a.authorized) {
		if i >= from && http1.HasName(line, name) {
			return http1.LineValue(line), i + 1
		}
		i++
	}
	return nil, -1
}
