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
	// gate is before the pool. It is set when the service comes into use. nil: a discovery chain
	// leads to the service.
	gate *catalog.Gate

	// first is closed when the pool has its first set, and with must_pass_first has checked it.
	first     chan struct{}
	firstOnce sync.Once

	failed []failedPeer // peers whose active checks fail in a service that this one replaces

	certificates atomic.Pointer[[]certificates.Use] // of connections to the peers
	mesh         certificates.Security              // of requests to instances in the mesh

	// After a reload has changed the source, the pool keeps the instances of the former source
	// until the new one has reported a set: currentTLS is for the instances in the pool, and
	// wantedTLS for those of the source.

	currentTLS atomic.Pointer[peerTLS] // stored with mu held
	mu         sync.Mutex
	// mu guards the fields below.
	wantedTLS *peerTLS

	// What was last applied, for the goroutine that applies configurations.

	config config.Service
	spec   sourceSpec
}

// peerTLS says how to connect to the instances of a source. It is not changed.
type peerTLS struct {
	source string                // its name
	named  bool                  // the operator names their addresses
	tls    certificates.Security // of requests to those outside of the mesh; nil: without TLS
}

func newService(name string, mesh certificates.Security, checker *healthcheck.Checker) *service {
	s := &service{name: name, mesh: mesh, checker: checker, first: make(chan struct{}), wantedTLS: new(peerTLS)}
	s.currentTLS.Store(s.wantedTLS)
	s.certificates.Store(new([]certificates.Use))
	return s
}

// security returns the TLS of requests to an instance in the mesh, or to one outside of it. nil:
// without TLS. While a reload moves the service into the mesh or out of it, the pool has both
// kinds.
func (s *service) security(inMesh bool) certificates.Security {
	if inMesh {
		return s.mesh
	}
	return s.currentTLS.Load().tls
}

// wanted returns wantedTLS.
func (s *service) wanted() peerTLS {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.wantedTLS
}

// setTLS sets wantedTLS. another: the source is another one, so the instances in the pool keep
// theirs.
func (s *service) setTLS(t peerTLS, another bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !another && s.currentTLS.Load() == s.wantedTLS {
		s.currentTLS.Store(&t)
	}
	s.wantedTLS = &t
}

// useMeshTLS connects by the mesh also to instances outside of it.
func (s *service) useMeshTLS() {
	s.mu.Lock()
	defer s.mu.Unlock()
	source := &peerTLS{s.wantedTLS.source, s.wantedTLS.named, s.mesh}
	if current := s.currentTLS.Load(); current == s.wantedTLS {
		s.currentTLS.Store(source)
	} else {
		s.currentTLS.Store(&peerTLS{current.source, current.named, s.mesh})
	}
	s.wantedTLS = source
}

// sourceChanged reports whether a set is from a source whose TLS settings are not in use yet. With
// a whole set they are in use from now on.
func (s *service) sourceChanged(source string, whole bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = source == s.wantedTLS.source && s.currentTLS.Load() != s.wantedTLS
	if changed && whole {
		s.currentTLS.Store(s.wantedTLS)
	}
	return changed
}

// apply passes a full set of instances to the pool. Of a service with a leader it passes the leader
// only. whole: it is the latest set of the watch.
func (s *service) apply(set discovery.Set, whole bool) {
	apply := s.pool.Apply
	if s.sourceChanged(set.Source, whole) {
		apply = s.pool.ApplyMoved
	}
	apply(discovery.WithoutFollowers(set.Instances))
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
