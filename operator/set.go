package operator

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"

	"sluice/balancer"
	"sluice/discovery"
)

// Set is the orders that stand at one time. It is immutable; the zero Set has none.
type Set struct{ byKey map[string]Order }

// Of returns the orders that apply to an instance: its own drain or its node's, and its
// weight; nil: there is none.
func (s Set) Of(i discovery.Instance) (drain, weight *Order) {
	if len(s.byKey) == 0 {
		return nil, nil
	}
	key := i.Key()
	return cmp.Or(s.get(peerKey(key, Drain)), s.OfNode(i)), s.get(peerKey(key, Weight))
}

// For returns what a pool has to obey for an instance.
func (s Set) For(i discovery.Instance) (o balancer.Orders) {
	drain, weight := s.Of(i)
	if drain != nil {
		o.Drain, o.Why = true, drain.Reason()
	}
	if weight != nil {
		o.Weight = weight.Weight
	}
	return o
}

// OfNode returns the drain of the node of an instance; nil: there is none.
func (s Set) OfNode(i discovery.Instance) *Order {
	if i.Node == "" {
		return nil
	}
	return s.get(nodeKey(i.Node, i.Datacenter))
}

// Maintenance returns what the pool of a service tells who sends requests to it; nil: the service
// is in use.
func (s Set) Maintenance(service string) *balancer.Maintenance {
	o := s.OfService(service)
	if o == nil {
		return nil
	}
	except, _ := o.except() // Check has parsed it
	return &balancer.Maintenance{Why: o.Why, Until: o.Until, Except: except}
}

// OfService returns the maintenance of a service; nil: there is none.
func (s Set) OfService(service string) *Order { return s.get(serviceKey(service)) }

// Digest returns a hash of the orders.
func (s Set) Digest() string {
	text, _ := json.Marshal(s.All()) // cannot fail
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

func (s Set) get(key string) *Order {
	if o, ok := s.byKey[key]; ok {
		return &o
	}
	return nil
}

// All returns the orders, sorted by key.
func (s Set) All() []Order {
	all := make([]Order, 0, len(s.byKey))
	for _, key := range slices.Sorted(maps.Keys(s.byKey)) {
		all = append(all, s.byKey[key])
	}
	return all
}
