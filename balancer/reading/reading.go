// Package reading reads the pools of services: a service has several while one that was removed and
// added again drains. A counter is the one of the newest pool that has it, so that it does not fall
// when an older one has drained: Prometheus takes a fall for a new beginning, and counts all of the
// newest once more. What is there now is the sum.
package reading

import (
	"cmp"
	"slices"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/metrics"
)

// Service is what the pools with a name have counted, and what is in them, at one time.
type Service struct {
	Name      string
	Policy    balancer.Policy
	Requests  metrics.RequestsSnapshot
	Responses []metrics.Response
	Refusals  [balancer.NumLimits]uint64
	Retries   int // that the budget of the pool in use allows now
	Pending   int
	Eligible  int
	Panic     bool
	Tiers     []balancer.Tier    // of the pool in use
	Overload  *balancer.Overload // likewise; nil if it has no adaptive limit
	Groups    []Group
	Peers     []Peer           // in the set, then draining; no two with the same labels
	present   []*balancer.Peer // in the set
}

// Peer is the counters of a peer.
type Peer struct {
	Peer     *balancer.Peer
	labels   labels
	State    balancer.State
	Inflight int
	Outcomes [balancer.NumOutcomes]uint64
}

// labels identify a peer of a service.
type labels struct{ node, id, address string }

// Group is the counters of a group.
type Group struct {
	Name            string
	Peers, Eligible int
	Attempts        metrics.RequestsSnapshot
	Fallbacks       uint64
}

// Sorted returns pools sorted by name; pools of the same name keep their order.
func Sorted(pools []*balancer.Pool) []*balancer.Pool {
	pools = slices.Clone(pools)
	slices.SortStableFunc(pools, func(a, b *balancer.Pool) int { return cmp.Compare(a.Name, b.Name) })
	return pools
}

// Of returns what each service has, sorted by name. Of pools with the same name, a newer one must
// come first.
func Of(pools []*balancer.Pool) []*Service {
	var all []*Service
	for _, pool := range Sorted(pools) {
		last := len(all) - 1
		if last < 0 || all[last].Name != pool.Name {
			all = append(all, &Service{Name: pool.Name, Requests: pool.Requests.Snapshot(), Responses: pool.Requests.Responses(), Refusals: pool.Admission.Refusals()})
			last++
		}
		all[last].add(pool)
	}
	return all
}

func (s *Service) add(pool *balancer.Pool) {
	s.Pending += pool.Admission.Pending()
	view := pool.View()
	snapshot := view.Snapshot
	s.present = append(s.present, snapshot.All...)
	if len(snapshot.All) > 0 {
		s.Eligible += len(snapshot.Eligible)
	}
	s.Panic = s.Panic || snapshot.Panic
	if len(snapshot.All) > 0 || s.Tiers == nil { // a draining pool has no tiers
		s.Tiers, s.Policy, s.Retries, s.Overload = snapshot.Tiers, snapshot.Policy, pool.Admission.RetriesLeft(snapshot), snapshot.Overload()
	}
	for _, part := range snapshot.Groups {
		s.addGroup(part)
	}
	newer := len(s.Peers) // those before are of newer pools
	known := make(map[labels]int, newer)
	for i, p := range s.Peers {
		known[p.labels] = i
	}
	for _, peer := range view.Peers {
		p := Peer{Peer: peer.Peer, labels: labels{peer.Instance().Node, peer.Peer.ID.ID, peer.Peer.ID.Address}, State: peer.State()}
		i, ok := known[p.labels]
		if !ok {
			i = len(s.Peers)
			known[p.labels] = i
			s.Peers = append(s.Peers, p)
		}
		s.Peers[i].Inflight += p.Peer.Inflight()
		if i < newer {
			continue
		}
		for class, n := range p.Peer.Outcomes() {
			s.Peers[i].Outcomes[class] += n
		}
	}
}

func (s *Service) addGroup(part *balancer.Part) {
	i := slices.IndexFunc(s.Groups, func(g Group) bool { return g.Name == part.Group.Name() })
	if i < 0 {
		i = len(s.Groups)
		s.Groups = append(s.Groups, Group{Name: part.Group.Name(), Attempts: part.Group.Attempts().Snapshot(), Fallbacks: part.Group.Fallbacks()})
	}
	g := &s.Groups[i]
	g.Peers += len(part.All)
	g.Eligible += len(part.Eligible)
}

// Has reports whether an instance is in the set.
func (s *Service) Has(k discovery.Key) bool {
	return slices.ContainsFunc(s.present, func(p *balancer.Peer) bool { return p.ID == k })
}

// Named reports whether the instances of the service may have this name in the registry.
func (s *Service) Named(name string) bool {
	return name == s.Name || slices.ContainsFunc(s.present, func(p *balancer.Peer) bool { return p.ID.Service == name })
}

// Inflight returns the number of attempts in flight to all peers.
func (s *Service) Inflight() int {
	n := 0
	for _, p := range s.Peers {
		n += p.Inflight
	}
	return n
}

// States returns the number of peers in each state that occurs.
func (s *Service) States() map[balancer.State]int {
	n := make(map[balancer.State]int)
	for _, p := range s.Peers {
		n[p.State]++
	}
	return n
}

// States are the states of peers in the order in which they are shown.
var States = [...]balancer.State{
	balancer.StateUp, balancer.StateWarming, balancer.StateEjected, balancer.StateUnhealthy, balancer.StateDraining,
}
