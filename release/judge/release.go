package judge

import (
	"fmt"
	"math"
	"time"

	"sluice/config/units"
)

const (
	// enough is the evidence for a rollback: at most one release in so many is rolled back
	// although its canary is no worse.
	enough = 1000
	// Doubtful is the evidence with which no share grows.
	Doubtful = 10

	minFailingClients = 5     // of the canary, for a rollback
	minRatio          = 1.5   // of the failures per request of canary and baseline, for a rollback
	minExcess         = 0.001 // more failures per request of the canary, for a rollback
	minSlowClients    = 10    // of the canary, for a rollback because it is slow
	minRequests       = 500   // to the canary in a step, before the next

	// SlowQuantile is the quantile of the baseline's latencies above which a request is slow.
	SlowQuantile = 0.9
)

// Settings configure the judge of a service.
type Settings struct {
	// Steps are growing shares from above 0 to 1, through which the judge leads a release. Empty:
	// the share is up to others.
	Steps []units.Ratio `key:"steps" min:"0.0001" max:"1"`
	// Step is the shortest time between two steps.
	Step time.Duration `key:"step" default:"10m" min:"10s" max:"720h"`
	// MaxWait is how long after Step a release may wait for the next step, before the judge
	// says why it waits.
	MaxWait time.Duration `key:"max_wait" default:"1h" min:"0s" max:"8760h"`
	// Slower is how much slower than the baseline the canary may be: with 0.5 it may take
	// half as long again. 0: its latency is not judged.
	Slower units.Ratio `key:"slower" default:"50%" min:"0" max:"100"`
	// PerRequest says that each request is a client of its own, so that all that befalls a client
	// befalls it within a short time.
	PerRequest bool `key:"-"`
}

// Limits returns the latencies above which a request to the canary and to the baseline is slow, if
// the SlowQuantile of the baseline is p90, or 0 if that is not known. Without a limit it returns
// the greatest duration.
func (s Settings) Limits(p90 time.Duration) (canary, baseline time.Duration) {
	if s.Slower == 0 || p90 == 0 {
		return math.MaxInt64, math.MaxInt64
	}
	return s.tolerated(p90), p90
}

// tolerated returns the latency that the canary may have where the baseline has this one.
func (s Settings) tolerated(latency time.Duration) time.Duration {
	return time.Duration(float64(1+s.Slower) * float64(latency))
}

// Counts are attempts and failures of an arm.
type Counts struct{ Requests, Failures uint64 }

// minus returns what was added to since.
func (c Counts) minus(since Counts) Counts {
	return Counts{c.Requests - since.Requests, c.Failures - since.Failures}
}

// rates compare the failures of both arms under one share, and add up for several: each request
// counts by how much the other arm had under its share. So requests of a time with another share,
// when both failed more or less often, make neither arm look worse (Mantel and Haenszel, 1959).
// Under one share they are the failures per request.
type rates struct{ canary, baseline, requests float64 }

// add adds the attempts under a share.
func (r rates) add(canary, baseline Counts) rates {
	requests, others := float64(canary.Requests), float64(max(baseline.Requests, 1)) // never 0
	total := requests + others
	ofCanary, ofBaseline := requests/total, others/total
	r.canary += float64(canary.Failures) * ofBaseline
	r.baseline += float64(baseline.Failures) * ofCanary
	r.requests += total * ofCanary * ofBaseline
	return r
}

// perRequest returns the failures per request of both arms.
func (r rates) perRequest() (canary, baseline float64) {
	if r.requests == 0 {
		return 0, 0
	}
	return r.canary / r.requests, r.baseline / r.requests
}

// Observation is what is known at a time of a look.
type Observation struct {
	Time             time.Time
	Share            float64 // of the canary, now
	Canary, Baseline Counts  // since any fixed time
	// CanaryP90 and BaselineP90 are the SlowQuantile of recent latencies; 0: not known.
	CanaryP90, BaselineP90 time.Duration
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
	failures sample // of clients with a failure
	slow     sample // of clients with a slow request, since the share changed

	begin     Observation // the first look
	step      Observation // the first look since the share changed
	shares    float64     // number of shares that the canary has had
	former    rates       // with the shares before this one
	said      bool        // Wait was returned in this step
	concluded bool        // Rollback was returned
}

// NewRelease returns the test of a release whose first observation is first.
func NewRelease(s Settings, first Observation) *Release {
	return &Release{settings: s, failures: newSample(s), slow: newSample(s), begin: first, step: first, shares: 1}
}

// Failed adds a failure of an attempt that a split of that share assigned. client is a hash of the
// key by which clients are assigned.
func (r *Release) Failed(client uint64, canary bool, share float64) {
	r.failures.add(client, canary, share)
}

