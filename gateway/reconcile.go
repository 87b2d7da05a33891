package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/discovery/consul"
	"sluice/healthcheck"
	"sluice/route"
)

// warmTimeout bounds how long a reload waits for the first peers of new
// services before it routes requests to them.
const warmTimeout = 5 * time.Second

// sourceSpec says where a service's instances come from. Two that are deeply
// equal need the same watch.
type sourceSpec struct {
	consul *consul.ServiceOptions // nil: peers
	peers  []string
}

func specOf(s config.Service, c config.Consul) sourceSpec {
	if s.Consul == nil {
		return sourceSpec{peers: s.Peers}
	}
	o := ServiceOptions(*s.Consul, c)
	return sourceSpec{consul: &o}
}

// ServiceOptions returns what a service from Consul selects, in the terms of
// Consul's client. S is as it was loaded: complete.
func ServiceOptions(s config.ConsulService, c config.Consul) consul.ServiceOptions {
	return consul.ServiceOptions{
		Service:       s.Service,
		PreparedQuery: s.PreparedQuery,
		Poll:          s.Poll,
		Tags:          s.Tags,
		Filter:        s.Filter,
		PassingOnly:   s.PassingOnly,
		Datacenters:   s.Datacenters,
		MinHealthy:    s.MinHealthy,
		Namespace:     s.Namespace,
		Partition:     s.Partition,
		Peer:          s.Peer,
		Consistency:   consul.Consistency(s.Consistency),
		Cached:        s.Cached,
		Wait:          c.Wait,
		Probation:     orNone(*s.Probation),
	}
}

// plan is a new configuration with everything made that can fail. Nothing of
// it is in use yet.
type plan struct {
	created []*service          // that are not in use yet
	wanted  map[string]*service // all that will be, by name
	specs   map[string]sourceSpec
	health  map[string]healthcheck.Settings
	sources map[string]discovery.Source // of the services whose source is new
	table   *route.Table
}

// prepare makes a plan for c. It changes nothing that is in use.
func (g *Gateway) prepare(c *config.Config) (*plan, error) {
	p := &plan{
		wanted:  make(map[string]*service),
		specs:   make(map[string]sourceSpec),
		health:  make(map[string]healthcheck.Settings),
		sources: make(map[string]discovery.Source),
	}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		wanted := c.Services[name]
		current := g.services.get(name)
		// What stays as it is needs none of its files: they may be away just now.
		if current == nil || !reflect.DeepEqual(current.config, wanted) {
			health, err := healthSettings(wanted.Health, g.certificatesOf(name))
			if err != nil {
				return nil, fmt.Errorf("service %q: %w", name, err)
			}
			p.health[name] = health
		}
		if current == nil {
			var err error
			if current, err = g.newPool(name, wanted, p.health[name]); err != nil {
				return nil, err
			}
			p.created = append(p.created, current)
		}
		p.wanted[name] = current
		spec := specOf(wanted, c.Consul)
		p.specs[name] = spec
		if reflect.DeepEqual(spec, current.source) {
			continue
		}
		source, err := g.newSource(name, spec)
		if err != nil {
			return nil, fmt.Errorf("service %q: %w", name, err)
		}
		p.sources[name] = source
	}
	table, err := p.newTable(c)
	p.table = table
	return p, err
}

func (g *Gateway) newSource(name string, spec sourceSpec) (discovery.Source, error) {
	if spec.consul != nil {
		return g.consul.Source(*spec.consul), nil
	}
	return discovery.NewStatic(name, spec.peers)
}

func (p *plan) newTable(c *config.Config) (*route.Table, error) {
	targets := make(map[string]*route.Service, len(p.wanted))
	for name, service := range p.wanted {
		targets[name] = service.routed(c.Services[name])
	}
	routes := make([]route.Route, len(c.Routes))
	for i, r := range c.Routes {
		routes[i] = route.Route{Host: r.Host, Path: r.Path, Service: targets[r.Service]}
	}
	return route.NewTable(routes)
}

