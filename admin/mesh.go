package admin

import (
	"net/http"
	"time"

	"sluice/consul/mesh"
)

// Mesh is the answer of /api/mesh.
type Mesh struct {
	Chains     []Chain               `json:"chains"`
	Intentions []mesh.IntentionState `json:"intentions"`
}

// Chain is the discovery chain of a service.
type Chain struct {
	Service       string        `json:"service"`        // sluice's name
	ConsulService string        `json:"consul_service"` // the name of the chain
	Namespace     string        `json:"namespace,omitempty"`
	Partition     string        `json:"partition,omitempty"`
	Datacenter    string        `json:"datacenter,omitempty"`
	Known         bool          `json:"known"`   // a chain is in use
	Default       bool          `json:"default"` // no router, splitter or resolver applies
	Protocol      string        `json:"protocol"`
	Entries       []string      `json:"entries"` // that apply, such as "service-router web"
	Targets       []ChainTarget `json:"targets"`
	Problems      []string      `json:"problems"`          // what is not carried out
	Refused       string        `json:"refused,omitempty"` // why the former chain stays in use
	Index         uint64        `json:"index"`
	Since         time.Time     `json:"since,omitzero"`
	KeptUntil     time.Time     `json:"kept_until,omitzero"` // end of a chain that Consul has lost
	LastError     string        `json:"last_error,omitempty"`
}

// ChainTarget is a set of instances to which a chain leads.
type ChainTarget struct {
	ServedBy      string `json:"served_by"` // sluice's name of the service with these instances
	Failover      bool   `json:"failover"`  // they stand in for the targets before them
	ConsulService string `json:"consul_service"`
	Subset        string `json:"subset,omitempty"`
	Filter        string `json:"filter,omitempty"`
	OnlyPassing   bool   `json:"only_passing,omitempty"`
	Namespace     string `json:"namespace,omitempty"`
	Partition     string `json:"partition,omitempty"`
	Datacenter    string `json:"datacenter,omitempty"`
	Peer          string `json:"peer,omitempty"`
	SNI           string `json:"sni,omitempty"`
	Gateway       string `json:"gateway,omitempty"`
	External      bool   `json:"external,omitempty"`
}

func (h routeHandler) mesh(*http.Request) (any, error) {
	return Mesh{Chains: list(h.Chains()), Intentions: list(h.Intentions())}, nil
}
