package config

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/route"
)

// Balance configures how a peer is picked for a request.
type Balance struct {
	Policy balancer.Policy `key:"policy" default:"ewma" oneof:"ewma|hash|least_conn|random|round_robin|sticky"`
	Hash   Hash            `key:"hash"`   // of policy hash
	Sticky Sticky          `key:"sticky"` // of policy sticky

	Tiers            []Tier          `key:"tiers"`                                            // a peer belongs to the first tier that selects it; the other peers form one more, the last
	Overprovisioning Ratio           `key:"overprovisioning" default:"1.4" min:"1" max:"100"` // a tier gets its full share while its healthy share times this is at least 1
	Subset           balancer.Subset `key:"subset"`
}

// Hash configures the policy hash: requests with the same keys go to the same peer.
type Hash struct {
	Keys  []HashKey `key:"keys" format:"hash_key"`                 // with policy hash not empty
	Bound Ratio     `key:"bound" default:"1.25" min:"0" max:"100"` // limit of a peer's load, as a multiple of the average; 0: no limit
}

// byClientAddress is the default of Hash.Keys.
var byClientAddress = HashKey{Text: "client_address", Value: route.HashKey{Source: route.HashClientAddress}}

// Tier selects the peers that meet all of its conditions. At least one is set.
type Tier struct {
	Tags  []string `key:"tags"`               // a peer must have all of them
	Meta  []Meta   `key:"meta" format:"meta"` // a peer must have all of them
	Nodes []string `key:"nodes"`              // a peer must be on one of them; LocalNode is this machine
}

// LocalNode is this machine in Tier.Nodes.
const LocalNode = "local"

// Sticky configures the cookie of the policy sticky.
type Sticky struct {
	Cookie   string        `key:"cookie" default:"sluice_peer" format:"cookie"`
	Path     string        `key:"path" default:"/" format:"cookie_attribute"`
	Domain   string        `key:"domain" format:"cookie_attribute"`          // empty: only the host of the request
	MaxAge   time.Duration `key:"max_age" default:"0s" min:"0s" max:"8760h"` // after the last response; 0: until the browser closes
	Secure   bool          `key:"secure" default:"false"`                    // only over HTTPS
	SameSite string        `key:"same_site" default:"lax" oneof:"lax|strict|none"`
	Secret   Secret        `key:"secret"` // key of the HMAC in the value; empty: the service's name
}

func (b *Balance) check(d *decoder, key string) {
	switch {
	case b.Policy == balancer.PolicyHash && len(b.Hash.Keys) == 0 && !d.Failed(key+".hash.keys"):
		b.Hash.Keys = []HashKey{byClientAddress}
	case b.Policy == balancer.PolicyHash || b.Policy == "" || len(b.Hash.Keys) == 0:
	case !d.HasKey(key + ".hash.keys"): // the defaults have another policy
		b.Hash.Keys = nil
	default:
		d.Refuse(key+".hash.keys", "", fmt.Sprintf("without effect: balance.policy is %s, want hash", b.Policy))
	}
	if bound := b.Hash.Bound; bound > 0 && bound < 1 {
		d.Refuse(key+".hash.bound", fmt.Sprint(float64(bound)), "want 1 or more, or 0 for no bound")
	}
	if b.Sticky.SameSite == "none" && !b.Sticky.Secure {
		d.Refuse(key+".sticky.same_site", "none", "browsers drop such a cookie unless sticky.secure is true")
	}
	first := make(map[string]string, len(b.Tiers))
	for i, t := range b.Tiers {
		tier := fmt.Sprintf("%s.tiers[%d]", key, i)
		d.RefuseDuplicate(first, fmt.Sprint(t), tier, "")
		if reflect.DeepEqual(t, Tier{}) {
			d.Refuse(tier, "", "without a condition: want tags, meta or nodes; peers that no tier selects are in one more, the last")
		}
	}
	b.checkSubset(d, key)
	for i, hashKey := range b.Hash.Keys {
		if slices.Index(b.Hash.Keys, hashKey) < i {
			d.Refuse(fmt.Sprintf("%s.hash.keys[%d]", key, i), hashKey.Text, "given twice")
		}
	}
}

func (b *Balance) checkSubset(d *decoder, key string) {
	s := &b.Subset
	key += ".subset"
	forAll := b.Policy == balancer.PolicyHash || b.Policy == balancer.PolicySticky
	switch {
	case s.Size == 0:
	case forAll && !d.HasKey(key+".size"): // the defaults have another policy
		schema.SetDefaults(s)
	case forAll:
		d.Refuse(key+".size", fmt.Sprint(s.Size), fmt.Sprintf("not with policy %s, for which all replicas must use the same peers", b.Policy))
	case s.Replicas == 0:
		d.Refuse(key+".replicas", "", "required with subset.size: how many replicas of sluice there are")
	case s.Replica >= s.Replicas:
		d.Refuse(key+".replica", fmt.Sprint(s.Replica), fmt.Sprintf("want at most %d, one less than subset.replicas", s.Replicas-1))
	}
}
