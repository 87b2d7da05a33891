package admin

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/operator"
	"sluice/tags"
)

// Peer is an element of /api/peers: the state of one moment, with counters.
type Peer struct {
	Service    string            `json:"service"` // sluice's name for it
	ID         string            `json:"id"`
	Node       string            `json:"node"`
	Datacenter string            `json:"datacenter,omitempty"`
	Address    string            `json:"address"`               // "host:port"
	AddressTag string            `json:"address_tag,omitempty"` // of Address, if Consul has a tag
	Identity   string            `json:"identity,omitempty"`    // in a mesh: path of the SPIFFE URI
	ServerName string            `json:"server_name,omitempty"` // see discovery.Instance
	Target     string            `json:"target,omitempty"`      // of a discovery chain
	Weight     int               `json:"weight"`
	Due        float64           `json:"due"`                 // part of the requests, by weight
	Share      *float64          `json:"share,omitempty"`     // its part lately; nil: too few
	ShareWhy   []string          `json:"share_why,omitempty"` // why the two differ
	Orders     []operator.Order  `json:"orders,omitempty"`    // about the peer or its node
	Group      string            `json:"group,omitempty"`     // of the service, if it has groups
	Tags       []string          `json:"tags"`
	Meta       map[string]string `json:"meta,omitempty"`
	Status     string            `json:"status"` // passing, warning, critical, maintenance
	State      string            `json:"state"`  // up, warming, ejected, unhealthy, draining
	Reasons    []string          `json:"reasons"`
	Used       bool              `json:"used"`              // may get requests
	Leaving    bool              `json:"leaving,omitempty"` // removed from the set
	Inflight   int               `json:"inflight"`
	Requests   uint64            `json:"requests"` // finished attempts
	Failures   uint64            `json:"failures"` // failed attempts
	LatencyMS  float64           `json:"latency_ms"`
	Since      time.Time         `json:"since"`               // start of State
	Probation  *time.Time        `json:"probation,omitempty"` // since when the registry has lost it
}

// Drained reports whether an operator has drained the peer or its node.
func (p Peer) Drained() bool {
	return slices.ContainsFunc(p.Orders, func(o operator.Order) bool { return o.Kind == operator.Drain })
}

func describePeer(service string, v balancer.PeerView, set operator.Set) Peer {
	i, p, share := v.Instance(), v.Peer, v.Share
	var is *float64
	if share.Is >= 0 {
		is = new(rounded(share.Is))
	}
	var ordered []operator.Order
	drain, weight := set.Of(i)
	for _, o := range []*operator.Order{drain, weight} {
		if o != nil {
			ordered = append(ordered, *o)
		}
	}
	return Peer{
		Service:    service,
		ID:         i.ID,
		Node:       i.Node,
		Datacenter: i.Datacenter,
		Address:    p.Address(),
		AddressTag: i.AddressTag,
		Identity:   i.Identity,
		ServerName: i.ServerName,
		Target:     i.Target,
		Weight:     v.Weight(),
		Due:        rounded(share.Due),
		Share:      is,
		ShareWhy:   share.Why,
		Orders:     ordered,
		Group:      p.Group().Name(),
		Tags:       each(i.Tags, tags.Masked),
		Meta:       i.Meta,
		Status:     i.Status.String(),
		State:      v.State().String(),
		Reasons:    list(v.Reasons()),
		Used:       v.Used,
		Leaving:    v.Leaving(),
		Inflight:   p.Inflight(),
		Requests:   p.Requests(),
		Failures:   p.Failures(),
		LatencyMS:  millis(p.Latency()),
		Since:      moment(v.Since()),
		Probation:  optionalMoment(i.Probation),
	}
}

// peers answers /api/peers. ?service=, ?state= and ?node= select, and may be repeated.
// ?process=former selects peers with requests in flight in the process that this one has replaced.
func (h serviceHandler) peers(r *http.Request) (any, error) {
	query := r.URL.Query()
	services, states, nodes := query["service"], query["state"], query["node"]
	known := each(reading.States[:], balancer.State.String)
	for _, state := range states {
		if !slices.Contains(known, state) {
			return nil, refuse(http.StatusBadRequest, "state %q: want one of %s", state, strings.Join(known, ", "))
		}
	}
	peers, err := h.peersOf(query.Get("process"), services)
	return slices.DeleteFunc(peers, func(p Peer) bool {
		return len(services) > 0 && !slices.Contains(services, p.Service) ||
			len(states) > 0 && !slices.Contains(states, p.State) || len(nodes) > 0 && !slices.Contains(nodes, p.Node)
	}), err
}

// peersOf returns the peers of a process, in this one at least those of services.
func (h serviceHandler) peersOf(process string, services []string) ([]Peer, error) {
	switch process {
	case "":
		pools, err := h.poolsOf(services)
		return describePeers(pools, h.Orders.Set()), err
	case "former":
		peers, err := h.Former()
		if err != nil {
			return nil, refuse(http.StatusServiceUnavailable, "%w", err)
		}
		return list(peers), nil
	default:
		return nil, refuse(http.StatusBadRequest, "process %q: want former, or none", process)
	}
}

func describePeers(pools []*balancer.Pool, set operator.Set) []Peer {
	peers := []Peer{}
	for _, pool := range pools {
		for _, peer := range pool.ViewWithShares().Peers {
			peers = append(peers, describePeer(pool.Name, peer, set))
		}
	}
	return peers
}

// InFlight returns the peers of pools that have requests in flight.
func InFlight(pools []*balancer.Pool, set operator.Set) []Peer {
	return slices.DeleteFunc(describePeers(reading.Sorted(pools), set), func(p Peer) bool { return p.Inflight == 0 })
}

// list replaces nil by an empty slice, for [] in JSON instead of null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// each returns what f makes of each of s, never nil: JSON has no null for it.
func each[S, T any](s []S, f func(S) T) []T {
	all := make([]T, 0, len(s))
	for _, one := range s {
		all = append(all, f(one))
	}
	return all
}

// rounded returns a share with four digits.
func rounded(share float64) float64 { return math.Round(share*1e4) / 1e4 }

func millis(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
