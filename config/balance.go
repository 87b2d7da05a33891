package config

import (
	"fmt"
	"slices"
	"time"
)

// Balance says how a peer is picked for a request.
type Balance struct {
	Policy string `key:"policy" default:"ewma" oneof:"ewma|hash|least_conn|random|round_robin|sticky"`
	Hash   Hash   `key:"hash"`   // of policy hash
	Sticky Sticky `key:"sticky"` // of policy sticky
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
	for i := range b.Hash.Keys {
		if j := slices.Index(b.Hash.Keys, b.Hash.Keys[i]); j < i {
			at := fmt.Sprintf("%s.hash.keys[%d]", key, i)
			d.fail(d.place(at), at, b.Hash.Keys[i], "given twice")
		}
	}
}
