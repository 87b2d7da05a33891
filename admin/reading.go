package admin

import (
	"slices"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/metrics"
)

// reading is the counters of one service at one time, over all pools with its name.
type reading struct {
	service  string
	policy   balancer.Policy
	requests metrics.RequestsSnapshot
	refusals [balancer.NumLimits]uint64
	retries  int // that the budget of the pool in use allows now
	pending  int
	eligible int
	panic    bool
	tiers    []balancer.Tier // of the pool in use
	groups   []groupReading
	peers    []peerReading    // in the set, then draining; no two with the same labels
	present  []*balancer.Peer // in the set
}

type peerReading struct {
	*balancer.Peer
	labels   peerLabels
	state    balancer.State
	inflight int
	outcomes [balancer.NumOutcomes]uint64
}

// groupReading is the counters of a group.
type groupReading struct {
	name            string
	peers, eligible int
	attempts        metrics.RequestsSnapshot
	fallbacks       uint64
}

// peerLabels identify a peer of a service.
type peerLabels struct{ node, id, address string }

// readings returns a reading of each service, sorted by name.
func (h *handler) readings() []*reading {
	var all []*reading
	for _, pool := range h.sortedPools() {
		last := len(all) - 1
		if last < 0 || all[last].service != pool.Name() {
			all = append(all, &reading{service: pool.Name()})
			last++
		}
		all[last].add(pool)
	}
	return all
}

func (r *reading) add(pool *balancer.Pool) {
	addRequests(&r.requests, pool.Requests().Snapshot())
	for limit, n := range pool.Refusals() {
		r.refusals[limit] += n
	}
	r.pending += pool.Pending()
	view := pool.View()
	s := view.Snapshot
	r.present = append(r.present, s.All...)
	r.eligible += len(s.Eligible)
	r.panic = r.panic || s.Panic
	if len(s.All) > 0 || r.tiers == nil { // a draining pool has no tiers
		r.tiers, r.policy, r.retries = s.Tiers, s.Policy, pool.RetriesLeft()
	}
	for _, part := range s.Groups {
		r.addGroup(part)
	}
	known := make(map[peerLabels]int, len(r.peers))
	for i, p := range r.peers {
		known[p.labels] = i
	}
	for _, peer := range view.Peers {
		labels := peerLabels{peer.Instance().Node, peer.Peer.ID.ID, peer.Peer.ID.Address}
		p := peerReading{Peer: peer.Peer, labels: labels, state: peer.State()}
		i, ok := known[p.labels]
		if !ok {
			i = len(r.peers)
			known[p.labels] = i
			r.peers = append(r.peers, p)
		}
		r.peers[i].inflight += p.Inflight()
		for class, n := range p.Outcomes() {
			r.peers[i].outcomes[class] += n
		}
	}
}

// has reports whether an instance is in the set.
func (r *reading) has(k discovery.Key) bool {
	return slices.ContainsFunc(r.present, func(p *balancer.Peer) bool { return p.ID == k })
}

// named reports whether the instances of the service may have this name in the registry.
func (r *reading) named(service string) bool {
	return service == r.service || slices.ContainsFunc(r.present, func(p *balancer.Peer) bool { return p.ID.Service == service })
}

func (r *reading) addGroup(part *balancer.Part) {
	i := slices.IndexFunc(r.groups, func(g groupReading) bool { return g.name == part.Group.Name() })
	if i < 0 {
		i = len(r.groups)
		r.groups = append(r.groups, groupReading{name: part.Group.Name()})
	}
	g := &r.groups[i]
	g.peers += len(part.All)
	g.eligible += len(part.Eligible)
	addRequests(&g.attempts, part.Group.Attempts().Snapshot())
	g.fallbacks += part.Group.Fallbacks()
}

func (r *reading) inflight() int {
	n := 0
	for _, p := range r.peers {
		n += p.inflight
	}
	return n
}

func (r *reading) states() map[balancer.State]int {
	n := make(map[balancer.State]int)
	for _, p := range r.peers {
		n[p.state]++
	}
	return n
}

func addRequests(sum *metrics.RequestsSnapshot, s metrics.RequestsSnapshot) {
	for class := range s.Ended {
		for bucket, n := range s.Ended[class] {
			sum.Ended[class][bucket] += n
		}
	}
	sum.Latency += s.Latency
	sum.BytesIn += s.BytesIn
	sum.BytesOut += s.BytesOut
	sum.Retries += s.Retries
	for code, n := range s.GRPC {
		sum.GRPC[code] += n
	}
}

var peerStates = []balancer.State{
	balancer.StateUp, balancer.StateWarming, balancer.StateEjected, balancer.StateUnhealthy, balancer.StateDraining,
}
