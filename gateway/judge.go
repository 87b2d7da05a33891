package gateway

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/admin"
	"sluice/config"
	"sluice/observe/events"
	"sluice/operator"
	"sluice/release/judge"
)

const (
	// judgeInterval is the time between two looks at a release.
	judgeInterval = time.Second
	// judgeWarmUp is how long latencies do not count after a new instance of a canary.
	judgeWarmUp = 30 * time.Second
)

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

// updateTrials follows the configuration in use. A trial goes on if its settings and its split are the
// same, but for the share.
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
		i := slices.IndexFunc(g.trials, func(t *trial) bool { return t.fits(service, s) })
		if i >= 0 {
			next = append(next, g.trials[i])
			continue
		}
		t := newTrial(service, s, g.waits.judgeWarmUp)
		next, created = append(next, t), append(created, t)
	}
	for _, t := range g.trials {
		if !slices.Contains(next, t) {
			t.stop()
		}
	}
	for _, t := range created { // the groups may be those of one that ended
		t.start()
	}
	g.trials = next
}

// look judges a release by what has happened until now.
func (g *Gateway) look(t *trial, now time.Time) {
	s, ok := g.effective.Load().Services[t.service.name]
	if !ok || s.Judge == nil || len(s.Split.Shares()) != 1 {
		return
	}
	given, _ := g.shares.of(t.service.name)
	share := s.Split.Shares()[0].Size
	if given.By == operator.ByJudge && given.Share == 0 && share > 0 {
		return // the rollback is not applied yet
	}
	may := s.Judge.Act == "rollback" && given.By != operator.ByOperator
	d := t.look(share, g.shares.judges.state().Judges, may, now)
	acts := may && (d.Verdict == judge.Advance || d.Verdict == judge.Rollback)
	switch {
	case d.Verdict == judge.Continue:
		return
	case d.Verdict == judge.Advance && (!acts || given.Share == d.Share || !g.shares.judges.leads()):
		return // up to others, or not applied yet
	}
	order, ok := g.newShare(t.service.name, d.Share, operator.ByJudge, d.Reason)
	tell := func() { g.tellVerdict(t, d, acts) }
	switch {
	case !ok: // the configuration has just changed
	case !acts:
		tell()
	case d.Verdict == judge.Advance && g.shares.store.Shares():
		if g.shares.propose(order) { // else the other replicas have not agreed to the last proposal
			tell()
		}
	case g.shares.judged(order, tell) == nil && d.Verdict == judge.Rollback: // else an operator has set it, or a new process starts
		t.end()
	}
}

// tellVerdict says a verdict in the log and in the feed.
func (g *Gateway) tellVerdict(t *trial, d judge.Decision, acts bool) {
	event, level := g.log.Info(), events.Info
	if d.Verdict == judge.Rollback {
		event, level = g.log.Warn(), events.Warning
	}
	event.Str("service", t.service.name).Str("group", t.group).Stringer("verdict", d.Verdict).Float64("share", d.Share).
		Bool("acts", acts).Str("why", d.Reason).Msg("judge of a split")
	g.events.Add(events.Event{Kind: events.KindShareVerdict, Level: level, Service: t.service.name,
		Text: fmt.Sprintf("The judge of the group %s says %s%s", t.group, d.Verdict, events.Because(d.Reason))})
}

// newShare returns a given share of a service, if its split has the share of one group.
func (g *Gateway) newShare(service string, share float64, by, why string) (given operator.Share, ok bool) {
	own := g.configuredSplit(service).Shares()
	if len(own) != 1 {
		return given, false
	}
	return operator.Share{
		Service: service, Group: own[0].Group, Share: share, Configured: own[0].Size, By: by, Why: why,
		Since: time.Now().UTC().Truncate(time.Millisecond), Replica: g.replicaName(),
	}, true
}

// configuredSplit returns the split of a service in the configuration, without given shares.
func (g *Gateway) configuredSplit(service string) config.Split {
	c := g.configured.Load()
	if c == nil {
		return nil // before the first one
	}
	return c.Services[service].Split
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
		if own := g.configuredSplit(service.name).Shares(); len(own) == 1 {
			s.Configured = own[0].Size // also while the share in use is still a given one
		}
		order, ok := given[service.name]
		if ok {
			s.Given = &order
		}
		if t := trials[service.name]; t != nil {
			s.Judge = t.state()
			s.Judge.Paused = order.By == operator.ByOperator
		}
		s.Shared = g.shares.state(service.name)
		states = append(states, s)
	}
	return states
}

// orderShare carries out an operator's order about the split of a service.
func (g *Gateway) orderShare(o admin.ShareOrder) error {
	s := g.effective.Load().Services[o.Service]
	all := s.Split.Shares()
	given, isGiven := g.shares.of(o.Service)
	switch {
	case len(all) != 1:
		return admin.ErrNoSplit
	case o.Group != "" && o.Group != all[0].Group:
		return admin.ErrNoGroup
	case o.Verb == admin.ShareRelease:
		if !isGiven {
			return admin.ErrNotGiven
		}
		return g.shares.release(o.Service)
	case o.Verb != admin.ShareSet && s.Judge == nil:
		return admin.ErrNoJudge
	case o.Verb == admin.ShareResume && given.By != operator.ByOperator:
		return admin.ErrNotPaused
	}
	order, ok := g.newShare(o.Service, all[0].Size, operator.ByOperator, o.Why)
	if !ok {
		return admin.ErrNoSplit
	}
	switch o.Verb {
	case admin.ShareSet:
		order.Share = o.Share
	case admin.SharePause:
		if isGiven {
			order.Share = given.Share // it may not be applied yet
		}
	case admin.ShareResume:
		order.Share, order.By, order.Why = given.Share, operator.ByJudge, cmp.Or(o.Why, "resumed by an operator")
	}
	return g.shares.give(order)
}
