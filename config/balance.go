package config

import (
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Balance says how a peer is picked for a request.
type Balance struct {
	Policy string `key:"policy" default:"ewma" oneof:"ewma|hash|least_conn|random|round_robin|sticky"`
	Hash   Hash   `key:"hash"`   // of policy hash
	Sticky Sticky `key:"sticky"` // of policy sticky

	Tiers            []Tier `key:"tiers"`                                            // the first that selects a peer has it; one more for those that none does
	Overprovisioning Ratio  `key:"overprovisioning" default:"1.4" min:"1" max:"100"` // load that a tier has room for
	Subset           Subset `key:"subset"`
}

// Policies of Balance that have settings of their own.
const (
	policyHash   = "hash"
	policySticky = "sticky"
)

// Hash says which requests the policy hash keeps on one peer.
type Hash struct {
	Keys  []string `key:"keys" format:"hash_key"`                 // as in route.ParseHashKey; with policy hash not empty
	Bound Ratio    `key:"bound" default:"1.25" min:"0" max:"100"` // of a peer's load, in relation to the average; 0: none
}

// defaultHashKey stands for Hash.Keys left out.
const defaultHashKey = "client_address"

// Tier selects the peers of one tier: those that meet every condition given.
type Tier struct {
	Tags  []string `key:"tags"`               // all of them
	Meta  []string `key:"meta" format:"meta"` // "KEY=VALUE", all of them
	Nodes []string `key:"nodes"`              // one of them; LocalNode stands for this machine
}

// LocalNode stands for the name of this machine in Tier.Nodes.
const LocalNode = "local"

// Subset limits how many peers this replica of sluice uses.
type Subset struct {
	Size     int `key:"size" default:"0" min:"0" max:"100000"`      // 0: all
	Replica  int `key:"replica" default:"-1" min:"-1" max:"100000"` // from 0; -1: the number at the end of the host name
	Replicas int `key:"replicas" default:"0" min:"0" max:"100000"`  // required with Size
}

// Sticky is the cookie of the policy sticky.
type Sticky struct {
	Cookie   string        `key:"cookie" default:"sluice_peer" format:"cookie"`
	Path     string        `key:"path" default:"/" format:"cookie_attribute"`
	Domain   string        `key:"domain" format:"cookie_attribute"`          // empty: the request's host only
	MaxAge   time.Duration `key:"max_age" default:"0s" min:"0s" max:"8760h"` // since the last response; 0: until the browser is closed
	Secure   bool          `key:"secure" default:"false"`                    // over HTTPS only
	SameSite string        `key:"same_site" default:"lax" oneof:"lax|strict|none"`
	Secret   Secret        `key:"secret"` // that values are made with; empty: the service's name
}

func (d *decoder) balance(b *Balance, key string) {
	switch {
	case b.Policy == policyHash && len(b.Hash.Keys) == 0 && !d.failed(key+".hash.keys"):
		b.Hash.Keys = []string{defaultHashKey}
	case b.Policy != policyHash && b.Policy != "" && len(b.Hash.Keys) > 0:
		d.fail(d.place(key+".hash.keys"), key+".hash.keys", "", fmt.Sprintf("without effect: balance.policy is %s, want hash", b.Policy))
	}
	if bound := b.Hash.Bound; bound > 0 && bound < 1 {
		d.fail(d.place(key+".hash.bound"), key+".hash.bound", fmt.Sprint(float64(bound)), "want 1 or more, or 0 for no bound")
	}
	if b.Sticky.SameSite == "none" && !b.Sticky.Secure {
		d.fail(d.place(key+".sticky.same_site"), key+".sticky.same_site", "none", "browsers drop such a cookie unless sticky.secure is true")
	}
	first := make(map[string]string, len(b.Tiers))
	for i, t := range b.Tiers {
		d.once(first, fmt.Sprint(t), fmt.Sprintf("%s.tiers[%d]", key, i), "")
		if reflect.DeepEqual(t, Tier{}) {
			at := fmt.Sprintf("%s.tiers[%d]", key, i)
			d.fail(d.place(at), at, "", "without a condition: want tags, meta or nodes; peers that no tier selects are in one more, the last")
		}
	}
	d.subset(b, key)
	for i := range b.Hash.Keys {
		if j := slices.Index(b.Hash.Keys, b.Hash.Keys[i]); j < i {
			at := fmt.Sprintf("%s.hash.keys[%d]", key, i)
			d.fail(d.place(at), at, b.Hash.Keys[i], "given twice")
		}
	}
}

func (d *decoder) subset(b *Balance, key string) {
	s := b.Subset
	key += ".subset"
	switch {
	case s.Size == 0:
	case b.Policy == policyHash || b.Policy == policySticky:
		d.fail(d.place(key), key+".size", fmt.Sprint(s.Size), fmt.Sprintf("not with policy %s, for which all replicas must use the same peers", b.Policy))
	case s.Replicas == 0:
		d.fail(d.place(key), key+".replicas", "", "required with subset.size: how many replicas of sluice there are")
	case s.Replica >= s.Replicas:
		d.fail(d.place(key+".replica"), key+".replica", fmt.Sprint(s.Replica), fmt.Sprintf("want at most %d, one less than subset.replicas", s.Replicas-1))
	}
}
