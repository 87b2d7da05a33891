package gateway

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/admin"
	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/observe/metrics"
	"sluice/release/judge"
	"sluice/route"
)

// trial is a service with a judge.
type trial struct {
	service  *service
	settings judge.Settings
	group    string // of the canary
	keyless  bool   // each request is a client of its own
	canary   arm
	rest     arm
	warmUp   time.Duration // how long latencies with a new instance of the canary do not count

	mu sync.Mutex // guards the fields below
	// release is nil while the canary has no share.
	release  *judge.Release
	share    float64
	begun    time.Time
	warmFrom time.Time
	known    map[discovery.Key]bool // instances of the canary in this release
	verdict  string
}

// arm is the canary or the rest.
type arm struct {
	group  *balancer.Group
	recent judge.Recent
	limit  atomic.Int64 // nanoseconds above which an attempt is slow
}

// newTrial returns a trial that has not started.
func newTrial(s *service, c config.Service, warmUp time.Duration) *trial {
	group := c.Split.Shares()[0].Group
	t := &trial{service: s, settings: judgeSettings(c.Judge), group: group, keyless: isKeyless(c.Split), warmUp: warmUp}
	t.canary.group, t.rest.group = s.pool.Group(group), s.pool.Group(balancer.RestGroup)
	t.setLimits(0)
	return t
}

func judgeSettings(j *config.Judge) judge.Settings {
	s := judge.Settings{Step: j.Step, MaxWait: j.MaxWait, Slower: float64(j.Slower)}
	for _, step := range j.Steps {
		s.Steps = append(s.Steps, float64(step))
	}
	return s
}

// isKeyless reports whether a split divides requests at random.
func isKeyless(s config.Split) bool {
	return s.Key().Source == route.SplitNone
}

// fits reports whether the trial is that of a service with this configuration.
func (t *trial) fits(s *service, c config.Service) bool {
	return t.service == s && t.group == c.Split.Shares()[0].Group && t.keyless == isKeyless(c.Split) && t.settings.Equal(judgeSettings(c.Judge))
}

// start begins to count attempts.
func (t *trial) start() {
	for _, a := range []*arm{&t.canary, &t.rest} {
		a.group.OnDone(func(client uint64, o balancer.Outcome) { t.done(a, client, o) })
	}
}

func (t *trial) stop() {
	t.canary.group.OnDone(nil)
	t.rest.group.OnDone(nil)
}

// done takes an attempt of a client. It takes a lock only if the attempt failed or was slow.
func (t *trial) done(a *arm, client uint64, o balancer.Outcome) {
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
	if t.keyless {
		client = 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.release == nil:
	case failed:
		t.release.Failed(client, a == &t.canary, t.share)
	default:
		t.release.Slow(client, a == &t.canary, t.share)
	}
}

// setLimits sets what is slow by the baseline's latency; 0: nothing is.
func (t *trial) setLimits(p90 time.Duration) {
	canary, rest := t.settings.Limits(p90)
	t.canary.limit.Store(int64(canary))
	t.rest.limit.Store(int64(rest))
}

// look returns the decision at a time. judges is the number of replicas that judge, and may
// reports whether this judge may act. A release begins when the canary gets a share, and when all
// of its instances are new.
func (t *trial) look(share float64, judges int, may bool, now time.Time) judge.Decision {
	o := judge.Observation{
		Time: now, Share: share, Judges: judges,
		Canary: countsOf(t.canary.group), Baseline: countsOf(t.rest.group),
		CanaryP90: t.canary.recent.Quantile(judge.SlowQuantile), BaselineP90: t.rest.recent.Quantile(judge.SlowQuantile),
	}
	instances, blind := t.instances()
	o.Blind = blind

	t.mu.Lock()
	defer t.mu.Unlock()
	if share == 0 {
		t.endLocked()
		return judge.Decision{}
	}
	isNew := func(k discovery.Key) bool { return !t.known[k] }
	isKnown := func(k discovery.Key) bool { return t.known[k] }
	if t.release == nil || len(instances) > 0 && len(t.known) > 0 && !slices.ContainsFunc(instances, isKnown) {
		t.release, t.begun, t.known, t.verdict = judge.NewRelease(t.settings, o), now, make(map[discovery.Key]bool), ""
	}
	if slices.ContainsFunc(instances, isNew) {
		t.warmFrom = now
	}
	for _, k := range instances {
		t.known[k] = true
	}
	t.share = share
	t.updateLimits(&o)
	if may {
		t.release.Reconsider()
	}
	d := t.release.Look(o)
	if d.Verdict != judge.Continue {
		t.verdict = d.Reason
	}
	return d
}

// end ends the release: the canary has no share, or is about to have none. The next look at a share
// begins another.
func (t *trial) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked()
}

func (t *trial) endLocked() {
	t.release, t.share = nil, 0
	t.setLimits(0)
}

// updateLimits sets what is slow by what o says. While an instance of the canary is new, its caches
// are empty: nothing is slow then, and the canary's latency is not known.
func (t *trial) updateLimits(o *judge.Observation) {
	if o.Time.Sub(t.warmFrom) < t.warmUp {
		t.canary.recent.Reset()
		o.CanaryP90 = 0
		t.setLimits(0)
		return
	}
	t.setLimits(o.BaselineP90)
}

// instances returns those of the canary, and why failures prove nothing now; "": they do.
func (t *trial) instances() (canary []discovery.Key, blind string) {
	snapshot := t.service.pool.Snapshot()
	for _, part := range snapshot.Groups {
		switch {
		case part.Group == t.canary.group:
			for _, p := range part.All {
				canary = append(canary, p.ID)
			}
		case part.Group == t.rest.group && len(part.Eligible) < 2:
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

func (t *trial) state() *admin.JudgeState {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.release == nil {
		return &admin.JudgeState{Verdict: t.verdict}
	}
	return &admin.JudgeState{
		Since: t.begun, Evidence: t.release.Evidence(), SlowEvidence: t.release.SlowEvidence(), Verdict: t.verdict,
		P90MS: t.canary.recent.Quantile(judge.SlowQuantile).Seconds() * 1000, RestP90MS: t.rest.recent.Quantile(judge.SlowQuantile).Seconds() * 1000,
	}
}
