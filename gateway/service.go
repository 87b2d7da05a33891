package gateway

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/tags/catalog"
)

// service is a service in use. It has the same pool as long as it is configured.
type service struct {
	name    string
	pool    *balancer.Pool
	checker *healthcheck.Checker // of the peers of the pool
	gate    *catalog.Gate        // before the pool; set when the service comes into use

	first     chan struct{} // closed when the pool has its first set, and has checked it if must_pass_first is set
	firstOnce sync.Once
	gone      chan struct{} // closed when the service is no longer configured

	certificates atomic.Pointer[[]certificates.Use]  // of connections to the peers
	upstreamTLS  atomic.Pointer[certificates.Client] // of requests; nil: without TLS

	// What was last applied, for the goroutine that applies configurations.

	config config.Service
	source sourceSpec
}

func newService(name string, checker *healthcheck.Checker) *service {
	s := &service{name: name, checker: checker, first: make(chan struct{}), gone: make(chan struct{})}
	s.certificates.Store(new([]certificates.Use))
	return s
}

// apply passes a full set of instances to the pool.
func (s *service) apply(set []discovery.Instance) {
	s.pool.Apply(set)
	s.firstOnce.Do(func() { s.checker.AfterFirstChecks(func() { close(s.first) }) })
}

// missing returns why first is not closed. watch is the status of the service's watch.
func (s *service) missing(watch discovery.WatchStatus) string {
	switch {
	case len(s.pool.Snapshot().All) > 0:
		return "its peers must pass a health check first, and some are not checked yet"
	case watch.LastError != "":
		return watch.LastError
	}
	return "no answer from its source yet"
}

// services contains the services in use, and the pools of removed services that still drain.
// Its methods may be called concurrently.
type services struct {
	mu sync.RWMutex // guards the fields below

	byName  map[string]*service
	retired []*balancer.Pool
}

func (s *services) get(name string) *service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byName[name]
}

// pool returns the pool of a service in use; nil: there is none.
func (s *services) pool(name string) *balancer.Pool {
	if service := s.get(name); service != nil {
		return service.pool
	}
	return nil
}

// withFailures returns a set of a service with the instances on probation that have failed.
func (s *services) withFailures(name string, set []discovery.Instance) []discovery.Instance {
	if pool := s.pool(name); pool != nil {
		return pool.WithFailures(set)
	}
	return set
}

// all returns the services in use, sorted by name.
func (s *services) all() []*service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.byName), func(a, b *service) int { return strings.Compare(a.name, b.name) })
}

// add adds new services.
func (s *services) add(list []*service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName == nil {
		s.byName = make(map[string]*service)
	}
	for _, service := range list {
		s.byName[service.name] = service
	}
}

// retire removes a service. pools returns its pool until it has drained.
func (s *services) retire(gone *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, gone.name)
	close(gone.gone)
	s.retired = append(s.drainingLocked(), gone.pool)
}

// pools returns the pools in use, sorted by name, and then those that drain.
func (s *services) pools() []*balancer.Pool {
	all := s.all()
	s.mu.RLock()
	defer s.mu.RUnlock()
	pools := make([]*balancer.Pool, 0, len(all)+len(s.retired))
	for _, service := range all {
		pools = append(pools, service.pool)
	}
	return append(pools, s.drainingLocked()...)
}

// drainingLocked returns the retired pools that have not drained yet, in a new slice.
func (s *services) drainingLocked() []*balancer.Pool {
	return slices.DeleteFunc(slices.Clone(s.retired), func(p *balancer.Pool) bool { return closed(p.Drained()) })
}
