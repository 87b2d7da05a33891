package registration

import "time"

// State is the state of a registration.
type State string

const (
	StateOff        State = ""           // nothing to register
	StatePending    State = "pending"    // before the first attempt
	StateRegistered State = "registered" // the agent in use has it
	StateFailing    State = "failing"    // the latest attempt failed
	StateLeft       State = "left"       // deregistered, this process stops
)

// Status is the state of a registration at one moment.
type Status struct {
	State         State     `json:"state"`
	Since         time.Time `json:"since"` // start of State
	Service       string    `json:"service"`
	ID            string    `json:"id"`    // "" before the first attempt
	Agent         string    `json:"agent"` // of the latest attempt
	Check         CheckType `json:"check"`
	LastError     string    `json:"last_error"`    // of the latest attempt; empty after a success
	Leftovers     []string  `json:"leftovers"`     // agents that may still have an old registration
	Registrations uint64    `json:"registrations"` // successful
	Errors        uint64    `json:"errors"`        // failed attempts
}
