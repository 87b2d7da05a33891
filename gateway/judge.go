package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"sluice/admin"
	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/judge"
	"sluice/metrics"
)

// judgeInterval is the time between two looks at a release.
const judgeInterval = time.Second

// byJudge and byOperator are values of admin.GivenShare.By.
const (
	byJudge    = "judge"
	byOperator = "operator"
)

// trial is a service with a judge.
type trial struct {
	service  *service
	settings judge.Settings
	group    string // of the canary
	canary   *balancer.Group
	rest     *balancer.Group

	mu sync.Mutex // guards the fields below
	// release is nil while the canary has no share.
	release *judge.Release
	share   float64
	begun   time.Time
	known   map[discovery.Key]bool // instances of the canary in this release
	verdict string
}

// judge looks at all releases until ctx ends.
func (g *Gateway) judge(ctx context.Context) {
	ticker := time.NewTicker(g.waits.judge)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			g.updateTrials()
			for _, t := range g.trialsInUse() {
				g.look(t, now)
			}
		}
	}
}

func (g *Gateway) trialsInUse() []*trial {
	g.trialsMu.Lock()
	defer g.trialsMu.Unlock()
	return slices.Clone(g.trials)
}

// updateTrials follows the configuration in use. A trial goes on if its settings and its group are the
// same.
func (g *Gateway) updateTrials() {
	c := g.effective.Load()
	g.trialsMu.Lock()
	defer g.trialsMu.Unlock()
	var next, created []*trial
	for _, service := range g.services.all() {
		s := c.Services[service.name]
		if s.Judge == nil {
			continue
		}
		settings, group := judgeSettings(s.Judge), s.Split.Shares()[0].Group
		i := slices.IndexFunc(g.trials, func(t *trial) bool {
			return t.service == service && t.group == group && t.settings.Equal(settings)
		})
		if i >= 0 {
			next = append(next, g.trials[i])
			continue
		}
		t := &trial{service: service, settings: settings, group: group,
			canary: service.pool.Group(group), rest: service.pool.Group(balancer.RestGroup)}
		next, created = append(next, t), append(created, t)
	}
	for _, t := range g.trials {
		if !slices.Contains(next, t) {
			t.canary.OnFailure(nil)
			t.rest.OnFailure(nil)
		}
	}
	for _, t := range created { // the groups may be those of one that ended
		t.canary.OnFailure(func(client uint64) { t.failed(client, true) })
		t.rest.OnFailure(func(client uint64) { t.failed(client, false) })
	}
	g.trials = next
}

func judgeSettings(j *config.Judge) judge.Settings {
	s := judge.Settings{Step: j.Step, MaxWait: j.MaxWait}
	for _, step := range j.Steps {
		s.Steps = append(s.Steps, float64(step))
	}
	return s
}

// failed adds a failed attempt of a client.
func (t *trial) failed(client uint64, canary bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.release != nil {
		t.release.Failed(client, canary, t.share)
	}
}

// look judges a release by what has happened until now.
func (g *Gateway) look(t *trial, now time.Time) {
	s, ok := g.effective.Load().Services[t.service.name]
	if !ok || s.Judge == nil || len(s.Split.Shares()) != 1 {
		return
	}
	d := t.look(s.Split.Shares()[0].Size, now)
	if d.Verdict == judge.Continue {
		return
	}
	given, _ := g.shares.of(t.service.name)
	acts := s.Judge.Act == "rollback" && given.By != byOperator && d.Verdict != judge.Wait
	if d.Verdict == judge.Advance && (!acts || given.Share == d.Share) {
		return // up to others, or not applied yet
	}
	event := g.log.Info()
	if d.Verdict == judge.Rollback {
		event = g.log.Warn()
	}
	event.Str("service", t.service.name).Str("group", t.group).Stringer("verdict", d.Verdict).Float64("share", d.Share).
		Bool("acts", acts).Str("why", d.Reason).Msg("judge of a split")
	if acts {
		configured := s.Split
		if given.By != "" {
			configured = s.Split.WithShare(given.Configured)
		}
		g.shares.give(t.service.name, configured, d.Share, byJudge, d.Reason)
	}
}

// look returns the decision at a time. A release begins when the canary gets a share, and when all of
// its instances are new.
func (t *trial) look(share float64, now time.Time) judge.Decision {
	snapshot := t.service.pool.Snapshot()
	o := judge.Observation{
		Time: now, Share: share, Judges: 1,
		Canary: countsOf(t.canary), Baseline: countsOf(t.rest),
	}
	var instances []discovery.Key
	for _, part := range snapshot.Groups {
		switch {
		case part.Group == t.canary:
			for _, p := range part.All {
				instances = append(instances, p.ID)
			}
		case part.Group == t.rest && len(part.Eligible) < 2:
			o.Blind = "the rest has fewer than 2 peers in use"
		}
	}
	if snapshot.Panic {
		o.Blind = "the service is in panic"
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if share == 0 {
		t.release, t.share = nil, 0
		return judge.Decision{}
	}
	isNew := func(k discovery.Key) bool { return !t.known[k] }
	if t.release == nil || len(instances) > 0 && len(t.known) > 0 && !slices.ContainsFunc(instances, func(k discovery.Key) bool { return !isNew(k) }) {
		t.release, t.begun, t.known, t.verdict = judge.NewRelease(t.settings, o), now, make(map[discovery.Key]bool), ""
	}
	for _, k := range instances {
		t.known[k] = true
	}
	t.share = share
	d := t.release.Look(o)
	if d.Verdict != judge.Continue {
		t.verdict = d.Reason
	}
	return d
}

// countsOf returns the attempts of a group.
func countsOf(g *balancer.Group) judge.Counts {
	s := g.Attempts().Snapshot()
	aborted := s.Class(metrics.ClassAborted)
	return judge.Counts{Requests: s.Total() - aborted, Failures: s.Class(metrics.Class5xx)}
}

// splitStates returns the state of every split of a service with one group, for the admin API.
func (g *Gateway) splitStates() []admin.SplitState {
	c, given := g.effective.Load(), g.shares.all()
	trials := make(map[string]*trial)
	for _, t := range g.trialsInUse() {
		trials[t.service.name] = t
	}
	states := []admin.SplitState{}
	for _, service := range g.services.all() {
		all := c.Services[service.name].Split.Shares()
		if len(all) != 1 {
			continue
		}
		s := admin.SplitState{Service: service.name, Group: all[0].Group, Share: all[0].Size, Configured: all[0].Size}
		if order, ok := given[service.name]; ok {
			s.Configured, s.Given = order.Configured, &order
		}
		if t := trials[service.name]; t != nil {
			s.Judge = t.state()
		}
		states = append(states, s)
	}
	return states
}

func (t *trial) state() *admin.JudgeState {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.release == nil {
		return &admin.JudgeState{Verdict: t.verdict}
	}
	return &admin.JudgeState{Since: t.begun, Evidence: t.release.Evidence(), Verdict: t.verdict}
}

// giveShare sets the share of the one group of a service's split, by an operator.
func (g *Gateway) giveShare(service string, share float64, why string) bool {
	s := g.effective.Load().Services[service]
	if len(s.Split.Shares()) != 1 {
		return false
	}
	configured := s.Split
	if given, ok := g.shares.of(service); ok {
		configured = s.Split.WithShare(given.Configured)
	}
	g.shares.give(service, configured, share, byOperator, why)
	return true
}
