package judge

import (
	"fmt"
	"slices"
	"time"
)

const (
	// enough is the evidence for a rollback: at most one release in so many is rolled back
	// although its canary is no worse.
	enough = 1000
	// doubtful is the evidence with which no share grows.
	doubtful = 10

	minFailingClients = 5     // of the canary, for a rollback
	minRatio          = 1.5   // of the canary's failures per request to the baseline's, for a rollback
	minExcess         = 0.001 // failures per request of the canary above those of the baseline, for a rollback
	minRequests       = 500   // to the canary in a step, before the next

	// maxClients bounds the clients that a release remembers.
	maxClients = 100_000
)

// Settings configure the judge of a service.
type Settings struct {
	// Steps are growing shares from above 0 to 1, through which the judge leads a release. Empty:
	// the share is up to others.
	Steps []float64
	// Step is the shortest time between two steps.
	Step time.Duration
	// MaxWait is how long after Step a release may wait for the next step, before the judge
	// says why it waits.
	MaxWait time.Duration
}

// Equal reports whether both settings are the same.
func (s Settings) Equal(o Settings) bool {
	return slices.Equal(s.Steps, o.Steps) && s.Step == o.Step && s.MaxWait == o.MaxWait
}

// Counts are attempts and failures of an arm.
type Counts struct{ Requests, Failures uint64 }

// rate returns the failures per request.
func (c Counts) rate() float64 { return float64(c.Failures) / float64(max(c.Requests, 1)) }

// minus returns what was added to since.
func (c Counts) minus(since Counts) Counts {
	return Counts{c.Requests - since.Requests, c.Failures - since.Failures}
}

// Observation is what is known at a time of a look.
type Observation struct {
	Time             time.Time
	Share            float64 // of the canary, now
	Canary, Baseline Counts  // since any fixed time
	// Judges is the number of replicas that judge this release, each by its own requests; at
	// least 1. Each needs as many times the evidence.
	Judges int
	// Blind, if not empty, is why failures prove nothing now, such as "the pool is in panic".
	Blind string
}

// Verdict is what a look finds.
type Verdict uint8

const (
	Continue Verdict = iota // nothing changes
	Advance                 // the share becomes Decision.Share
	Wait                    // the next step is due for long, and its conditions are not met
	Rollback                // the canary is worse
)

func (v Verdict) String() string {
	return [...]string{"continue", "advance", "wait", "rollback"}[v]
}

// Decision is a verdict with its reason.
type Decision struct {
	Verdict Verdict
	Share   float64 // with Advance: the next step; with Rollback: 0
	Reason  string  // for people; empty with Continue
}

// Release is the test of one release, from the moment when the canary gets its first share.
// It is not safe for concurrent use.
type Release struct {
	settings Settings
	evidence Evidence
	failed   map[uint64]struct{} // clients with a failure
	full     bool                // failed has maxClients

	failing [2]int // clients whose first failure fell on the baseline, on the canary

	begin     Observation // the first look
	step      Observation // the first look since the share changed
	said      bool        // Wait was returned in this step
	concluded bool        // Rollback was returned
}

// NewRelease returns the test of a release that begins with what first says.
func NewRelease(s Settings, first Observation) *Release {
	return &Release{settings: s, failed: make(map[uint64]struct{}), begin: first, step: first}
}

// Failed adds a failure of an attempt that a split of that share assigned. client is a hash of the
// key by which clients are assigned; 0: there is none, and each failure counts.
func (r *Release) Failed(client uint64, canary bool, share float64) {
	if client != 0 {
		if _, again := r.failed[client]; again || r.full {
			return
		}
		r.failed[client] = struct{}{}
		r.full = len(r.failed) == maxClients
	}
	if canary {
		r.failing[1]++
	} else {
		r.failing[0]++
	}
	r.evidence.Add(canary, share)
}

// Evidence returns the evidence against the canary: 1 is none.
func (r *Release) Evidence() float64 { return r.evidence.Value() }

// Look decides by all failures so far and by o. It returns Rollback and Wait once: a rolled back
// release is over.
func (r *Release) Look(o Observation) Decision {
	if o.Share != r.step.Share {
		r.step, r.said = o, false
	}
	canary, baseline := o.Canary.minus(r.begin.Canary), o.Baseline.minus(r.begin.Baseline)
	evidence := r.evidence.Value()
	worse := evidence >= enough*float64(max(o.Judges, 1)) && r.failing[1] >= minFailingClients &&
		canary.rate() >= minRatio*baseline.rate() && canary.rate() >= baseline.rate()+minExcess
	switch {
	case r.concluded:
		return Decision{}
	case worse && o.Blind == "":
		r.concluded = true
		return Decision{Rollback, 0, fmt.Sprintf("%s fail, %s of the baseline; evidence %.2g", describe(canary), describe(baseline), evidence)}
	}
	next, ok := r.next(o.Share)
	if !ok || o.Time.Sub(r.step.Time) < r.settings.Step {
		return Decision{}
	}
	inStep := o.Canary.minus(r.step.Canary).Requests
	why := ""
	switch {
	case o.Blind != "":
		why = o.Blind
	case inStep < minRequests:
		why = fmt.Sprintf("the canary had %d requests since the last step, want %d", inStep, minRequests)
	case evidence >= doubtful:
		why = fmt.Sprintf("%s of the canary fail, %s of the baseline; evidence %.2g, want less than %d", describe(canary), describe(baseline), evidence, doubtful)
	default:
		return Decision{Advance, next, fmt.Sprintf("%s of the canary fail, %s of the baseline", describe(canary), describe(baseline))}
	}
	if r.said || o.Time.Sub(r.step.Time) < r.settings.Step+r.settings.MaxWait {
		return Decision{}
	}
	r.said = true
	return Decision{Wait, o.Share, why}
}

// next returns the first step above share.
func (r *Release) next(share float64) (step float64, ok bool) {
	for _, step := range r.settings.Steps {
		if step > share {
			return step, true
		}
	}
	return 0, false
}

func describe(c Counts) string {
	return fmt.Sprintf("%.3g %% of %d requests", 100*c.rate(), c.Requests)
}
