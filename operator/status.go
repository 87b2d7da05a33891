package operator

import (
	"errors"
	"maps"
	"slices"
	"time"

	"sluice/consul/sharedkeys"
)

// Listed is an order with its state.
type Listed struct {
	Order
	Pending bool `json:"pending,omitempty"` // the other replicas do not have it yet
}

// Status is the state of Peers.
type Status struct {
	Orders []Listed `json:"orders"` // sorted by key
	// Invalid are the keys in Consul without an order that can be used, sorted.
	Invalid []sharedkeys.Invalid `json:"invalid"`
	Saved   bool                 `json:"saved"`  // they are in the file
	Shared  bool                 `json:"shared"` // other replicas obey them too
	// Pending is the number of changes that the other replicas do not have yet.
	Pending int    `json:"pending"`
	Error   string `json:"error,omitempty"` // of the file, or of Consul
}

// Status returns the state of the store.
func (p *Peers) Status() Status {
	all, shared := p.Store.keys.All(), p.Store.Shares()
	query, fileErr := p.Store.QueryError(), p.Store.fileError()
	status := Status{Orders: []Listed{}, Invalid: p.Store.keys.Invalid(), Saved: p.options.Path != "" && fileErr == nil, Shared: shared}
	for _, o := range (Set{p.Store.effective(time.Now())}).All() {
		status.Orders = append(status.Orders, Listed{o, shared && all[o.Key()].Pending})
	}
	err := errors.Join(fileErr, query)
	if shared {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if e := all[key]; e.Pending {
				status.Pending++
				err = errors.Join(fileErr, query, e.Err)
			}
		}
	}
	if err != nil {
		status.Error = err.Error()
	}
	return status
}

// Stats are for metrics.
type Stats struct {
	InForce     map[Kind]int // the number of orders that stand; each kind is there
	Shared      bool         // other replicas obey them too
	WriteFailed bool         // the last one to Consul has
}

// Stats returns the stats of the store.
func (p *Peers) Stats() Stats {
	_, err := p.Store.keys.Errors()
	stats := Stats{InForce: map[Kind]int{Drain: 0, Weight: 0, Maintenance: 0}, Shared: p.Store.Shares(), WriteFailed: err != nil}
	for _, o := range p.Store.All() {
		stats.InForce[o.Kind]++
	}
	return stats
}
