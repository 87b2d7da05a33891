package release

import (
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/observe/metrics"
	"sluice/release/judge"
	"sluice/route"
)

// canaryRelease is the canary release of a service with a judge. Its methods may be called
// concurrently, but look only by one goroutine.
type canaryRelease struct {
	pool     *balancer.Pool
	settings judge.Settings
	canary   cohort
	rest     cohort
	warmUp   time.Duration // how long latencies with a new instance of the canary do not count

	mu       sync.Mutex     // guards the fields below
	present  *judge.Release // nil while the canary has no share
	share    float64
	mark     uint8 // of share, as attempts have it
	begun    time.Time
	warmFrom time.Time
	known    map[discovery.Key]bool // instances of the canary in this release
	verdict  string
}

// cohort is the attempts on the peers of the canary, or of the rest.
type cohort struct {
	group  *balancer.Group
	recent judge.Recent
	limit  atomic.Int64 // nanoseconds above which an attempt is slow
}

// newCanaryRelease returns the canary release of a service with a pool, which has not started.
func newCanaryRelease(pool *balancer.Pool, c config.Service, warmUp time.Duration) *canaryRelease {
	r := &canaryRelease{pool: pool, settings: settingsOf(c), warmUp: warmUp}
	r.canary.group, r.rest.group = pool.Group(c.Split.Shares()[0].Group), pool.Group(balancer.RestGroup)
	r.setLimits(0)
	return r
}

func settingsOf(c config.Service) judge.Settings {
	s := c.Judge.Settings
	s.PerRequest = c.Split.Key().Source == route.SplitNone
	return s
}

// fits reports whether r goes on with a pool and a configuration of the service, whatever the share
// is. The pool may have another group of the name: it forgets one that two configurations lack.
func (r *canaryRelease) fits(pool *balancer.Pool, c config.Service) bool {
	return r.pool == pool && r.canary.group == pool.Group(c.Split.Shares()[0].Group) && reflect.DeepEqual(r.settings, settingsOf(c))
}

// start begins to count attempts.
func (r *canaryRelease) start() {
	for _, a := range []*cohort{&r.canary, &r.rest} {
		a.group.OnDone(func(client uint64, o balancer.Outcome) { r.done(a, client, o) })
	}
}

func (r *canaryRelease) stop() {
	r.canary.group.OnDone(nil)
	r.rest.group.OnDone(nil)
}

// done takes an attempt of a client. It takes a lock only if the attempt failed or was slow. It
// does not count one whose client was assigned with another share, the former one or one that no
// look has seen yet: by the present one it would prove too much.
func (r *canaryRelease) done(a *cohort, judged uint64, o balancer.Outcome) {
	failed := o.Class.Failure()
	if !failed {
		if o.Latency == 0 {
			return
		}
		a.recent.Add(o.Latency)
		if int64(o.Latency) <= a.limit.Load() {
			return
		}
	}
	client, mark := route.SplitJudged(judged)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.present == nil || mark != r.mark:
	case failed:
		r.present.Failed(client, a == &r.canary, r.share)
	default:
		r.present.Slow(client, a == &r.canary, r.share)
	}
}

// setLimits sets what is slow by the baseline's latency; 0: nothing is.
func (r *canaryRelease) setLimits(p90 time.Duration) {
	canary, rest := r.settings.Limits(p90)
	r.canary.limit.Store(int64(canary))
	r.rest.limit.Store(int64(rest))
}

// decide returns the decision at a time. judges is the number of replicas that judge, and may
// reports whether this judge may act. A release begins when the canary gets a share, and when all
// of its instances are new.
func (r *canaryRelease) decide(share float64, judges int, may bool, now time.Time) judge.Decision {
	o := judge.Observation{
		Time: now, Share: share, Judges: judges,
		Canary: countsOf(r.canary.group), Baseline: countsOf(r.rest.group),
		CanaryP90: r.canary.recent.Quantile(judge.SlowQuantile), BaselineP90: r.rest.recent.Quantile(judge.SlowQuantile),
	}
	instances, blind := r.instances()
	o.Blind = blind

	r.mu.Lock()
	defer r.mu.Unlock()
	if share == 0 {
		r.endLocked()
		return judge.Decision{}
	}
	isNew := func(k discovery.Key) bool { return !r.known[k] }
	isKnown := func(k discovery.Key) bool { return r.known[k] }
	if r.present == nil || len(instances) > 0 && len(r.known) > 0 && !slices.ContainsFunc(instances, isKnown) {
		r.present, r.begun, r.known, r.verdict = judge.NewRelease(r.settings, o), now, make(map[discovery.Key]bool), ""
	}
	if slices.ContainsFunc(instances, isNew) {
		r.warmFrom = now
	}
	for _, k := range instances {
		r.known[k] = true
	}
	r.share, r.mark = share, route.ShareMark(share)
	r.updateLimits(&o)
	if may {
		r.present.RepeatRollback()
	}
	d := r.present.Decide(o)
	if d.Verdict != judge.Continue {
		r.verdict = d.Reason
	}
	return d
}

// end ends the release: the canary has no share, or is about to have none. The next look at a share
// begins another.
func (r *canaryRelease) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked()
}

func (r *canaryRelease) endLocked() {
	r.present, r.share = nil, 0
	r.setLimits(0)
}

// updateLimits sets from o which attempts are slow. While an instance of the canary is new, its
// caches are empty: nothing is slow then, and the canary's latency is not known.
func (r *canaryRelease) updateLimits(o *judge.Observation) {
	if o.Time.Sub(r.warmFrom) < r.warmUp {
		r.canary.recent.Reset()
		o.CanaryP90 = 0
		r.setLimits(0)
		return
	}
	r.setLimits(o.BaselineP90)
}

// instances returns the instances of the canary, and why failures prove nothing now; "": they do.
func (r *canaryRelease) instances() (canary []discovery.Key, blind string) {
	snapshot := r.pool.Snapshot()
	for _, part := range snapshot.Groups {
		switch {
		case part.Group == r.canary.group:
			for _, p := range part.All {
				canary = append(canary, p.ID)
			}
		case part.Group == r.rest.group && len(part.Eligible) < 2:
			blind = "the rest has fewer than 2 peers in use"
		}
	}
	if snapshot.Panic {
		blind = "the service is in panic"
	}
	return canary, blind
}

// countsOf returns the attempts of a group.
func countsOf(g *balancer.Group) judge.Counts {
	s := g.Attempts().Snapshot()
	aborted := s.Class(metrics.ClassAborted)
	return judge.Counts{Requests: s.Total() - aborted, Failures: s.Class(metrics.Class5xx)}
}

func (r *canaryRelease) state() *JudgeState {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.present == nil {
		return &JudgeState{Verdict: r.verdict}
	}
	return &JudgeState{
		Since: r.begun, Evidence: r.present.Evidence(), SlowEvidence: r.present.SlowEvidence(), Verdict: r.verdict,
		P90MS: r.canary.recent.Quantile(judge.SlowQuantile).Seconds() * 1000, RestP90MS: r.rest.recent.Quantile(judge.SlowQuantile).Seconds() * 1000,
	}
}
