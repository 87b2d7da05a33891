package release

import (
	"errors"
	"time"
)

// State is the state of the split of a service with the share of one group.
type State struct {
	Service    string       `json:"service"`
	Group      string       `json:"group"`
	Share      float64      `json:"share"`            // in use
	Configured float64      `json:"configured"`       // in the configuration
	Override   *Share       `json:"given,omitempty"`  // absent: the configured share counts
	Judge      *JudgeState  `json:"judge,omitempty"`  // absent: the service has no judge
	Shared     *SharedState `json:"shared,omitempty"` // absent: each replica is on its own
}

// JudgeState is what a judge has found in the present release.
type JudgeState struct {
	Since        time.Time `json:"since,omitzero"` // start of the release; absent: no share
	Paused       bool      `json:"paused"`         // an operator has set the share
	Evidence     float64   `json:"evidence"`       // of more failures: 1 none, 1000 enough; 0: idle
	SlowEvidence float64   `json:"slow_evidence"`  // of too much latency, with the present share
	P90MS        float64   `json:"p90_ms"`         // of its last 512 attempts; 0: fewer than 100
	RestP90MS    float64   `json:"rest_p90_ms"`    // likewise of the rest
	Verdict      string    `json:"verdict,omitempty"`
}

// SharedState is what this replica knows of the others.
type SharedState struct {
	Judges  int    `json:"judges"`          // replicas that judge, this one included
	Leads   bool   `json:"leads"`           // this one moves shares on
	Pending bool   `json:"pending"`         // the others do not have the share yet
	Error   string `json:"error,omitempty"` // why Consul cannot be followed
}

// Order is an operator's order about the split of a service.
type Order struct {
	Service string
	Verb    Verb
	Group   string  // empty: the split's
	Share   float64 // with Set
	Why     string
}

// Verb is what an Order asks for, as in the path of the admin API.
type Verb string

const (
	Set     Verb = "set"     // use a share; the judge changes nothing
	Pause   Verb = "pause"   // keep the share; the judge changes nothing
	Resume  Verb = "resume"  // keep the share; the judge goes on
	Release Verb = "release" // return to the share of the configuration
)

// Errors of Judge.Order.
var (
	ErrNoSplit    = errors.New("no service with this name and a split that has the share of one group")
	ErrNoGroup    = errors.New("the split has another group")
	ErrNoOverride = errors.New("the share of the configuration counts already")
	ErrNoJudge    = errors.New("the service has no judge")
	ErrNotPaused  = errors.New("the judge is not paused")
)
