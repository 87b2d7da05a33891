package gateway

import (
	"maps"
	"slices"

	"sluice/config"
	"sluice/tags/claim"
)

// tagRoutes returns the routes that tags ask for. It changes the services of found, which were
// found in the catalog, as tags ask for, and returns c with the groups that the routes need.
// profiles are those for tags.applied.
func (g *Gateway) tagRoutes(c *config.Config, found config.Fragment) (changed *config.Config, routes config.Fragment, profiles map[string]string) {
	routes.Origin = "tags in Consul's catalog"
	reader := claim.NewReader(c)
	if g.effective.Load() == nil {
		g.tags.use(reader) // the first sets wait for their routes
	}
	all := c.Services
	if len(found.Services) > 0 { // none of them is in c
		all = maps.Clone(found.Services)
		maps.Copy(all, c.Services)
	}
	services, profiles := g.tags.snapshot(all, reader)
	inUse := g.tags.last()
	result := g.tags.resolve(services, c)
	for _, name := range slices.Sorted(maps.Keys(result.Settings)) {
		service, ok := found.Services[name]
		if !ok {
			continue // an operator's
		}
		service, err := config.DecodeService(service, result.Settings[name], c)
		if err != nil {
			result.Problems = append(result.Problems, claim.Problem{Ask: claim.Ask{Service: name}, Kind: claim.KindBad, Reason: "the settings cannot be used: " + err.Error()})
			continue
		}
		found.Services[name] = service
	}
	g.tags.resolved(result)
	for _, r := range result.Routes {
		r.Group = r.Members // of a shared route none: its parts have groups
		if r.Protocol != "" {
			routes.Streams = append(routes.Streams, r.Route)
			continue
		}
		routes.Routes = append(routes.Routes, r.Route)
	}
	divided := groupsFor(result, inUse)
	if len(divided) == 0 {
		return c, routes, profiles
	}
	copied := *c
	copied.Services = maps.Clone(c.Services)
	for name, groups := range divided {
		of := copied.Services
		if _, ok := found.Services[name]; ok {
			of = found.Services
		}
		service, ok := of[name]
		if !ok {
			continue
		}
		service.Groups = maps.Clone(service.Groups)
		if service.Groups == nil {
			service.Groups = make(map[string]config.Group, len(groups))
		}
		for group, selector := range groups {
			service.Groups[group] = config.Group{Tags: selector.Tags, Meta: selector.Meta}
		}
		of[name] = service
	}
	return &copied, routes, profiles
}

// last returns the result in use.
func (t *tagReader) last() claim.Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inUse
}

// present returns the result in use with the instances of now: one with the same tags as others
// changes no route.
func (t *tagReader) present(documents, effective *config.Config) claim.Result {
	services, inUse := t.presentServices(effective)
	result := claim.Resolve(services, claim.NewRules(documents), inUse.Holders)
	for _, p := range inUse.Problems {
		if len(p.Instances) == 0 { // it is not of Resolve
			result.Problems = append(result.Problems, p)
		}
	}
	return result
}

// presentServices returns what services ask for with the instances of now, and the result in use.
func (t *tagReader) presentServices(effective *config.Config) ([]claim.Service, claim.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	services := t.asking(effective.Services, t.reader)
	for i, s := range services {
		if t.services[s.Name].waits {
			services[i] = t.services[s.Name].inUse
		}
	}
	return slices.DeleteFunc(services, func(s claim.Service) bool { return s.Name == "" }), t.inUse
}

// resolve resolves what services ask for, with the rules of documents. Only the goroutine that
// reloads calls it.
func (t *tagReader) resolve(services []claim.Service, documents *config.Config) claim.Result {
	if len(services) == 0 {
		return claim.Resolve(nil, claim.Rules{}, nil)
	}
	if t.documents != documents {
		rules := claim.NewRules(documents)
		t.documents, t.rules = documents, &rules
	}
	return t.resolver.Resolve(services, t.rules, t.holders())
}

// holders returns which services have the routes that several ask for. Until clients are served, they
// are those of the old process, so the order in which services get their first sets decides nothing.
func (t *tagReader) holders() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.serves {
		return t.former
	}
	return t.inUse.Holders
}

// inherit sets the holders of routes in the old process.
func (t *tagReader) inherit(holders map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.former = holders
}

// serve records that clients are served from now on: a service keeps the routes that it has.
func (t *tagReader) serve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serves = true
}

// resolved records a result, which is in use after applied.
func (t *tagReader) resolved(r claim.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latest = r
}

// groupsFor returns the groups of r, and those of the result in use: its routes need them until
// they are replaced.
func groupsFor(r, inUse claim.Result) map[string]map[string]claim.Group {
	all := make(map[string]map[string]claim.Group)
	for _, groups := range []map[string]map[string]claim.Group{r.Groups, inUse.Groups} {
		for service, of := range groups {
			if all[service] == nil {
				all[service] = make(map[string]claim.Group)
			}
			maps.Copy(all[service], of)
		}
	}
	return all
}
