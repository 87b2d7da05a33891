package registration

import "time"

// State is the state of a registration.
type State uint8

const (
	// StateOff: nothing to register.
	StateOff State = iota
	// StatePending: before the first attempt.
	StatePending
	// StateRegistered: the agent in use has it.
	StateRegistered
	// StateFailing: the latest attempt failed.
	StateFailing
	// StateLeft: deregistered, this process stops.
	StateLeft
)

func (s State) String() string {
	return [...]string{"off", "pending", "registered", "failing", "left"}[s]
}

// Status is the state of a registration at one moment.
type Status struct {
	State     State
	Since     time.Time // start of State
	Service   string
	ID        string // "" before the first attempt
	Agent     string // of the latest attempt
	Check     CheckType
	LastError string // of the latest attempt; empty after a success

	Leftovers []string // agents that may still have an old registration

	Registrations uint64 // successful
	Errors        uint64 // failed attempts
}
