package routes

import (
	"net/netip"
	"time"

	"sluice/config"
	"sluice/discovery/locality"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/ratelimit"
)

// limiters are the rate limits of routes. Those of a route that stays with the same
// settings go on with the tokens that they have.
type limiters map[limiterID]*ratelimit.Limiter

type limiterID struct {
	requests string // that the route matches
	settings config.RateLimit
}

// of returns the limiter of a route, which it takes from before or creates.
func (l limiters) of(r *config.Route, before limiters, fleet *ratelimit.Fleet) *ratelimit.Limiter {
	return keep(l, before, limiterID{r.Key(), *r.RateLimit}, func() *ratelimit.Limiter {
		if r.RateLimit.OfFleet() {
			return ratelimit.NewShared(r.RateLimit.Rate, r.RateLimit.Per, r.RateLimit.Burst, fleet)
		}
		return ratelimit.New(r.RateLimit.Rate, r.RateLimit.Per, r.RateLimit.Burst)
	})
}

// keep returns what next has for id. If it has nothing, it gets what before has, or what
// create returns.
func keep[ID comparable, T any](next, before map[ID]*T, id ID, create func() *T) *T {
	if next[id] == nil {
		next[id] = before[id]
	}
	if next[id] == nil {
		next[id] = create()
	}
	return next[id]
}

// userFiles are the files of users in use, by path.
type userFiles map[string]*auth.Users

// of returns the users of a file, which it takes from before or reads: a file in use may
// be missing now.
func (f userFiles) of(path string, before userFiles) (users *auth.Users, err error) {
	users = keep(f, before, path, func() (opened *auth.Users) {
		opened, err = auth.OpenUsers(path)
		return opened
	})
	return users, err
}

// forwards are the clients of authentication servers, by their settings.
type forwards map[forwardID]*auth.Forward

type forwardID struct {
	url     config.Location
	timeout time.Duration
	// byDocument: the URL may lead only where a registry may lead requests, which allowLocal
	// decides.
	byDocument, allowLocal bool
}

// of returns the client with the settings of a, which it takes from before or creates.
func (f forwards) of(a *config.ForwardAuth, before forwards, machine *locality.Machine, allowLocal bool) *auth.Forward {
	id := forwardID{a.URL.Text, a.Timeout, a.ByDocument, a.ByDocument && allowLocal}
	return keep(f, before, id, func() *auth.Forward {
		var mayConnect func(netip.AddrPort) error
		if id.byDocument {
			mayConnect = func(to netip.AddrPort) error {
				return machine.MayConnect(to, locality.Origin{Trusted: id.allowLocal})
			}
		}
		return auth.NewForward(a.URL.Value, a.Timeout, mayConnect)
	})
}

// closeWithout closes the clients that are not in next.
func (f forwards) closeWithout(next forwards) {
	for id, client := range f {
		if next[id] == nil {
			client.Close()
		}
	}
}

// actionsOf returns the actions of a route; nil: it has none.
func (b *builder) actionsOf(r *config.Route) (*route.Actions, error) {
	built := r.Built()
	if built == nil {
		return nil, nil
	}
	a := *built
	if r.BasicAuth != nil {
		users, err := b.users.of(r.BasicAuth.UsersFile, b.before.users)
		if err != nil {
			return nil, err
		}
		a.BasicAuth = &route.BasicAuth{Users: users, Realm: built.BasicAuth.Realm}
	}
	if r.ForwardAuth != nil {
		client := b.forwards.of(r.ForwardAuth, b.before.forwards, b.machine, b.config.Discovery.AllowLocal)
		a.ForwardAuth = &route.ForwardAuth{Forward: client, Copied: built.ForwardAuth.Copied}
	}
	if r.RateLimit != nil {
		limit := *built.RateLimit
		limit.Limiter = b.limiters.of(r, b.before.limiters, b.fleet)
		a.RateLimit = &limit
	}
	return &a, nil
}
