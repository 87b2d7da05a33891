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

	failed []failedPeer // peers whose active checks fail in a service that this one replaces

	certificates atomic.Pointer[[]certificates.Use] // of connections to the peers
	mesh         certificates.Security              // of requests to instances in the mesh

	// The instances in the pool are reached as inPool says, and those of the source as reaches says: a reload may have changed
	// the source, and the pool keeps the former ones until there is a set of it.

	inPool atomic.Pointer[reach] // stored with mu held
	mu     sync.Mutex
	// mu guards the fields below.
	reaches *reach

	// What was last applied, for the goroutine that applies configurations.

	config config.Service
	spec   sourceSpec
}

// reach is how the instances of a source are reached. It is not changed.
type reach struct {
	source string                // its name
	named  bool                  // the operator names their addresses
	tls    certificates.Security // of requests to those outside of the mesh; nil: without TLS
}

func newService(name string, mesh certificates.Security, checker *healthcheck.Checker) *service {
	s := &service{name: name, mesh: mesh, checker: checker, first: make(chan struct{}), reaches: new(reach)}
	s.inPool.Store(s.reaches)
	s.certificates.Store(new([]certificates.Use))
	return s
}

// security returns the TLS of requests to an instance that is in the mesh or not; nil: without TLS. While a reload moves the
// service into the mesh or out of it, there are still instances of before.
func (s *service) security(inMesh bool) certificates.Security {
	if inMesh {
		return s.mesh
	}
	return s.inPool.Load().tls
}

// known returns how the instances of the source are reached.
func (s *service) known() reach {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.reaches
}

// reach sets how the instances of the source are reached: of another one than before those that it reports from now on.
func (s *service) reach(r reach, another bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !another && s.inPool.Load() == s.reaches {
		s.inPool.Store(&r)
	}
	s.reaches = &r
}

// join makes instances outside of the mesh be reached as those in it.
func (s *service) join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	source := &reach{s.reaches.source, s.reaches.named, s.mesh}
	if now := s.inPool.Load(); now == s.reaches {
		s.inPool.Store(source)
	} else {
		s.inPool.Store(&reach{now.source, now.named, s.mesh})
	}
	s.reaches = source
}

// sourceChanged reports whether the pool gets a set of another source than its instances are reached as, of which it has had
// none as a whole. If it gets a whole one now, all instances are reached as those of this source from now on.
func (s *service) sourceChanged(source string, whole bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = source == s.reaches.source && s.inPool.Load() != s.reaches
	if changed && whole {
		s.inPool.Store(s.reaches)
	}
	return changed
}

// apply passes a full set of instances to the pool, of a service with a leader only this one. whole says that it is the last set
// of the watch.
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
