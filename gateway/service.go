package gateway

import (
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
	gate    *catalog.Gate        // before the pool; set when the service comes into use; nil for one that a discovery chain leads to

	first     chan struct{} // closed when the pool has its first set, and has checked it if must_pass_first is set
	firstOnce sync.Once
	gone      chan struct{} // closed when the service is no longer configured

	names atomic.Bool // the operator names the addresses of the instances of the service
	named atomic.Bool // likewise for those that are in the pool: a reload may have changed the source, and they stay until it has a set

	certificates atomic.Pointer[[]certificates.Use]    // of connections to the peers
	upstreamTLS  atomic.Pointer[certificates.Security] // of requests to instances outside of the mesh; nil: without TLS
	mesh         certificates.Security                 // of requests to those in it

	// What was last applied, for the goroutine that applies configurations.

	config config.Service
	spec   sourceSpec
}

func newService(name string, mesh certificates.Security, checker *healthcheck.Checker) *service {
	s := &service{name: name, mesh: mesh, checker: checker, first: make(chan struct{}), gone: make(chan struct{})}
	s.certificates.Store(new([]certificates.Use))
	return s
}

// security returns the TLS of requests to an instance that is in the mesh or not; nil: without TLS. While a reload moves the
// service into the mesh or out of it, there are still instances of before.
func (s *service) security(inMesh bool) certificates.Security {
	if inMesh {
		return s.mesh
	}
	if secure := s.upstreamTLS.Load(); secure != nil {
		return *secure
	}
	return nil
}

// apply passes a full set of instances to the pool, of a service with a leader only this one.
func (s *service) apply(set []discovery.Instance) {
	s.named.Store(s.names.Load())
	s.pool.Apply(discovery.WithoutFollowers(set))
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
