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
	"sluice/observe/wake"
	"sluice/proxy/upstream"
)

// servicePlan is a service with its next configuration.
type servicePlan struct {
	*service
	created      bool // it is new
	next         config.Service
	spec         sourceSpec
	source       discovery.Source // nil: unchanged
	groupsChange bool             // the groups of the pool change with the routes

	// If it is new or changed.

	changed  bool
	switched bool // into the mesh, or out of it
	health   healthcheck.Settings
	upstream certificates.Security // of requests; nil: without TLS
	uses     []certificates.Use
}

// prepare returns the services of c, sorted by name, with everything whose creation can fail. It
// changes nothing that is in use.
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
				// An instance that is not as the configuration says is of the former one: it
				// cannot be checked. Nor can one to which the mesh lets nobody connect.
				active.Denied = func(i discovery.Instance) bool {
					return (i.Identity != "") != isInMesh(p.next) || s.intentions.Denial(i) != nil
				}
			}
			p.switched = !p.created && isInMesh(p.config) != isInMesh(p.next)
		}
		if p.created {
			p.service = s.newService(name, p)
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

// readCertificates sets the health settings of p and the TLS of its requests, with their
// certificates. A service in the mesh has those of the mesh.
func (p *servicePlan) readCertificates(name string, mesh certificates.Security, log zerolog.Logger) (err error) {
	if isInMesh(p.next) {
		p.upstream, p.health = mesh, healthSettings(&p.next, mesh)
		return nil
	}
	read := func(user string, t *certificates.ClientTLS) (*certificates.Client, error) {
		return certificates.NewClient(certificates.ClientOptions{ClientTLS: *t, Changed: certificates.LogChanges("used_by", user, log)})
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
		p.upstream = p.wanted().tls // its connections can be reused
	} else if p.upstream, err = read(user, files); err != nil {
		return fmt.Errorf("upstream.tls: %w", err)
	}
	use(user, p.upstream.(*certificates.Client))
	return nil
}

// newService returns a service with an empty pool, which is not in use yet.
func (s *services) newService(name string, p *servicePlan) *service {
	created := newService(name, s.mesh, s.health.NewChecker())
	o := s.poolOptions(p.next, created, p.health)
	o.MayConnect, o.MayUseSocket = s.mayConnect(created), s.machine.MayUseSocket
	created.pool = balancer.NewPool(name, o)
	s.applyOrdersTo(created.pool)
	return created
}

func (s *services) poolOptions(c config.Service, of *service, health healthcheck.Settings) balancer.Options {
	o := poolOptions(c)
	o.Notify = s.recordPeer
	o.NewTransport = s.proxy.NewTransport(upstream.Options{Keepalive: c.Keepalive, ResponseLimits: c.Limits.ResponseLimits, TLS: of.security, Intentions: s.intentions})
	if health.Active != nil {
		o.FailedBefore = s.failedBefore(of)
	}
	o.NewWitness = s.witness
	return of.checker.Adapt(o, health)
}

// apply changes the services in use to plans. Left for later are the sources, for watch, groups
// that change with the routes, for applyGroups, and services that plans lack, for retain.
func (s *services) apply(plans []*servicePlan) {
	for _, p := range plans {
		switch {
		case p.created:
			if !chain.IsDerived(p.name) { // otherwise its instances have the tags of another service
				p.gate = s.tags.Gate(p.name, p.next, p.service.apply)
			}
			s.add(p.service)
			s.applyOrdersTo(p.pool) // orders may have changed since
			if !wake.Closed(s.warm) {
				p.checker.Restore(s.former.Ejected[p.name])
			}
			p.checker.Start(p.pool, p.health)
		case p.changed:
			o := s.poolOptions(p.next, p.service, p.health)
			// Instances of a new source, if they come before the routes change, need not be in the
			// former groups.
			if p.groupsChange = (p.source == nil || p.afterSwap()) && !reflect.DeepEqual(p.config.Groups, p.next.Groups); p.groupsChange {
				o.Groups = groupsOf(p.config.Groups)
			}
			p.checker.Reconfigure(o, p.health)
		}
		if p.changed {
			p.certificates.Store(&p.uses)
			if p.source == nil { // else watch does it
				p.setTLS(p.tlsOf(p.wanted().source), false)
			}
		}
	}
}

// applyGroups gives the pools the groups of plans, right before the routes that lead to them.
func (s *services) applyGroups(plans []*servicePlan) {
	for _, p := range plans {
		if p.groupsChange {
			p.pool.Reconfigure(s.poolOptions(p.next, p.service, p.health))
		}
	}
}

// useMeshTLS ends the use of a former TLS in the services of plans that are in the mesh.
func (s *services) useMeshTLS(plans []*servicePlan) {
	for _, p := range plans {
		if isInMesh(p.next) {
			p.useMeshTLS()
		}
	}
}

// watch starts the new sources of plans, before or after the swap of the routes.
func (s *services) watch(plans []*servicePlan, afterSwap bool) {
	sources := make(map[string]discovery.Source)
	for _, p := range plans {
		if p.source != nil && p.afterSwap() == afterSwap {
			sources[p.name] = p.source
			if p.changed { // otherwise the source has the name of the former one
				p.setTLS(p.tlsOf(discovery.NameOf(p.source)), true)
			}
		}
	}
	s.discovery.WatchAll(sources)
}

// tlsOf returns how to connect to the instances of p from a source with that name.
func (p *servicePlan) tlsOf(source string) peerTLS {
	if isInMesh(p.next) && !p.created { // useMeshTLS does it
		return peerTLS{source, p.next.NamesAddresses(), p.wanted().tls}
	}
	return peerTLS{source, p.next.NamesAddresses(), p.upstream}
}

// afterSwap reports whether the new source of p starts after the swap of the routes: p has a
// discovery chain, and the former routes may send all its requests to the former instances; see
// chain.Translate.
func (p *servicePlan) afterSwap() bool { return !p.created && len(p.next.Chain) > 0 }

// moved returns the names of the services in the mesh, or switched, that get other instances before
// the routes change.
func moved(plans []*servicePlan) (names []string) {
	for _, p := range plans {
		if p.source != nil && !p.created && (isInMesh(p.next) || p.switched) && !p.afterSwap() && !lacksChain(p.next) {
			names = append(names, p.name)
		}
	}
	return names
}

// retireTimeout bounds how long a service that a reload has removed gets requests whose route was
// chosen before: while their body arrives, or an authentication server answers. Then its pool
// closes. The keys of issuers are read as long.
const retireTimeout = 10 * time.Second

// retain ends the services that plans lack: their pools drain, after timeout. That of a service
// with a leader closes at once, as nobody learns any more when another one leads. Then all of plans
// is in use.
func (s *services) retain(plans []*servicePlan, timeout time.Duration) {
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
			service.pool.Retire(timeout)
		}
		s.retire(service)
	}
}
