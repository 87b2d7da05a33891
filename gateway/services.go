package gateway

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/balancer/journal"
	"sluice/certificates"
	"sluice/config"
	"sluice/consul/mesh"
	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/discovery/saved"
	"sluice/healthcheck"
	"sluice/observe/events"
	"sluice/observe/wake"
	"sluice/operator"
	"sluice/proxy"
	"sluice/tags/catalog"
)

// services are the services in use, with their watches, pools and health checks, and the pools of
// removed services that still drain. Their methods may be called concurrently, except apply, watch
// and retain, which only the goroutine that applies configurations calls.
type services struct {
	registries *registries
	mesh       certificates.Security // of connections to peers in the mesh
	intentions *mesh.Intentions
	proxy      *proxy.Server // makes the transports to peers
	machine    *locality.Machine
	tags       *catalog.Reader
	orders     func() operator.Set // by operators, about peers
	warm       <-chan struct{}     // closed when clients may be served
	log        zerolog.Logger

	former outOfService // in the old process; set before there are services

	discovery *discovery.Manager
	snapshot  *saved.Store
	health    *healthcheck.Monitor
	journal   *journal.Journal
	witness   func(*balancer.Pool) balancer.Witness // of new pools; nil: none

	applyingOrders sync.Mutex // held by applyOrdersTo: the latest orders win

	mu      sync.RWMutex // guards the fields below
	byName  map[string]*service
	retired []*balancer.Pool // the latest first
}

// open begins with what c, the first configuration, has for all services. It must be called once,
// before all else.
func (s *services) open(c *config.Config, owner *operator.Ownership, feed *events.Feed) (err error) {
	s.byName = make(map[string]*service)
	s.journal = journal.New(feed, s.log)
	s.health = healthcheck.NewMonitor(healthcheck.Options{MaxChecks: c.Health.MaxChecks})
	if s.snapshot, err = saved.Open(saved.Options{
		Path: c.Discovery.Snapshot, MaxAge: c.Discovery.SnapshotMaxAge, Owner: owner.Do,
		States: func() map[string]discovery.WatchState { return s.discovery.States() }, Log: s.log,
	}); err != nil {
		return fmt.Errorf("discovery.snapshot: %w", err)
	}
	s.discovery = discovery.NewManager(discovery.ManagerOptions{
		Debounce: c.Discovery.Debounce,
		Sink:     s.deliver,
		Fallback: s.snapshot.Get,
		Complete: s.withFailures,
		Log:      s.log,
		Events:   feed,
	})
	return nil
}

// close ends the checks, and closes the pools.
func (s *services) close() {
	s.health.Close()
	s.journal.Close()
	for _, pool := range s.pools() {
		pool.Close()
	}
}

// deliver passes the set of a service to its pool. The discovery manager makes one call at a
// time.
func (s *services) deliver(set discovery.Set) {
	if service := s.get(set.Service); service != nil {
		if service.gate == nil {
			service.apply(set, true)
		} else {
			service.gate.Pass(set)
		}
	}
	s.snapshot.Changed()
}

// recordPeer passes an event of a pool on. The pool's mutex is held.
func (s *services) recordPeer(e balancer.Event) {
	s.journal.Note(e)
	if e.Kind == balancer.EventState && !e.Peer.Instance().Probation.IsZero() {
		s.snapshot.Changed() // it has failed for good, which is part of the state
	}
}

// failedPeer is a peer whose active checks fail.
type failedPeer struct {
	Key discovery.Key `json:"key"`
	Why string        `json:"why"`
}

// outOfService are peers that get no requests, for a new process: until its own first checks have
// ended, which may take long if a peer hangs, it does not use them either.
type outOfService struct {
	Failed  map[string][]failedPeer           `json:"failed"`  // by their active checks, by service
	Ejected map[string][]healthcheck.Ejection `json:"ejected"` // by service
}

// save returns the peers that are out of service, for a new process.
func (s *services) save() outOfService {
	all := outOfService{make(map[string][]failedPeer), make(map[string][]healthcheck.Ejection)}
	for _, service := range s.all() {
		for key, why := range service.pool.Snapshot().FailedChecks() {
			all.Failed[service.name] = append(all.Failed[service.name], failedPeer{key, why})
		}
		if ejected := service.checker.Ejections(); len(ejected) > 0 {
			all.Ejected[service.name] = ejected
		}
	}
	return all
}

func (s *services) restore(former outOfService) { s.former = former }

// failedOfFormer returns the failing peers of the service that p renames: c lacks it, and it has
// the source of p, in this process or in the old one.
func (s *services) failedOfFormer(c *config.Config, p *servicePlan) (failed []failedPeer) {
	for name, list := range s.former.Failed {
		if _, stays := c.Services[name]; stays || wake.Closed(s.warm) {
			continue
		}
		former, _ := s.discovery.Former(name)
		if former.Source == discovery.NameOf(p.source) || former.Source == "" && p.spec.of == nil { // the peers are in the configuration
			failed = append(failed, list...)
		}
	}
	for _, service := range s.all() {
		if _, stays := c.Services[service.name]; stays || !reflect.DeepEqual(service.spec, p.spec) {
			continue
		}
		for key, why := range service.pool.Snapshot().FailedChecks() {
			failed = append(failed, failedPeer{key, why})
		}
	}
	return failed
}

