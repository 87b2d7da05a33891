package roll

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/admin"
	"sluice/balancer"
	"sluice/observe/wake"
	"sluice/release/judge"
)

const (
	// minTrialRequests is how many requests an instance has had before its latency counts.
	minTrialRequests = 20
	// minSlowerMS is how many milliseconds slower than the others an instance must be to be
	// slow: below, the network and the clock decide.
	minSlowerMS = 5
)

// judged waits until an instance is in use, and was as good as the others for the time of Judge
// without a break. Evidence that it fails more often ends the wait at once, as does an ejection,
// which has evidence of its own. Everything else may pass, such as the slowness of a cold start.
func (s *step) judged(ctx context.Context, deadline time.Time) error {
	t := newTrial(s.Slower)
	good, i := time.Time{}, InstanceOf(s.peer)
	err := wake.Repeat(ctx, interval, func() (bool, error) {
		peers, err := s.sluice.Peers(ctx)
		if err != nil {
			return false, s.late(deadline, err, "")
		}
		peers = registered(peers)
		present := slices.IndexFunc(peers, func(c admin.Peer) bool { return InstanceOf(c) == i })
		if present < 0 { // it may come back
			good = time.Time{}
			return false, s.late(deadline, nil, "it is registered no more")
		}
		this := peers[present]
		worse, doubt := t.look(this, others(peers, append(slices.Clone(s.batch), this)))
		switch {
		case worse != "":
			return false, fmt.Errorf("%w: %s", errWorse, worse)
		case doubt == "" && good.IsZero():
			good = time.Now()
		case doubt != "":
			good = time.Time{}
			if !time.Now().Before(deadline) {
				return false, fmt.Errorf("%w: %s", errWorse, doubt)
			}
		}
		return !good.IsZero() && time.Since(good) >= s.Judge, nil
	})
	if err == nil {
		s.report(Judged, &i, t.String())
	}
	return err
}

// trial compares an instance with the others since it is in use again. It has no clock.
type trial struct {
	slower  float64
	release *judge.Release
	last    map[Instance]judge.Counts // as in the look before

	this, others judge.Counts // since the first look
	failures     uint64       // that the judge was told of
}

func newTrial(slower float64) *trial {
	return &trial{slower: slower, release: judge.NewRelease(judge.Settings{PerRequest: true}, judge.Observation{}), last: make(map[Instance]judge.Counts)}
}

// look adds what has happened since the look before. It returns why the instance is worse than the
// others, or why it is not known to be as good.
func (t *trial) look(this admin.Peer, others []admin.Peer) (worse, doubt string) {
	ofThis := t.since(this)
	var ofOthers judge.Counts
	var slowestMS float64
	for _, p := range others {
		c := t.since(p)
		ofOthers.Requests += c.Requests
		ofOthers.Failures += c.Failures
		slowestMS = max(slowestMS, p.LatencyMS)
	}
	t.count(ofThis, ofOthers)
	decision := t.release.Decide(judge.Observation{Canary: t.this, Baseline: t.others})
	switch {
	case decision.Verdict == judge.Rollback:
		return decision.Reason, ""
	case this.State == balancer.StateEjected.String():
		return "it was ejected: " + fmt.Sprint(this.Reasons), ""
	case !this.Used:
		return "", fmt.Sprintf("it gets no requests, its state is %s: %v", this.State, this.Reasons)
	case len(others) == 0:
		return "", ""
	case t.release.Evidence() >= judge.Doubtful:
		return "", fmt.Sprintf("it may fail more often than the others: %s", t)
	case t.this.Requests >= minTrialRequests && slowestMS > 0 && this.LatencyMS > (1+t.slower)*slowestMS && this.LatencyMS > slowestMS+minSlowerMS:
		return "", fmt.Sprintf("its requests take %.3g ms, those of the slowest other %.3g ms", this.LatencyMS, slowestMS)
	}
	return "", ""
}

// since returns the attempts of a peer since the look before. After an upgrade of sluice the
// counters begin anew.
func (t *trial) since(p admin.Peer) (c judge.Counts) {
	now := judge.Counts{Requests: p.Requests, Failures: p.Failures}
	last, known := t.last[InstanceOf(p)]
	t.last[InstanceOf(p)] = now
	switch {
	case !known:
		return c
	case now.Requests < last.Requests || now.Failures < last.Failures:
		return now
	}
	return judge.Counts{Requests: now.Requests - last.Requests, Failures: now.Failures - last.Failures}
}

// count tells the judge of the failures between two looks. If the instance is no worse, a failure
// is its own as often as a request was.
func (t *trial) count(this, others judge.Counts) {
	t.this = judge.Counts{Requests: t.this.Requests + this.Requests, Failures: t.this.Failures + this.Failures}
	t.others = judge.Counts{Requests: t.others.Requests + others.Requests, Failures: t.others.Failures + others.Failures}
	if this.Requests == 0 || others.Requests == 0 {
		return
	}
	share := float64(this.Requests) / float64(this.Requests+others.Requests)
	for range this.Failures {
		t.failures++
		t.release.Failed(t.failures, true, share)
	}
	for range others.Failures {
		t.failures++
		t.release.Failed(t.failures, false, share)
	}
}

// String describes the attempts for people.
func (t *trial) String() string {
	if t.this.Requests == 0 {
		return "it had no requests, so nothing is known of its answers"
	}
	return fmt.Sprintf("%d of its %d requests have failed, %d of the %d to the others", t.this.Failures, t.this.Requests, t.others.Failures, t.others.Requests)
}
