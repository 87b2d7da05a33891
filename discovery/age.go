package discovery

import (
	"maps"
	"slices"
)

// recordNewest records the age of the newest instance before a loss.
func (g *Guard) recordNewest() {
	for _, i := range g.known {
		g.lost = max(g.lost, i.Registered)
	}
	for _, p := range g.probation {
		g.lost = max(g.lost, p.instance.Registered)
	}
}

// dated returns set with an Instance.Registered that compares with the known instances also after
// a loss: then the registry may count from the beginning again, and its instances register in
// another order.
func (g *Guard) dated(set []Instance) []Instance {
	if g.lost == 0 {
		return set
	}
	before := mapped(g.known)
	for key, p := range g.probation {
		before[key] = p.instance
	}
	set = slices.Clone(set)
	for n, i := range set {
		was, known := before[i.Key()]
		if known && was.Registered <= g.lost && slices.Equal(was.Tags, i.Tags) && maps.Equal(was.Meta, i.Meta) {
			set[n].Registered = was.Registered
		} else {
			set[n].Registered += g.lost
		}
	}
	return set
}
