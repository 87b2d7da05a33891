package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sync/errgroup"

	"sluice/consul"
	"sluice/observe/panics"
)

const (
	// maxQueries is the number of concurrent queries.
	maxQueries = 8

	askTimeout   = 5 * time.Second  // for a query to an agent
	queryTimeout = 60 * time.Second // for a large answer from the servers

	// consulItself is the service of Consul's servers.
	consulItself = "consul"

	serfHealth = "serfHealth"
)

func query(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{}).WithContext(ctx)
}

// gather collects all facts.
func (d *Doctor) gather(ctx context.Context) (*Facts, error) {
	leader, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	f := &Facts{
		Nodes: make(map[string]Node), Only: d.options.Services, Keep: d.options.Keep,
		Peers: d.options.Peers, Config: d.options.Config, Own: d.options.Own,
	}
	f.ReceiveBuffer = f.readReceiveBuffer()
	f.Agent.URL, f.Agent.Leader = d.api.URL, leader
	if err := d.queryAgent(ctx, f); err != nil {
		return nil, err
	}
	dc := d.options.Datacenter
	f.Remote = dc != "" && f.Agent.Datacenter != "" && dc != f.Agent.Datacenter
	if err := d.queryToken(ctx, f); err != nil {
		return nil, err
	}
	g := gathering{doctor: d, facts: f, filtered: make(map[string]bool)}
	switch err := g.catalog(ctx); {
	case err != nil && leader == "" && consul.StatusCode(err) == http.StatusInternalServerError:
		// A server that never had a leader has no catalog.
		f.Blind = consul.Shorten(err).Error()
		f.Time = time.Now()
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("consul %s: %w", d.api.URL, consul.Shorten(err))
	}
	f.Filtered = slices.Sorted(maps.Keys(g.filtered))
	d.queryUses(ctx, f)
	d.queryMesh(ctx, f)
	d.queryNodeAgents(ctx, f)
	if d.options.ConnectTimeout > 0 {
		f.Silent = connectAll(ctx, f.Instances, d.options.ConnectTimeout)
	}
	f.Time = time.Now()
	return f, ctx.Err()
}

// self is the used part of /v1/agent/self.
type self struct {
	Config struct {
		Datacenter, NodeName, Version string
		Server                        bool
	}
}

// queryAgent reads /v1/agent/self, if the token may.
func (d *Doctor) queryAgent(ctx context.Context, f *Facts) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var s self
	_, err := d.api.Raw().Query("/v1/agent/self", &s, query(ctx))
	if consul.StatusCode(err) == http.StatusForbidden {
		f.Agent.Refused = consul.Shorten(err).Error()
		return nil
	}
	if err != nil {
		return fmt.Errorf("consul %s: %w", d.api.URL, consul.Shorten(err))
	}
	f.Agent.Node, f.Agent.Datacenter = s.Config.NodeName, s.Config.Datacenter
	f.Agent.Version, f.Agent.Server = s.Config.Version, s.Config.Server
	return nil
}

// queryToken reads the token. It fails if Consul does not know the token, since every
// answer would be a refusal.
func (d *Doctor) queryToken(ctx context.Context, f *Facts) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	f.Token.Anonymous = d.api.Anonymous()
	token, _, err := d.api.ACL().TokenReadSelf(query(ctx))
	switch {
	case err == nil:
		f.Token.ACLs = true
		f.Agent.Token = cmp.Or(token.Description, token.AccessorID)
	case consul.StatusCode(err) == http.StatusForbidden && !f.Token.Anonymous:
		return fmt.Errorf("consul %s: the token is not valid: %w; a token with this policy is needed:\n%s", d.api.URL, consul.Shorten(err), strings.TrimSpace(readPolicy))
	case consul.StatusCode(err) == http.StatusForbidden:
		f.Token.ACLs = true
	}
	if f.Token.Anonymous && f.Token.ACLs {
		f.Agent.Token = "anonymous"
	}
	return nil // also an error without ACLs
}

// gathering reads the catalog. It is safe for concurrent use.
type gathering struct {
	doctor *Doctor
	facts  *Facts

	mu       sync.Mutex      // guards the fields below, and the instances and nodes of facts
	filtered map[string]bool // paths whose answers ACLs filtered
}

// options returns the options of a catalog query. Without a leader a server gives only
// stale answers.
func (g *gathering) options(ctx context.Context) *api.QueryOptions {
	o := query(ctx)
	o.Datacenter = g.doctor.options.Datacenter
	o.AllowStale = g.facts.Agent.Leader == ""
	o.RequireConsistent = g.doctor.consistent && !o.AllowStale
	return o
}

// record records the metadata of an answer.
func (g *gathering) record(path string, meta *api.QueryMeta) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if meta.ResultsFilteredByACLs {
		g.filtered[path] = true
	}
	if g.facts.Token.ACLs && meta.DefaultACLPolicy == "deny" {
		g.facts.Token.DefaultDeny = true
	}
}

