package leader

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/discovery"
)

// Options say how an instance claims to lead. One of Tag, Passing and Key is set.
type Options struct {
	Tag     string `key:"tag"`                     // the instance has it
	Passing bool   `key:"passing" default:"false"` // the checks of the instance pass
	// Key names an entry of Consul's KV store. Its value is the id of the instance, the end of
	// the id after the last slash, or the node.
	Key string `key:"key"`

	// Of Key.

	Wait time.Duration `key:"-"` // how long a query blocks without a change, from 1 s to 10 min
	Keep time.Duration `key:"-"` // how long the last leader stays after Consul has lost the key
}

// String describes the claim.
func (o *Options) String() string {
	switch {
	case o.Tag != "":
		return fmt.Sprintf("tag %q", o.Tag)
	case o.Key != "":
		return fmt.Sprintf("key %q", o.Key)
	}
	return "passing checks"
}

// claim is how good the claim of an instance is.
type claim uint8

const (
	claimInService claim = iota
	claimOnProbation
	claimOutOfService
	noClaim
)

// claimOf returns the claim of an instance. named is the value of the key.
func (o *Options) claimOf(i *discovery.Instance, named string) claim {
	switch {
	case o.Tag != "" && !slices.Contains(i.Tags, o.Tag), o.Key != "" && !names(named, i),
		o.Passing && (i.Status != discovery.StatusPassing || i.Weight == 0):
		return noClaim
	case i.Serving():
		return claimInService
	case i.Usable():
		return claimOnProbation
	}
	return claimOutOfService
}

// sidecar is what Consul adds to the id of an instance for its sidecar.
const sidecar = "-sidecar-proxy"

// names reports whether the value of a key names an instance.
func names(value string, i *discovery.Instance) bool {
	id := strings.TrimSuffix(i.ID, sidecar)
	return value != "" && (value == i.ID || value == id || value == id[strings.LastIndexByte(id, '/')+1:] || value == i.Node)
}

// mark returns set with Follower on all but the leader, and instances whose claims conflict.
// named is the value of the key.
func (o *Options) mark(set []discovery.Instance, named string) (marked []discovery.Instance, rivals []discovery.Instance) {
	best := noClaim
	for n := range set {
		best = min(best, o.claimOf(&set[n], named))
	}
	marked = slices.Clone(set)
	leads := -1
	for n := range marked {
		marked[n].Follower = true
		if best < noClaim && o.claimOf(&marked[n], named) == best {
			leads = n
			rivals = append(rivals, set[n])
		}
	}
	if len(rivals) != 1 {
		return marked, rivals
	}
	marked[leads].Follower = false
	return marked, nil
}

// unmarked returns set without the marks of mark.
func unmarked(set []discovery.Instance) []discovery.Instance {
	set = slices.Clone(set)
	for n := range set {
		set[n].Follower = false
	}
	return set
}