// carryOut puts a plan for c to use. The order matters: see the package's
// comment. With warm it waits a while for the first peers of new services.
func (g *Gateway) carryOut(ctx context.Context, p *plan, c *config.Config, warm bool) error {
	for name, service := range p.wanted {
		if service.source.zero() || reflect.DeepEqual(service.config, c.Services[name]) {
			continue // new, or as before
		}
		if err := g.configurePool(service, c.Services[name], p.health[name]); err != nil {
			return err // not for a configuration that was checked
		}
	}
	g.services.add(p.created)
	for _, service := range p.created {
		service.checker.Start(service.pool, p.health[service.name])
	}
	for name, service := range p.wanted {
		service.config, service.source = c.Services[name], p.specs[name]
	}
	g.effective.Store(c)
	g.readmit()
	g.discovery.SetDebounce(debounceOf(c.Consul.Debounce))
	for _, name := range slices.Sorted(maps.Keys(p.sources)) {
		g.discovery.Watch(name, p.sources[name])
	}
	if warm {
		g.awaitFirst(ctx, p.created, g.warmPatience)
	}
	g.setTable(p.table)
	for _, service := range g.services.all() {
		if p.wanted[service.name] == nil {
			g.discovery.Unwatch(service.name)
			service.checker.Stop()
			service.pool.Close()
			g.services.retire(service)
		}
	}
	return nil
}

// zero reports whether s is the spec of a service that is not in use yet.
func (s sourceSpec) zero() bool { return s.consul == nil && s.peers == nil }

// awaitFirst waits until the pools of services know their first set, for
// timeout at most.
func (g *Gateway) awaitFirst(ctx context.Context, services []*service, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, service := range services {
		select {
		case <-service.first:
		case <-ctx.Done():
			if !service.known() && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				g.log.Warn().Str("service", service.name).Stringer("waited", timeout).
					Str("missing", service.missing(g.watches()[service.name])).Msg("no peers yet")
			}
		}
	}
}

// poolOptions are the settings of the pool of a service.
func (g *Gateway) poolOptions(s config.Service, checker *healthcheck.Checker, health healthcheck.Settings) balancer.Options {
	return checker.Adapt(balancer.Options{
		Policy:           balancer.Policy(s.Balance.Policy),
		DrainTimeout:     s.Drain.Timeout,
		HashBound:        hashBound(s.Balance.Hash),
		Tiers:            tiersOf(s.Balance.Tiers),
		Overprovisioning: float64(s.Balance.Overprovisioning),
		Subset:           subsetOf(s.Balance.Subset),
		StickyKey:        string(s.Balance.Sticky.Secret),
		Limits: balancer.Limits{
			Requests:     s.Limits.Requests,
			PeerRequests: s.Limits.RequestsPerPeer,
			Pending:      s.Limits.Pending,
			Retries:      s.Limits.Retries,
		},
		SlowStart: balancer.SlowStart{
			Window:     s.Health.SlowStart,
			Aggression: float64(s.Health.SlowStartAggression),
			MinWeight:  float64(s.Health.SlowStartMin),
		},
		PanicThreshold: float64(s.Health.PanicThreshold),
		RetryBudget:    &balancer.RetryBudget{Ratio: float64(s.Retry.Budget), MinPerSecond: float64(s.Retry.MinPerSecond)},
		NewTransport:   g.proxy.NewTransport(transportOptions(s)),
		Notify:         g.journal.note,
	}, health)
}

// hashBound translates 0, which means no bound in the file.
func hashBound(h config.Hash) float64 {
	if h.Bound == 0 {
		return math.Inf(1)
	}
	return float64(h.Bound)
}

func debounceOf(d config.Debounce) discovery.Debounce {
	return discovery.Debounce{Quiet: orNone(d.Quiet), MaxWait: orNone(d.MaxWait)}
}

// orNone translates a time of 0, which means none in the file, into a negative
// one: for package discovery 0 asks for the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}
