package gateway

import (
	"context"
	"maps"
	"reflect"

	"sluice/admin"
	"sluice/balancer"
	"sluice/config"
	"sluice/config/routes"
	"sluice/proxy"
	"sluice/route"
)

// foresee returns how requests would be served with a text in place of the document with that name,
// or with "" in place of the configuration file. It changes nothing, and opens nothing that the
// text names.
func (g *Gateway) foresee(ctx context.Context, document, text string) (f admin.Foreseen, err error) {
	err = g.documents.Try(ctx, document, text, func(c *config.Config, unknown []string) (err error) {
		if f, err = g.foreseen(c); err != nil {
			return err
		}
		for _, source := range unknown {
			f.Unknown = append(f.Unknown, "the documents of "+source)
		}
		return nil
	})
	return f, err
}

// foreseen is foresee for a configuration of documents. It is called while nothing is applied.
func (g *Gateway) foreseen(c *config.Config) (admin.Foreseen, error) {
	inUse := g.effective.Load()
	found, asked := g.finder.Addition(c), config.Addition{Origin: "tags in Consul's catalog"}
	result := g.tags.Present(c, inUse)
	for name, groups := range result.Groups {
		addGroups(c.Services, name, groups)
		addGroups(found.Services, name, groups)
	}
	for _, r := range result.Routes {
		if r.Group = r.Members; r.Protocol == "" {
			asked.Routes = append(asked.Routes, r.Route)
		}
	}
	merged, _ := config.Merge(c, found, asked)
	completed := g.chains.complete(merged)
	f := admin.Foreseen{Listeners: renamed(inUse.Listeners, completed.Listeners), New: make(map[string]bool)}
	targets := make(map[string]*route.Service, len(completed.Services))
	for name, next := range completed.Services {
		pool := g.services.poolFor(name, next, completed.Consul)
		if pool == nil {
			f.New[name], pool = true, balancer.NewPool(name, poolOptions(next))
		}
		targets[name] = routes.Service(name, pool, next)
	}
	table, err := routes.Foresee(completed, targets)
	f.Explain = func(q proxy.Question) proxy.Explanation { return g.proxy.ExplainBy(table, q) }
	return f, err
}

// addGroups adds groups to a service, if it is one of all.
func addGroups(all map[string]config.Service, name string, groups map[string]config.Group) {
	s, known := all[name]
	if !known {
		return
	}
	with := maps.Clone(groups)
	maps.Copy(with, s.Groups)
	s.Groups = with
	all[name] = s
}

// poolFor returns the pool that has the peers of a service with the configuration next; nil: none,
// because it is new, its peers come from elsewhere, or its groups are others.
func (s *services) poolFor(name string, next config.Service, c config.Consul) *balancer.Pool {
	now := s.get(name)
	if now == nil || !reflect.DeepEqual(specOf(next, s.registries.inUse(c)), now.spec) {
		return nil
	}
	for group, selector := range next.Groups {
		if !reflect.DeepEqual(now.config.Groups[group], selector) {
			return nil
		}
	}
	return now.pool
}

// renamed returns the names that listeners will have, by their names now. Those whose address is
// gone are not among them.
func renamed(now, then []config.Listener) map[string]string {
	names := make(map[string]string, len(now))
	for _, l := range now {
		for _, next := range then {
			if _, known := names[l.Name]; next.Address.Text == l.Address.Text && (!known || next.Name == l.Name) {
				names[l.Name] = next.Name
			}
		}
	}
	return names
}
