package admin

import (
	"net/http"
	"time"

	"sluice/admin/fleet"
	"sluice/consul/registration"
)

// Replicas is the body of /api/replicas.
type Replicas struct {
	Registration Registration `json:"registration"`
	fleet.Report
}

// Registration is the state of this replica's registration in Consul.
type Registration struct {
	State         string    `json:"state"` // pending, registered, failing, left
	Since         time.Time `json:"since"` // start of State
	Service       string    `json:"service"`
	ID            string    `json:"id"`         // empty before the first attempt
	Agent         string    `json:"agent"`      // of the latest attempt
	Check         string    `json:"check"`      // http, tcp, ttl, none
	LastError     string    `json:"last_error"` // of the latest attempt; empty if it succeeded
	Leftovers     []string  `json:"leftovers"`  // agents that may still have an old registration
	Registrations uint64    `json:"registrations"`
	Errors        uint64    `json:"errors"`
}

func describeRegistration(s registration.Status) Registration {
	return Registration{
		State:         s.State.String(),
		Since:         moment(s.Since),
		Service:       s.Service,
		ID:            s.ID,
		Agent:         s.Agent,
		Check:         string(s.Check),
		LastError:     s.LastError,
		Leftovers:     list(s.Leftovers),
		Registrations: s.Registrations,
		Errors:        s.Errors,
	}
}

// replicaHandler answers about this replica and the others.
type replicaHandler struct{ Options }

func (h replicaHandler) replica(*http.Request) (any, error) { return h.Replica(), nil }

func (h replicaHandler) replicas(r *http.Request) (any, error) {
	status := h.Registration()
	if status.State == registration.StateOff {
		return nil, refuse(http.StatusNotFound, "the configuration has no consul.register")
	}
	return Replicas{describeRegistration(status), h.Replicas(r.Context())}, nil
}