// failedBefore returns Options.FailedBefore of the pool of a service. It says nothing about a peer
// that comes later: neither the old process nor the renamed service had it.
func (s *services) failedBefore(of *service) func(discovery.Instance) string {
	return func(i discovery.Instance) string {
		key := i.Key()
		failed, known := s.former.Failed[of.name]
		same := func(p failedPeer) bool { return p.Key == key }
		if wake.Closed(s.warm) || !known {
			if wake.Closed(of.first) {
				return ""
			}
			failed = of.failed
			same = func(p failedPeer) bool {
				p.Key.Service = key.Service // of some sources it is the service's name
				return p.Key == key
			}
		}
		if n := slices.IndexFunc(failed, same); n >= 0 {
			return failed[n].Why
		}
		return ""
	}
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

// neededEvery is how often a process that was replaced looks which services it must watch again.
const neededEvery = 200 * time.Millisecond

// followNeeded watches some services while another process watches Consul: those in which requests
// wait for a peer, and those with a leader, because connections to an instance that no longer leads
// must end here too.
func (s *services) followNeeded() {
	s.discovery.ResumeSome(func(name string) bool {
		configured, pool := s.registries.config().Services[name], s.pool(name)
		return configured.Leader() != nil || pool != nil && pool.Admission.Pending() > 0
	})
}

// all returns the services in use, sorted by name.
func (s *services) all() []*service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.byName), func(a, b *service) int { return strings.Compare(a.name, b.name) })
}

func (s *services) add(added *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName[added.name] = added
}

// retire removes a service. pools returns its pool until it has drained.
func (s *services) retire(gone *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, gone.name)
	s.retired = append([]*balancer.Pool{gone.pool}, s.drainingLocked()...)
}

// pools returns the pools in use, sorted by name, and then the draining ones, the latest first.
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
	return slices.DeleteFunc(slices.Clone(s.retired), func(p *balancer.Pool) bool { return wake.Closed(p.Drained()) })
}

// healthStats returns the counters of health checks by service.
func (s *services) healthStats() map[string]healthcheck.Stats {
	all := s.all()
	stats := make(map[string]healthcheck.Stats, len(all))
	for _, service := range all {
		stats[service.name] = service.checker.Stats()
	}
	return stats
}

// certificates returns the uses of certificates by connections to peers.
func (s *services) certificates() (uses []certificates.Use) {
	for _, service := range s.all() {
		uses = append(uses, *service.certificates.Load()...)
	}
	return uses
}

// applyOrders passes the operators' orders to all pools.
func (s *services) applyOrders() {
	for _, service := range s.all() {
		s.applyOrdersTo(service.pool)
	}
}

// applyOrdersTo passes the operators' orders to a pool.
func (s *services) applyOrdersTo(pool *balancer.Pool) {
	s.applyingOrders.Lock()
	defer s.applyingOrders.Unlock()
	pool.Maintenance.Store(s.orders().Maintenance(pool.Name))
	pool.SetOrders(func(i discovery.Instance) balancer.Orders { return s.orders().For(i) })
}

// mayConnect returns a function that checks whether an address of an instance of the service
// may be connected to, also of one that the configuration has no more.
func (s *services) mayConnect(of *service) func(discovery.Instance, netip.AddrPort) error {
	return func(i discovery.Instance, to netip.AddrPort) error {
		return s.machine.MayConnect(to, locality.Origin{
			Trusted:     s.registries.config().Discovery.AllowLocal || of.currentTLS.Load().named,
			Node:        i.Node,
			NodeAddress: i.NodeAddress,
		})
	}
}

// recheckAddresses checks the addresses of all peers again.
func (s *services) recheckAddresses() {
	for _, service := range s.all() {
		service.pool.RecheckAddresses()
	}
}

func (s *services) watches() map[string]discovery.WatchStatus {
	statuses := s.discovery.Statuses()
	watches := make(map[string]discovery.WatchStatus, len(statuses))
	for _, w := range statuses {
		watches[w.Service] = w
	}
	return watches
}

// awaitKnown waits until the pools have each set that is known without a registry, the set of the
// configuration or of the snapshot, so that no client comes before them however slow the machine
// is.
func (s *services) awaitKnown(ctx context.Context, timeout time.Duration) {
	s.discovery.UseFallback()
	watches := s.watches()
	known := slices.DeleteFunc(s.all(), func(s *service) bool {
		watch, watched := watches[s.name]
		return !watched || watch.State == discovery.WatchPending
	})
	s.awaitFirst(ctx, known, timeout)
	s.discovery.AwaitSources(ctx, timeout)
}

// maxLateLines limits the lines of awaitFirst about services without a set.
const maxLateLines = 20

// awaitFirst waits until the pools of the services have their first set, at most for timeout.
func (s *services) awaitFirst(ctx context.Context, list []*service, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	late := 0
	for _, service := range list {
		if within(ctx, service.first) {
			continue
		}
		if late++; late <= maxLateLines {
			s.log.Warn().Str("service", service.name).Stringer("waited", timeout).
				Str("missing", service.missing(s.discovery.Status(service.name))).Msg("no peers yet")
		}
	}
	if more := late - maxLateLines; more > 0 {
		s.log.Warn().Int("more", more).Stringer("waited", timeout).Msg("no peers yet")
	}
}
