package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"sluice/discovery"
)

// Replica is the body of /api/replica.
type Replica struct {
	Replica    string    `json:"replica"` // its registration's MetaReplica
	Host       string    `json:"host"`
	Version    string    `json:"version"`
	Started    time.Time `json:"started"`
	ConfigHash string    `json:"config_hash"` // of the configuration that replicas share
	Pending    []string  `json:"pending"`     // keys that wait for a restart
	Ready      bool      `json:"ready"`
	Services   int       `json:"services"`  // their number
	Instances  int       `json:"instances"` // in the pools of all services
	// Parts has a hash of each part that replicas compare.
	Parts map[string]string `json:"parts"`
	// Unfinished are drained peers with requests in flight, in at most MaxUnfinishedBytes of
	// JSON.
	Unfinished []Unfinished `json:"unfinished,omitempty"`
	// UnfinishedError is why Unfinished may lack some; "": it has all.
	UnfinishedError string `json:"unfinished_error,omitempty"`
}

// MaxUnfinishedBytes bounds the drained peers of an answer: registrants choose their names, and a
// longer answer than maxAnswerBytes is none.
const MaxUnfinishedBytes = maxAnswerBytes / 2

// Unfinished is a drained peer that has requests in flight, in this process or in the one before
// it.
type Unfinished struct {
	Service    string `json:"service"` // sluice's name for it
	ID         string `json:"id"`
	Node       string `json:"node"`
	Datacenter string `json:"datacenter,omitempty"`
	Address    string `json:"address"`
	Inflight   int    `json:"inflight"`
}

// Parts of a replica. Orders and shares are absent if it does not share them.
const (
	PartServices  = "services"  // names of services
	PartInstances = "instances" // instances in the pools
	PartRoutes    = "routes"    // routes in use
	PartOrders    = "orders"    // orders of operators about peers
	PartShares    = "shares"    // shares of groups that a judge or an operator has set
)

// Hash returns a hash of texts in any order. It sorts them.
func Hash(texts []string) string {
	slices.Sort(texts)
	encoded, _ := json.Marshal(texts) // cannot fail
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:6])
}

// Text returns what two replicas compare of an instance in the pool of a service: all but what
// each finds out by itself, and the output of checks.
func Text(service string, i discovery.Instance) string {
	text, _ := json.Marshal([]any{ // cannot fail
		service, i.Service, i.ID, i.Node, i.Datacenter, i.Address, i.Port, i.Status, i.Weight, i.Tags, i.Meta,
	})
	return string(text)
}
