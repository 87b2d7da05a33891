package registration

import "time"

// State is how a registration stands.
type State uint8

const (
	// StateOff: nothing is to be registered.
	StateOff State = iota
	// StatePending: it has not been tried yet.
	StatePending
	// StateRegistered: the agent in use has it.
	StateRegistered
	// StateFailing: the latest attempt to make sure of that failed.
	StateFailing
	// StateLeft: this process stops, and has taken it away if there was one.
	StateLeft
)

// String returns the lower-case word for s.
func (s State) String() string {
	switch s {
	case StateOff:
		return "off"
	case StatePending:
		return "pending"
	case StateRegistered:
		return "registered"
	case StateFailing:
		return "failing"
	case StateLeft:
		return "left"
	}
	return "unknown"
}

// Status is what is known of a registration at one moment.
type Status struct {
	State     State
	Since     time.Time // start of State
	Service   string
	ID        string // "" before the first attempt
	Agent     string // that has it, or was asked to
	Check     CheckType
	LastError string // why the latest attempt failed; empty after a success

	Leftovers []string // agents that may still have what they should not, and did not take it away

	Registrations uint64 // that agents have taken
	Errors        uint64 // attempts that failed
}
