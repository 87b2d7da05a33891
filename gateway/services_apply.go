package gateway

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/chain"
	"sluice/discovery"
	"sluice/healthcheck"
)

// servicePlan is a service with its next configuration.
type servicePlan struct {
	*service
	created bool // it is new
	next    config.Service
	spec    sourceSpec
	source  discovery.Source // nil: unchanged
	regroup bool             // the groups of the pool change with the routes

	// If it is new or changed.

	changed  bool
	switched bool // into the mesh, or out of it
	health   healthcheck.Settings
	upstream certificates.Security // of requests; nil: without TLS
	uses     []certificates.Use
}

// prepare returns the services of c, sorted by name, with everything whose creation can fail. It changes nothing that is
// in use.
func (s *services) prepare(c *config.Config) (plans []*servicePlan, err error) {
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		p := &servicePlan{service: s.get(name), next: c.Services[name], spec: specOf(c.Services[name], s.registries.inUse(c.Consul))}
		p.created = p.service == nil
		// The files of an unchanged service are not read: they may be missing now.
		if p.changed = p.created || !reflect.DeepEqual(p.config, p.next); p.changed {
			if err := p.readCertificates(name, s.mesh, s.log); err != nil {
				return nil, fmt.Errorf("service %q: %w", name, err)
			}
			if active := p.health.Active; active != nil {
				// An instance that is not as the configuration says is of the one before: it cannot be checked.
				active.Denied = func(i discovery.Instance) bool { return (i.Identity != "") != isInMesh(p.next) || s.isDenied(i) }
			}
			p.switched = !p.created && isInMesh(p.config) != isInMesh(p.next)
		}
		if p.created {
			if p.service, err = s.newService(name, p); err != nil {
				return nil, err
			}
		}
		if !reflect.DeepEqual(p.spec, p.service.spec) {
			if p.source, err = s.registries.newSource(name, p.spec); err != nil {
				return nil, fmt.Errorf("service %q: %w", name, err)
			}
		}
		if p.created {
			p.service.failed = s.failedOfFormer(c, p)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// readCertificates sets the health settings of p and the TLS of its requests, with their certificates: those of the mesh
// for a service that is reached through it.
func (p *servicePlan) readCertificates(name string, mesh certificates.Security, log zerolog.Logger) (err error) {
	if isInMesh(p.next) {
		p.upstream, p.health = mesh, healthSettings(&p.next, mesh)
		return nil
	}
	read := func(user string, t *certificates.ClientTLS) (*certificates.Client, error) {
		return certificates.NewClient(certificates.ClientOptions{ClientTLS: *t, Changed: certificates.LogChanges(user, log)})
	}
	use := func(user string, secure *certificates.Client) {
		p.uses = append(p.uses, certificates.Use{User: user, Source: secure.Follower})
	}
	var checks *certificates.Client
	var checked certificates.Security // nil: without TLS
	if active := p.next.Health.Active; active != nil && active.TLS != nil {
		user := fmt.Sprintf("checks of service %q", name)
		if checks, err = read(user, active.TLS); err != nil {
			return fmt.Errorf("health.active.tls: %w", err)
		}
		use(user, checks)
		checked = checks.Fresh()
	}
	p.health = healthSettings(&p.next, checked)
	files, user := p.next.Upstream.TLS, fmt.Sprintf("peers of service %q", name)
	if files == nil {
		return nil
	}
	if !p.created && reflect.DeepEqual(p.config.Upstream.TLS, files) {
		p.upstream = p.known().tls // its connections can be reused
	} else if p.upstream, err = read(user, files); err != nil {
		return fmt.Errorf("upstream.tls: %w", err)
	}
	use(user, p.upstream.(*certificates.Client))
	return nil
}

// newService returns a service with an empty pool, which is not in use yet.
func (s *services) newService(name string, p *servicePlan) (*service, error) {
	created := newService(name, s.mesh, s.health.NewChecker())
	o := s.poolOptions(p.next, created, p.health)
	o.MayConnect, o.MayUseSocket = s.mayConnect(created), s.machine.MayUseSocket
	var err error
	if created.pool, err = balancer.NewPool(name, o); err != nil {
		return nil, err
	}
	s.obey(created.pool)
	return created, nil
}

// poolOptions returns the options of the pool of a service.
func (s *services) poolOptions(c config.Service, of *service, health healthcheck.Settings) balancer.Options {
	o := poolOptions(c)
	o.NewTransport, o.Notify = newTransport(s.proxy, c, of.security, s.intentions), s.notePeer
	if health.Active != nil {
		o.FailedBefore = s.failedBefore(of)
	}
	o.NewWitness = s.witness
	return of.checker.Adapt(o, health)
}

// apply changes the services in use to plans, without their sources, and groups that regroup changes. Services that plans lack stay until retain.
func (s *services) apply(plans []*servicePlan) error {
	for _, p := range plans {
		switch {
		case p.created:
			if !chain.IsDerived(p.name) { // else its instances have the tags of another service
				p.gate = s.tags.Gate(p.name, p.next, p.service.apply)
			}
			s.add(p.service)
			s.obey(p.pool) // orders may have changed since
			if !closed(s.warm) {
				p.checker.Restore(s.former.Ejected[p.name])
			}
			p.checker.Start(p.pool, p.health)
		case p.changed:
			o := s.poolOptions(p.next, p.service, p.health)
			// Other instances that come before the routes change need not be in the former groups.
			if p.regroup = (p.source == nil || p.late()) && !reflect.DeepEqual(p.config.Groups, p.next.Groups); p.regroup {
				o.Groups = groupsOf(p.config.Groups)
			}
			if err := p.checker.Reconfigure(o, p.health); err != nil {
				return err // impossible with a checked configuration
			}
		}
		if p.changed {
			p.certificates.Store(&p.uses)
			if p.source == nil { // else watch does it
				p.reach(p.reached(p.known().source), false)
			}
		}
	}
	return nil
}

// regroup gives the pools the groups of plans, for the routes that change now: the former ones have led to the former groups.
func (s *services) regroup(plans []*servicePlan) error {
	for _, p := range plans {
		if !p.regroup {
			continue
		}
		if err := p.pool.Reconfigure(s.poolOptions(p.next, p.service, p.health)); err != nil {
			return err // impossible with a checked configuration
		}
	}
	return nil
}

// join ends the use of a former TLS for instances outside of the mesh, of those of plans that are in it.
func (s *services) join(plans []*servicePlan) {
	for _, p := range plans {
		if isInMesh(p.next) {
			p.join()
		}
	}
}

// watch begins the watches with the new sources of those of plans that are, or are not, late.
func (s *services) watch(plans []*servicePlan, late bool) {
	sources := make(map[string]discovery.Source)
	for _, p := range plans {
		if p.source != nil && p.late() == late {
			sources[p.name] = p.source
			if p.changed { // else the source has the name of before
				p.reach(p.reached(discovery.NameOf(p.source)), true)
			}
		}
	}
	s.discovery.WatchAll(sources)
}

// reached returns how the instances of p are reached, of a source with that name.
func (p *servicePlan) reached(source string) reach {
	if isInMesh(p.next) && !p.created { // join does it
		return reach{source, p.next.NamesAddresses(), p.known().tls}
	}
	return reach{source, p.next.NamesAddresses(), p.upstream}
}

// late reports whether p gets other instances only after the routes have changed: it has a discovery chain, so in the former
// one, without, all requests may go to the former instances; see chain.Translate.
func (p *servicePlan) late() bool { return !p.created && p.next.Chain != nil }

// moved returns the names of the services with a chain, or without one any more, that get other instances before the routes change.
func moved(plans []*servicePlan) (names []string) {
	for _, p := range plans {
		if p.source != nil && !p.created && (isInMesh(p.next) || p.switched) && !p.late() && !lacksChain(p.next) {
			names = append(names, p.name)
		}
	}
	return names
}

// lateTimeout is how long a service that a reload has removed still gets the requests that were matched to it before: until
// the body has arrived, or who is asked about a request has answered. Then its pool closes. As long, the keys of issuers are
// read for such requests.
const lateTimeout = 10 * time.Second

// retain ends the services that plans lack: their pools drain. late is lateTimeout. A leader may change, which nobody learns
// any more, so that it gets nothing. All of plans is in use then.
func (s *services) retain(plans []*servicePlan, late time.Duration) {
	for _, p := range plans {
		p.service.config, p.service.spec = p.next, p.spec
	}
	for _, service := range s.all() {
		if slices.ContainsFunc(plans, func(p *servicePlan) bool { return p.service == service }) {
			continue
		}
		s.discovery.Unwatch(service.name)
		s.tags.Forget(service.name)
		service.checker.Stop()
		if service.config.Leader() != nil {
			service.pool.Close()
		} else {
			service.pool.Retire(late)
		}
		s.retire(service)
	}
}