// Slow adds an attempt that took longer than its arm's limit: see [Settings.Limits]. The other
// parameters are as for Failed.
func (r *Release) Slow(client uint64, canary bool, share float64) { r.slow.add(client, canary, share) }

// Evidence returns the evidence that the canary fails more often: 1 is none.
func (r *Release) Evidence() float64 { return r.failures.evidence.Value() }

// SlowEvidence returns the evidence that the canary is slower than allowed: 1 is none.
func (r *Release) SlowEvidence() float64 { return r.slow.evidence.Value() }

// RepeatRollback makes Look return Rollback again. It is for a caller that has not acted on it, and
// can now.
func (r *Release) RepeatRollback() { r.concluded = false }

// Decide decides by all attempts so far and by o. It returns Rollback and Wait once: a rolled back
// release is over.
func (r *Release) Decide(o Observation) Decision {
	if o.Share != r.step.Share {
		r.former = r.rates(o)
		r.step, r.said = o, false
		r.slow = newSample(r.settings)
		r.shares++
	}
	if r.concluded {
		return Decision{}
	}
	if why := r.worse(o); why != "" && o.Blind == "" {
		r.concluded = true
		return Decision{Rollback, 0, why}
	}
	next, ok := r.next(o.Share)
	if !ok || o.Time.Sub(r.step.Time) < r.settings.Step {
		return Decision{}
	}
	why := r.obstacle(o)
	if why == "" {
		canary, baseline := r.describe(o)
		return Decision{Advance, next, fmt.Sprintf("%s of the canary fail, %s of the baseline", canary, baseline)}
	}
	if r.said || o.Time.Sub(r.step.Time) < r.settings.Step+r.settings.MaxWait {
		return Decision{}
	}
	r.said = true
	return Decision{Wait, o.Share, why}
}

// rates returns the failures in this release until o.
func (r *Release) rates(o Observation) rates {
	return r.former.add(o.Canary.minus(r.step.Canary), o.Baseline.minus(r.step.Baseline))
}

// worse returns why the canary is worse, or "".
func (r *Release) worse(o Observation) string {
	canary, baseline := r.rates(o).perRequest()
	need := enough * float64(max(o.Judges, 1))
	if r.failures.clients[1] >= minFailingClients && r.Evidence() >= need &&
		canary >= minRatio*baseline && canary >= baseline+minExcess {
		canary, baseline := r.describe(o)
		return fmt.Sprintf("%s fail, %s of the baseline; evidence %.2g", canary, baseline, r.Evidence())
	}
	// The test of latency begins again with each share, since a version may be slow only under
	// load. Its nth test needs n(n+1) times the evidence: the sum of all 1/(n(n+1)) is 1.
	need *= r.shares * (r.shares + 1)
	if r.slow.clients[1] >= minSlowClients && o.BaselineP90 > 0 && o.CanaryP90 > r.settings.tolerated(o.BaselineP90) && r.SlowEvidence() >= need {
		return fmt.Sprintf("90 %% of the requests take up to %v, %v with the baseline; evidence %.2g", rounded(o.CanaryP90), rounded(o.BaselineP90), r.SlowEvidence())
	}
	return ""
}

// obstacle returns why the next step has to wait, or "".
func (r *Release) obstacle(o Observation) string {
	inStep := o.Canary.minus(r.step.Canary).Requests
	switch {
	case o.Blind != "":
		return o.Blind
	case inStep < minRequests:
		return fmt.Sprintf("the canary had %d requests since the last step, want %d", inStep, minRequests)
	case r.Evidence() >= Doubtful:
		canary, baseline := r.describe(o)
		return fmt.Sprintf("%s of the canary fail, %s of the baseline; evidence %.2g, want less than %d", canary, baseline, r.Evidence(), Doubtful)
	case r.SlowEvidence() >= Doubtful:
		return fmt.Sprintf("90 %% of the requests take up to %v, %v with the baseline; evidence %.2g, want less than %d",
			rounded(o.CanaryP90), rounded(o.BaselineP90), r.SlowEvidence(), Doubtful)
	}
	return ""
}

// next returns the first step above share.
func (r *Release) next(share float64) (step float64, ok bool) {
	for _, step := range r.settings.Steps {
		if float64(step) > share {
			return float64(step), true
		}
	}
	return 0, false
}

// describe returns the failures in this release until o, for people.
func (r *Release) describe(o Observation) (canary, baseline string) {
	text := func(rate float64, requests uint64) string {
		return fmt.Sprintf("%.3g %% of %d requests", 100*rate, requests)
	}
	failed, failedBaseline := r.rates(o).perRequest()
	return text(failed, o.Canary.minus(r.begin.Canary).Requests), text(failedBaseline, o.Baseline.minus(r.begin.Baseline).Requests)
}

// rounded returns a latency with at most three digits, for people.
func rounded(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}