// catalog reads the instances of the examined services with the fewest queries: one per
// service, or one per node and one for all checks.
func (g *gathering) catalog(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	names, err := g.names(ctx)
	if err != nil {
		return err
	}
	if only := g.doctor.options.Services; len(only) > 0 {
		return g.byService(ctx, only)
	}
	nodes, meta, err := g.doctor.api.Catalog().Nodes(g.options(ctx))
	if err != nil {
		return err
	}
	g.record("/v1/catalog/nodes", meta)
	nodes = present(nodes)
	if len(names) <= len(nodes) || slices.ContainsFunc(nodes, func(n *api.Node) bool { return unlisted(n.Node) }) {
		return g.byService(ctx, names)
	}
	return g.byNode(ctx, nodes)
}

// unlisted reports whether Consul registers the name, such as "..", of a node or a service, and
// then cannot list its instances: the path of the query leads elsewhere.
func unlisted(name string) bool { return path.Clean("/"+name) != "/"+name }

// names returns the names of all services whose instances Consul can list.
func (g *gathering) names(ctx context.Context) ([]string, error) {
	o := g.options(ctx)
	o.AllowStale, o.RequireConsistent = true, false
	services, meta, err := g.doctor.api.Catalog().Services(o)
	if err != nil {
		return nil, err
	}
	g.record("/v1/catalog/services", meta)
	delete(services, consulItself)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if unlisted(name) {
			g.facts.Unlisted = append(g.facts.Unlisted, name)
		} else {
			names = append(names, name)
		}
	}
	return names, nil
}

func (g *gathering) byService(ctx context.Context, names []string) error {
	return each(ctx, maxQueries, len(names), func(ctx context.Context, n int) error {
		entries, meta, err := g.doctor.api.Health().Service(names[n], "", false, g.options(ctx))
		if err != nil {
			return fmt.Errorf("service %q: %w", names[n], err)
		}
		g.record("/v1/health/service", meta)
		g.add(entries)
		return nil
	})
}

func (g *gathering) byNode(ctx context.Context, nodes []*api.Node) error {
	checks, meta, err := g.doctor.api.Health().State(api.HealthAny, g.options(ctx))
	if err != nil {
		return err
	}
	g.record("/v1/health/state/any", meta)
	type owner struct{ node, service string } // the id of a service; "": the node itself
	byOwner := make(map[owner]api.HealthChecks)
	for _, c := range present(checks) {
		o := owner{c.Node, c.ServiceID}
		byOwner[o] = append(byOwner[o], c)
	}
	listed := meta.LastIndex
	err = each(ctx, maxQueries, len(nodes), func(ctx context.Context, n int) error {
		name := nodes[n].Node
		list, meta, err := g.doctor.api.Catalog().NodeServiceList(name, g.options(ctx))
		if err != nil {
			return fmt.Errorf("node %q: %w", name, err)
		}
		if list == nil {
			return nil // the node has left
		}
		g.record("/v1/catalog/node-services", meta)
		g.addNode(nodes[n], byOwner[owner{node: name}])
		entries := make([]*api.ServiceEntry, 0, len(list.Services))
		for _, s := range present(list.Services) {
			checks := slices.Concat(byOwner[owner{name, s.ID}], byOwner[owner{node: name}])
			entries = append(entries, &api.ServiceEntry{Node: nodes[n], Service: s, Checks: checks})
		}
		g.add(entries)
		return nil
	})
	if err != nil {
		return err
	}
	return g.byService(ctx, g.takeUncertain(listed))
}

// takeUncertain removes services with an instance that was registered after the checks
// were listed, so that its checks may be missing, and returns their names.
func (g *gathering) takeUncertain(listed uint64) []string {
	uncertain := make(map[string]bool)
	for _, i := range g.facts.Instances {
		if i.Checks == 0 && i.Created > listed && !unlisted(i.Service) {
			uncertain[i.Service] = true
		}
	}
	g.facts.Instances = slices.DeleteFunc(g.facts.Instances, func(i Instance) bool { return uncertain[i.Service] })
	return slices.Sorted(maps.Keys(uncertain))
}

// each calls do for 0 to count-1, atOnce at a time, until one fails.
func each(ctx context.Context, atOnce, count int, do func(ctx context.Context, n int) error) error {
	working, going := errgroup.WithContext(ctx)
	working.SetLimit(atOnce)
	for n := 0; n < count && going.Err() == nil; n++ {
		working.Go(func() (err error) {
			defer panics.Contain(panics.Watch, func() { err = panics.Err })
			return do(going, n)
		})
	}
	return cmp.Or(working.Wait(), context.Cause(ctx))
}
