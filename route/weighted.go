package route

import (
	"math/rand/v2"
	"slices"
)

// Weighted divides the requests of a route among other routes, its targets, which may lead to
// other services. It does not change after it is in a [Table], and is safe for concurrent use.
//
// Each client has a point from 0 to 1, as in a [Split]. The first target owns the points from
// 0 to its share, the next one the points that follow. A target without a usable peer gives its
// share to the others; its clients come back with its first usable peer. So does one that the
// registry has lost all usable peers of, while another target has some that it lists. If no target
// has a usable peer, each keeps its share.
type Weighted struct {
	Targets []Target // at least one
	// ByPeers says that Target.Share is for each usable peer of the target, as with fabio.
	ByPeers bool
	Key     SplitKey
	// Seed makes the choices of several routes independent of each other.
	Seed string
}

// Target is a part of a Weighted.
type Target struct {
	// Route is what the requests get: Service, Router, Split, Mirror and Actions count. Service is
	// not nil.
	Route *Route
	// Share is at least 0, and all shares add up to 1. With Weighted.ByPeers their sum may be
	// another, and 0 means what the others leave, in proportion to the peers. Shares that leave
	// nothing, or leave it to nobody, count in proportion.
	Share float64
}

// Choose returns the target of the client with that key; an empty one is a random client. It
// allocates nothing.
func (w *Weighted) Choose(key []byte) *Target {
	client := rand.Uint64()
	if len(key) > 0 {
		client = hashOf(w.Seed, key)
	}
	if !w.ByPeers {
		if t := w.at(client, always); w.count(t) > 0 || w.countLost(t) > 0 && w.at(client, w.count) == nil {
			return t
		}
		// The upper bits of a product depend on all bits: they are another point, which is
		// the same for each request of the client.
		client *= 0x9e3779b97f4a7c15
	}
	if t := w.at(client, w.count); t != nil {
		return t
	}
	if t := w.at(client, w.countLost); t != nil {
		return t
	}
	return w.at(client, always)
}

// HasOther reports whether than has no usable peer, or only such as the registry has lost, and
// another target of w has a better one. It allocates nothing; w may be nil.
func (w *Weighted) HasOther(than *Route) bool {
	if w == nil {
		return false
	}
	n, lost := than.usablePeers()
	return n == lost && slices.ContainsFunc(w.Targets, func(t Target) bool {
		other, otherLost := t.Route.usablePeers()
		return (t.Share > 0 || w.ByPeers) && (other > otherLost || n == 0 && other > 0)
	})
}

// Shares returns the share of each target at present.
func (w *Weighted) Shares() []float64 {
	s := w.sizes(w.count)
	if s.total() == 0 {
		s = w.sizes(w.countLost)
	}
	if s.total() == 0 {
		s = w.sizes(always)
	}
	shares := make([]float64, len(w.Targets))
	for i := range w.Targets {
		shares[i] = s.of(&w.Targets[i]) / s.total()
	}
	return shares
}

// count returns how many times the share of a target counts at present, by the usable peers that
// the registry lists.
func (w *Weighted) count(t *Target) int {
	n, lost := t.Route.usablePeers()
	return w.times(n - lost)
}

// countLost is count by all usable peers, for when there are none that the registry lists.
func (w *Weighted) countLost(t *Target) int {
	n, _ := t.Route.usablePeers()
	return w.times(n)
}

func (w *Weighted) times(peers int) int {
	if !w.ByPeers {
		return min(peers, 1)
	}
	return peers
}

func always(*Target) int { return 1 }

// Group returns the name of the only group that gets requests of a target; "": all do, or a split
// divides them.
func (t *Target) Group() string {
	if s := t.Route.Split; s != nil && len(s.Shares) == 0 {
		return s.Rest.Name()
	}
	return ""
}

// UsablePeers returns the number of peers that may get requests of a target. Of a discovery chain,
// these are the peers of the branch for all requests.
func (t *Target) UsablePeers() int {
	n, _ := t.Route.usablePeers()
	return n
}

// sizes are the parts of the targets. They are not normalised.
type sizes struct {
	count func(*Target) int
	fixed float64 // sum of the configured shares
	rest  int     // counts of the targets that get what the others leave
	each  float64 // part of these, for each count
}

func (w *Weighted) sizes(count func(*Target) int) sizes {
	s := sizes{count: count}
	for i := range w.Targets {
		t := &w.Targets[i]
		if t.Share > 0 {
			s.fixed += t.Share * float64(count(t))
		} else if w.ByPeers {
			s.rest += count(t)
		}
	}
	if s.rest > 0 {
		s.each = max(0, 1-s.fixed) / float64(s.rest)
	}
	return s
}

func (s sizes) total() float64 { return s.fixed + s.each*float64(s.rest) }

func (s sizes) of(t *Target) float64 {
	if t.Share > 0 {
		return t.Share * float64(s.count(t))
	}
	return s.each * float64(s.count(t))
}

// at returns the target that owns the point of a client; nil: none counts.
func (w *Weighted) at(client uint64, count func(*Target) int) (last *Target) {
	s := w.sizes(count)
	point := float64(client>>11) / (1 << 53) * s.total()
	for i := range w.Targets {
		size := s.of(&w.Targets[i])
		if size == 0 {
			continue
		}
		last = &w.Targets[i]
		if point -= size; point < 0 {
			break
		}
	}
	return last
}
