package routes

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"sluice/config"
	"sluice/discovery/locality"
	"sluice/observe/panics"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/pages"
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
	limiter, _ := keep(l, before, limiterID{r.Key(), *r.RateLimit}, func(limiterID) (*ratelimit.Limiter, error) {
		if r.RateLimit.OfFleet() {
			return ratelimit.NewShared(r.RateLimit.Rate, r.RateLimit.Per, r.RateLimit.Burst, fleet), nil
		}
		return ratelimit.New(r.RateLimit.Rate, r.RateLimit.Per, r.RateLimit.Burst), nil
	})
	return limiter
}

// keep returns what next has for id. If it has nothing, it gets what before has, or what
// create returns: a file in use may be missing now.
func keep[ID comparable, T any](next, before map[ID]*T, id ID, create func(ID) (*T, error)) (kept *T, err error) {
	kept = cmp.Or(next[id], before[id])
	if kept == nil {
		kept, err = create(id)
	}
	if err == nil {
		next[id] = kept
	}
	return kept, err
}

// withFile returns a page with the body that a file has.
func (b *builder) withFile(page *route.Page, path string) (*route.Page, error) {
	body, err := keep(b.pages, b.before.pages, path, pages.Open)
	if err != nil {
		return nil, err
	}
	with := *page
	with.Body = body
	return &with, nil
}

// withFiles returns pages with the bodies that files have.
func (b *builder) withFiles(all route.ErrorPages, path func(i int) string) (with route.ErrorPages, err error) {
	for i, page := range all {
		if page.Page, err = b.withFile(page.Page, path(i)); err != nil {
			return nil, err
		}
		with = append(with, page)
	}
	return with, nil
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
	id := forwardID{a.URL, a.Timeout, a.ByDocument, a.ByDocument && allowLocal}
	client, _ := keep(f, before, id, func(forwardID) (*auth.Forward, error) {
		return auth.NewForward(id.url, id.timeout, controlOf(machine, id.byDocument, id.allowLocal)), nil
	})
	return client
}

// closeWithout closes the clients that are not in next.
func (f forwards) closeWithout(next forwards) {
	for id, client := range f {
		if next[id] == nil {
			client.Close()
		}
	}
}

// answers are the answers of authentication servers that count for later requests too. Those of a
// route that stays with the same settings go on.
type answers map[answersID]*auth.Answers

type answersID struct {
	requests string // that the route matches
	url      config.Location
	names    string
}

// of returns the answers for a route, which it takes from before or creates; nil: none are kept.
func (a answers) of(r *config.Route, before answers) *auth.Answers {
	f := r.ForwardAuth
	if len(f.Cache) == 0 {
		return nil
	}
	kept, _ := keep(a, before, answersID{r.Key(), f.URL, strings.Join(f.Cache, " ")}, func(answersID) (*auth.Answers, error) {
		return auth.NewAnswers(f.Cache), nil
	})
	return kept
}

// keySets are the keys of issuers, by where they are.
type keySets map[keySetID]*auth.KeySet

type keySetID struct {
	file string
	url  config.Location // without a file
	// byDocument and allowLocal are as in forwardID.
	byDocument, allowLocal bool
}

// of returns the keys of the issuer of j, which it takes from before or opens.
func (k keySets) of(j *config.JWT, before *Routes, machine *locality.Machine, allowLocal bool) (*auth.KeySet, error) {
	id := keySetID{j.JWKSFile, j.JWKSURL, j.ByDocument, j.ByDocument && allowLocal}
	return keep(k, before.keySets, id, func(keySetID) (*auth.KeySet, error) {
		if id.file != "" {
			return auth.OpenKeys(id.file)
		}
		return auth.NewKeys(id.url, controlOf(machine, id.byDocument, id.allowLocal), before.restored.Keys[id.name()]), nil
	})
}

// name returns what other processes know the keys by. It must not be shown.
func (id keySetID) name() string {
	if id.byDocument {
		return fmt.Sprintf("%s of a document, local: %t", id.url.Reveal(), id.allowLocal)
	}
	return cmp.Or(id.file, id.url.Reveal())
}

// closeWithout closes the sets that are not in next after the time late.
func (k keySets) closeWithout(next keySets, late time.Duration) {
	for id, set := range k {
		switch {
		case next[id] != nil:
		case late == 0:
			set.Close()
		default:
			time.AfterFunc(late, func() {
				defer panics.Contain(panics.Task, nil)
				set.Close()
			})
		}
	}
}

// controlOf returns where a URL may lead, by who has named it.
func controlOf(machine *locality.Machine, byDocument, allowLocal bool) locality.Control {
	if !byDocument {
		return locality.ByOperator
	}
	return machine.ByOthers(func() bool { return allowLocal })
}

// actionsOf returns the actions of a route; nil: it has none.
func (b *builder) actionsOf(r *config.Route) (*route.Actions, error) {
	built := r.Built()
	if built == nil || b.asked {
		return built, nil
	}
	a := *built
	if r.BasicAuth != nil {
		users, err := keep(b.users, b.before.users, nameOfUsers(r.BasicAuth), func(name string) (*auth.Users, error) {
			return b.before.openUsers(name, r.BasicAuth)
		})
		if err != nil {
			return nil, err
		}
		a.BasicAuth = &route.BasicAuth{Users: users, Realm: built.BasicAuth.Realm}
	}
	if r.JWT != nil {
		set, err := b.keySets.of(r.JWT, b.before, b.machine, b.config.Discovery.AllowLocal)
		if err != nil {
			return nil, err
		}
		rules, token := *built.JWT.Tokens, *built.JWT
		rules.Keys, token.Tokens = set, &rules
		a.JWT = &token
	}
	if r.ForwardAuth != nil {
		client := b.forwards.of(r.ForwardAuth, b.before.forwards, b.machine, b.config.Discovery.AllowLocal)
		forward := *built.ForwardAuth
		forward.Forward, forward.Answers = client, b.answers.of(r, b.before.answers)
		a.ForwardAuth = &forward
	}
	if d := r.DirectResponse; d != nil && d.File != "" {
		page, err := b.withFile(built.DirectResponse.Page, d.File)
		if err != nil {
			return nil, err
		}
		a.DirectResponse = &route.DirectResponse{Status: d.Status, Page: page, Fields: built.DirectResponse.Fields}
	}
	if r.AdminAPI != "" {
		a.Handler = b.admin
	}
	var err error
	if a.ErrorPages, err = b.withFiles(built.ErrorPages, func(i int) string { return r.ErrorPages[i].File }); err != nil {
		return nil, err
	}
	if r.RateLimit != nil {
		limit := *built.RateLimit
		limit.Limiter = b.limiters.of(r, b.before.limiters, b.fleet)
		a.RateLimit = &limit
	}
	return &a, nil
}
