package balancer

import "strings"

// State sums up whether the peer gets requests.
type State uint8

const (
	// StateUp: the peer gets its full share.
	StateUp State = iota
	// StateWarming: the peer gets a part of its share: it is in slow start, or has lost weight
	// (Pool.SetFactors).
	StateWarming
	// StateEjected: requests failed, so the peer gets none for a while.
	StateEjected
	// StateUnhealthy: the registry or an active check reports a failure, or no
	// connection may be opened to the address.
	StateUnhealthy
	// StateDraining: the peer left the set or an operator drains it. Requests in
	// flight go on.
	StateDraining
)

var stateNames = [...]string{"up", "warming", "ejected", "unhealthy", "draining"}

func (s State) String() string { return stateNames[s] }

// Reason is a set of reasons for which a peer gets no requests. Each bit has one owner; nothing
// else sets and clears it.
type Reason uint32

const (
	// ReasonRegistry: the instance is critical, in maintenance or has weight 0 in the
	// registry, or it failed on probation. Owned by the pool.
	ReasonRegistry Reason = 1 << iota
	// ReasonActive: an active check fails, or the first one has not passed. Owned by
	// the health checker.
	ReasonActive
	// ReasonEjected: too many requests failed. Owned by outlier detection.
	ReasonEjected
	// ReasonDrain: an operator drains the peer. Owned by the pool; see Pool.SetOrders.
	ReasonDrain
	// ReasonAddress: Options.MayConnect refuses the address. Owned by the pool.
	ReasonAddress

	numReasons = iota
)

var reasonNames = [numReasons]string{"consul", "active", "ejected", "drain", "address"}

// String joins the names of the reasons in r with commas.
func (r Reason) String() string {
	var names []string
	for i, name := range reasonNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
