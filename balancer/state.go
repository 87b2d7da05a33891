package balancer

import "strings"

// State sums up whether and how a peer is used.
type State uint8

const (
	// StateUp: the peer gets its full share.
	StateUp State = iota
	// StateWarming: the peer is new or has returned and its share still grows.
	StateWarming
	// StateEjected: requests to the peer failed, so it gets none for a while.
	StateEjected
	// StateUnhealthy: the registry or an active check says that it does not work,
	// or no connection may be opened to its address.
	StateUnhealthy
	// StateDraining: the peer left the set or was taken out by an operator. It
	// gets no new requests, those in flight go on.
	StateDraining
)

var stateNames = [...]string{"up", "warming", "ejected", "unhealthy", "draining"}

// String returns the state in lower case, as the admin API shows it.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// MarshalText returns s.String().
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reason is a set of causes for which a peer gets no requests. Each bit
// belongs to one part of the program, which alone sets and clears it, so that
// none can undo what another found.
type Reason uint32

const (
	// ReasonConsul: the registry does not want traffic for the instance: it is
	// critical, in maintenance, or has weight 0; or it has lost the instance, which
	// then failed. Owned by the pool.
	ReasonConsul Reason = 1 << iota
	// ReasonActive: an active check fails, or has yet to pass. Owned by the
	// health checker.
	ReasonActive
	// ReasonEjected: too many requests failed. Owned by outlier detection.
	ReasonEjected
	// ReasonDrain: an operator takes the peer out. Owned by the admin API.
	ReasonDrain
	// ReasonAddress: no connection may be opened to the instance's address, see
	// Options.MayConnect. Owned by [Pool.Apply] and [Pool.Readmit].
	ReasonAddress

	numReasons = iota
)

var reasonNames = [numReasons]string{"consul", "active", "ejected", "drain", "address"}

// String returns the names of the reasons in r, joined by commas.
func (r Reason) String() string {
	var names []string
	for i, name := range reasonNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
