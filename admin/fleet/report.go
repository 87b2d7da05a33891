package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is the result of a survey.
type Report struct {
	// Converged is true if all replicas agree, false if some differ, and null if none
	// is known to differ but some did not answer. A replica that is critical in
	// Consul counts only if it answers.
	Converged   *bool        `json:"converged"`
	Differences []Difference `json:"differences"`
	Unknown     []Unknown    `json:"unknown"` // replicas that count and did not answer
	Error       string       `json:"error"`   // of listing the replicas in Consul
	Replicas    []Member     `json:"replicas"`
}

// Member is a replica: its registration in Consul and its own answer.
type Member struct {
	Name       string `json:"name"` // its id, or "id@node" if the id is not unique
	ID         string `json:"id"`
	Node       string `json:"node"`
	Datacenter string `json:"datacenter,omitempty"`
	Address    string `json:"address"` // "host:port" for clients
	Status     string `json:"status"`  // passing, warning, critical, maintenance, "unregistered"
	Detail     string `json:"detail,omitempty"`
	Self       bool   `json:"self"`      // the replica that gives this answer
	Duplicate  bool   `json:"duplicate"` // listed above with another agent

	// From the replica's answer, else from the meta of its registration.

	Host       string     `json:"host"`
	Version    string     `json:"version"`
	Started    *time.Time `json:"started"`
	ConfigHash string     `json:"config_hash"`

	Admin string `json:"admin"` // its admin API: "host:port", "https://host:port" or "unix:PATH"
	Error string `json:"error"` // why there is no answer; empty if there is

	Ready     bool              `json:"ready"`
	Pending   []string          `json:"pending"`
	Services  int               `json:"services"`
	Instances int               `json:"instances"`
	Parts     map[string]string `json:"parts"` // null without an answer

	Unfinished      []Unfinished `json:"unfinished,omitempty"` // see Replica
	UnfinishedError string       `json:"unfinished_error,omitempty"`

	replica string // MetaReplica
}

// answered reports whether the replica answered.
func (m *Member) answered() bool { return m.Parts != nil }

// counts reports whether m is a replica that clients use.
func (m *Member) counts() bool { return !m.Duplicate && (m.answered() || m.Status != "critical") }

// Kinds of differences, beside the parts.
const (
	KindConfig  = "config"  // hashes of the configuration
	KindPending = "pending" // keys that wait for a restart
)

// Difference is a difference between replicas.
type Difference struct {
	Kind    string  `json:"kind"`    // KindConfig, KindPending or a part
	Groups  []Group `json:"groups"`  // replicas by value, the largest group first
	Summary string  `json:"summary"` // for people
}

// Group is the replicas with the same value.
type Group struct {
	Value    string   `json:"value"` // the hash, or the pending keys
	Replicas []string `json:"replicas"`
}

// Unknown is a replica whose state is not known.
type Unknown struct {
	Replica string `json:"replica"`
	Why     string `json:"why"`
}

// conclude derives Converged, Differences and Unknown from Replicas.
func (r *Report) conclude() {
	r.Differences, r.Unknown = []Difference{}, []Unknown{}
	values := make(map[string]map[string][]string) // names of replicas, by kind and value
	add := func(kind, value, name string) {
		if values[kind] == nil {
			values[kind] = make(map[string][]string)
		}
		values[kind][value] = append(values[kind][value], name)
	}
	for i := range r.Replicas {
		m := &r.Replicas[i]
		if !m.counts() {
			continue
		}
		if m.answered() || m.ConfigHash != "" { // its registration has the hash too
			add(KindConfig, m.ConfigHash, m.Name)
		}
		if !m.answered() {
			r.Unknown = append(r.Unknown, Unknown{m.Name, m.Error})
			continue
		}
		add(KindPending, strings.Join(m.Pending, ", "), m.Name)
		for part, hash := range m.Parts {
			add(part, hash, m.Name)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(values)) {
		_, nothing := values[kind][""]
		if len(values[kind]) > 1 || kind == KindPending && !nothing { // even if all wait for one
			r.Differences = append(r.Differences, difference(kind, values[kind]))
		}
	}
	converged := len(r.Differences) == 0
	if !converged || len(r.Unknown) == 0 && r.Error == "" {
		r.Converged = &converged
	}
}

// summaries begin the summary of a difference.
var summaries = map[string]string{
	KindConfig: "the configuration differs", KindPending: "a restart is needed",
	PartServices: "the services differ", PartInstances: "the instances differ", PartRoutes: "the routes differ",
	PartOrders: "operators' orders differ", PartShares: "the shares of groups differ",
}

func difference(kind string, values map[string][]string) Difference {
	d := Difference{Kind: kind}
	for value, names := range values {
		d.Groups = append(d.Groups, Group{value, names})
	}
	slices.SortFunc(d.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(len(b.Replicas), len(a.Replicas)), cmp.Compare(a.Value, b.Value))
	})
	parts := make([]string, len(d.Groups))
	for i, g := range d.Groups {
		parts[i] = strings.Join(g.Replicas, ", ") + ": " + cmp.Or(g.Value, "nothing")
	}
	d.Summary = cmp.Or(summaries[kind], kind+" differ") + ": " + strings.Join(parts, "; ")
	return d
}
