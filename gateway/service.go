package gateway

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/route"
)

// service is a service in use: its pool, and what feeds it. The pool is the
// same as long as the service is configured.
type service struct {
	name    string
	pool    *balancer.Pool
	checker *healthcheck.Checker // judges the pool's peers

	first     chan struct{} // closed when the pool has got its first set, and checked it if it must
	firstOnce sync.Once
	gone      chan struct{} // closed when the service is no longer configured

	// What was applied last; New and then the goroutine that reloads use it.

	config config.Service
	source sourceSpec
}

func newService(name string, pool *balancer.Pool, checker *healthcheck.Checker) *service {
	return &service{name: name, pool: pool, checker: checker, first: make(chan struct{}), gone: make(chan struct{})}
}

// apply is the end of discovery: the full set goes to the pool.
func (s *service) apply(set []discovery.Instance) {
	s.pool.Apply(set)
	s.firstOnce.Do(func() { s.checker.AfterFirstChecks(func() { close(s.first) }) })
}

// known reports whether first is closed.
func (s *service) known() bool {
	select {
	case <-s.first:
		return true
	default:
		return false
	}
}

// missing says what first waits for, given the state of the service's watch.
func (s *service) missing(watch discovery.WatchStatus) string {
	switch {
	case len(s.pool.Snapshot().All) > 0:
		return "its peers must pass a health check first, and not all have been checked"
	case watch.LastError != "":
		return watch.LastError
	}
	return "no answer from its source yet"
}

// routed returns s as a target of routes, with the settings of c.
func (s *service) routed(c config.Service) *route.Service {
	return &route.Service{
		Name: s.name,
		Pool: s.pool,
		Timeouts: route.Timeouts{
			Connect:        c.Timeouts.Connect,
			ResponseHeader: c.Timeouts.ResponseHeader,
			Idle:           c.Timeouts.Idle,
			Tunnel:         c.Timeouts.Tunnel,
		},
		Retry: route.Retry{
			Attempts:      c.Retry.Attempts,
			PerTryTimeout: c.Retry.PerTryTimeout,
			BodyBytes:     int64(c.Retry.Body),
			Hedge:         hedgeOf(c.Retry.Hedge),
		},
		Affinity:    affinityOf(c.Balance),
		WaitForPeer: c.WaitForPeer,
	}
}

// affinityOf says which requests the policy keeps together.
func affinityOf(b config.Balance) *route.Affinity {
	switch balancer.Policy(b.Policy) {
	case balancer.PolicyHash:
		a := new(route.Affinity)
		for _, s := range b.Hash.Keys {
			if key, err := route.ParseHashKey(s); err == nil { // as the loader checked
				a.Keys = append(a.Keys, key)
			}
		}
		return a
	case balancer.PolicySticky:
		return &route.Affinity{
			Cookie:           b.Sticky.Cookie,
			CookieAttributes: cookieAttributes(b.Sticky),
			RefreshCookie:    b.Sticky.MaxAge > 0,
		}
	}
	return nil
}

// cookieAttributes returns the attributes of RFC 6265bis, section 4.1.2. No
// script needs to read the cookie.
func cookieAttributes(s config.Sticky) string {
	attributes := "; Path=" + s.Path
	if s.Domain != "" {
		attributes += "; Domain=" + s.Domain
	}
	if s.MaxAge > 0 {
		attributes += fmt.Sprintf("; Max-Age=%d", max(1, s.MaxAge/time.Second))
	}
	attributes += "; HttpOnly; SameSite=" + map[string]string{"lax": "Lax", "strict": "Strict", "none": "None"}[s.SameSite]
	if s.Secure {
		attributes += "; Secure"
	}
	return attributes
}

func hedgeOf(c config.Hedge) *route.Hedge {
	if c.After == 0 && c.Percentile == 0 {
		return nil
	}
	return &route.Hedge{After: c.After, Percentile: float64(c.Percentile)}
}

// services are the services in use and the pools of those that are gone and
// still drain. It is safe for concurrent use.
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

// all returns the services in use, sorted by name.
func (s *services) all() []*service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*service, 0, len(s.byName))
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		list = append(list, s.byName[name])
	}
	return list
}

// add puts new services to use.
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

// retire takes a service out of use. Its pool is shown until it has drained.
func (s *services) retire(gone *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, gone.name)
	close(gone.gone)
	s.retired = append(s.drainingLocked(), gone.pool)
}

// pools returns the pools in use, sorted by name, and those that drain.
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

// drainingLocked returns the retired pools that have not drained yet, in a new
// slice.
func (s *services) drainingLocked() []*balancer.Pool {
	var draining []*balancer.Pool
	for _, pool := range s.retired {
		select {
		case <-pool.Drained():
		default:
			draining = append(draining, pool)
		}
	}
	return draining
}
