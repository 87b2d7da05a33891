package fleet

import "time"

// Report is what a survey has found.
type Report struct {
	// Converged is true if all replicas that count agree in everything, false if
	// some differ, and null if none is known to differ but not all could be asked.
	// A replica that is critical in Consul, so that no client is sent there, counts
	// only if it answers.
	Converged   *bool        `json:"converged"`
	Differences []Difference `json:"differences"`
	Unknown     []Unknown    `json:"unknown"` // replicas that count and could not be asked
	Error       string       `json:"error"`   // why Consul does not say which replicas there are; empty if it does
	Replicas    []Member     `json:"replicas"`
}

// Member is a replica: what Consul lists and, if it was asked, what it says.
type Member struct {
	Name       string `json:"name"` // its id or, where several have that, "id@node"
	ID         string `json:"id"`
	Node       string `json:"node"`
	Datacenter string `json:"datacenter,omitempty"`
	Address    string `json:"address"` // "host:port" for clients
	Status     string `json:"status"`  // in Consul: passing, warning, critical, maintenance; "unregistered": it is not there
	Detail     string `json:"detail,omitempty"`
	Self       bool   `json:"self"`      // it is the one that gives this answer
	Duplicate  bool   `json:"duplicate"` // it is listed above with another agent, and does not count twice

	// What the replica says itself, or else the meta of its registration.

	Host       string     `json:"host"`
	Version    string     `json:"version"`
	Started    *time.Time `json:"started"`
	ConfigHash string     `json:"config_hash"`

	Admin string `json:"admin"` // its admin API
	Error string `json:"error"` // why it could not be asked; empty if it was

	Ready    bool      `json:"ready"`
	Pending  []string  `json:"pending"`
	Services []Service `json:"services"` // null if it could not be asked

	replica string // MetaReplica
}

// asked reports whether m's own answer is known.
func (m *Member) asked() bool { return m.Services != nil }

// counts reports whether m belongs to the fleet that clients use.
func (m *Member) counts() bool { return !m.Duplicate && (m.asked() || m.Status != "critical") }

// Kinds of differences.
const (
	KindConfig    = "config"    // texts of the configuration
	KindPending   = "pending"   // values that take effect at the next start
	KindServices  = "services"  // a service that not all have
	KindInstances = "instances" // the instances of a service
)

// Difference is something that not all replicas have in common.
type Difference struct {
	Kind    string  `json:"kind"`
	Service string  `json:"service,omitempty"`
	Groups  []Group `json:"groups"` // the replicas by what they have, the largest group first
	// Behind are the replicas whose index is smaller than that of one with other
	// instances from the same source: they have not heard of the latest change.
	Behind  []string `json:"behind"`
	Summary string   `json:"summary"` // for people
}

// Group are the replicas that have the same.
type Group struct {
	Value     string   `json:"value"` // the hash or the digest, the keys that are pending, or "missing"
	Replicas  []string `json:"replicas"`
	Index     uint64   `json:"index,omitempty"`     // the largest
	Instances int      `json:"instances,omitempty"` // of the service
}

// Unknown is a replica whose state is not known.
type Unknown struct {
	Replica string `json:"replica"`
	Why     string `json:"why"`
}
