package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"sluice/observe/events"
	"sluice/observe/panics"
)

const (
	// defaultProbeInterval is the interval of probes of the agent in use. It bounds how late
	// a hang is noticed.
	defaultProbeInterval = 1250 * time.Millisecond
	// probeIntervalUnhealthy is the interval while the agent in use is not healthy. It
	// bounds how late a recovery is noticed.
	probeIntervalUnhealthy = 500 * time.Millisecond
	// probeIntervalPreferred is the interval of probes of the agents before the one in
	// use.
	probeIntervalPreferred = 5 * time.Second
	// probeTimeout bounds a probe. After it all agents are probed, the failed one on a
	// new connection. If that fails, too, the agent is unreachable and another one is
	// used.
	probeTimeout = 300 * time.Millisecond
	// roundGap is the minimum time between two rounds of probes.
	roundGap = 100 * time.Millisecond

	// outage is how long an agent must be unhealthy until its connections, views and
	// queries in flight are doubtful. An agent that is slow because it is busy would
	// have to answer all queries again.
	outage = time.Second
)

// watch probes the agents until ctx ends.
func (s *agents) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	token := s.token.current()
	var tokenErr error
	var preferredAt time.Time // last probes of the preferred agents
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.alarm:
		case <-timer.C:
		}
		if latest := s.token.current(); latest != token {
			token = latest
			s.log.Info().Str("file", s.token.file).Msg("consul: the token has changed")
			s.changed.Send()
		}
		tokenErr = s.logToken(tokenErr)

		s.probeRound(ctx, &preferredAt)
		if Sleep(ctx, roundGap) != nil {
			return
		}
		timer.Reset(s.pause())
	}
}

// probeRound probes the agent in use and, if necessary, the others, and chooses one.
func (s *agents) probeRound(ctx context.Context, preferredAt *time.Time) {
	defer s.roundDone.Send()
	current := s.inUse()
	c, err := current.probe(ctx, probeTimeout)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	bad := c < healthy || time.Now().Before(current.penalizedUntil)
	s.mu.Unlock()
	switch {
	case bad:
		s.probeAll(ctx, s.all)
	case current != s.all[0] && time.Since(*preferredAt) >= probeIntervalPreferred:
		*preferredAt = time.Now()
		s.recordProbe(current, c, err)
		s.probeAll(ctx, s.preferred(current))
	default:
		s.recordProbe(current, c, err)
	}
	if ctx.Err() == nil {
		s.switchToBest(time.Now())
		current.meter.gate.setLagging(time.Since(s.lastOutage()) <= viewLag)
	}
}

// probeAll probes several agents concurrently.
func (s *agents) probeAll(ctx context.Context, list []*agent) {
	var probing sync.WaitGroup
	for _, a := range list {
		probing.Go(func() {
			defer panics.Contain(panics.Watch, nil)
			c, err := a.probe(ctx, probeTimeout)
			if ctx.Err() == nil {
				s.recordProbe(a, c, err)
			}
		})
	}
	probing.Wait()
}

// recordProbe processes the result of a probe of agent a.
func (s *agents) recordProbe(a *agent, c condition, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	was := a.condition
	lasted := a.setConditionLocked(now, c, Denied(err))
	if a == s.current {
		s.logConditionLocked(a, now, err)
	}
	closed := a.idle.lost.Swap(false)
	if c == was {
		if closed && c == healthy {
			s.changed.Send() // it may have restarted
		}
		return
	}
	if lasted && (was == unreachable || c == healthy) {
		// Their connections may be dead, and the agent's views may lag.
		a.cancelQueriesLocked(was == unreachable, errRecovered)
	}
	a.canceled = false
	if c > was {
		s.changed.Send()
	}
}

// setConditionLocked sets the condition of a, and reports whether this was in an outage
// before. denied says that Consul, or a proxy, answered the probe with 4xx.
func (a *agent) setConditionLocked(now time.Time, c condition, denied bool) (lasted bool) {
	fine := c == healthy || denied
	lasted = a.inOutageLocked(now)
	switch {
	case fine && a.condition == c: // two in a row, so it does not flap
		a.unhealthySince = time.Time{}
	case !fine && a.unhealthySince.IsZero():
		a.unhealthySince = now
	case lasted:
		a.lastOutage = now
	}
	switch {
	case fine:
		a.leaderlessSince = time.Time{}
	case c == degraded && a.leaderlessSince.IsZero():
		a.leaderlessSince = now
	}
	if a.condition != c {
		a.condition, a.since = c, now
		a.connections.silent.Store(c == unreachable)
	}
	return lasted
}

// inOutageLocked reports whether a has been unhealthy for the length of an outage.
func (a *agent) inOutageLocked(now time.Time) bool {
	return !a.unhealthySince.IsZero() && now.Sub(a.unhealthySince) >= outage
}

// logConditionLocked logs a new condition of the agent in use when it lasts: during an
// election each probe may have another result.
func (s *agents) logConditionLocked(a *agent, now time.Time, err error) {
	steady := now.Sub(a.since) >= outage
	switch {
	case a.condition == a.logged:
		return
	case a.condition == healthy && steady:
		s.log.Info().Str("agent", a.url).Stringer("condition", a.condition).Msg("consul: the agent has recovered")
		s.events.Add(events.Event{Kind: events.KindAgentRecovered, Text: fmt.Sprintf("The Consul agent %s has recovered", a.url)})
	case a.condition < healthy && (steady || a.logged == healthy && a.inOutageLocked(now)):
		s.log.Warn().Str("agent", a.url).Stringer("condition", a.condition).Err(err).Msg("consul: the agent fails")
		failed := events.Event{Kind: events.KindAgentFails, Level: events.Warning, Text: fmt.Sprintf("The Consul agent %s is %s: %v", a.url, a.condition, err)}
		if errors.Is(err, errLeaderless) {
			failed.Kind = events.KindNoLeader
		}
		s.events.Add(failed)
	default:
		return
	}
	a.logged = a.condition
}

// pause returns the time until the next round, ± 10 %.
func (s *agents) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	every := s.probeInterval
	if s.current.rankLocked(time.Now()) < healthy {
		every = probeIntervalUnhealthy
	}
	return every - every/10 + s.randomBelow(every/5)
}

// logToken logs when the token file becomes unreadable, and when it is readable again.
// before is the previous result.
func (s *agents) logToken(before error) error {
	err := s.token.problem()
	switch {
	case before == nil && err != nil:
		s.log.Warn().Str("file", s.token.file).Err(err).Msg("consul: the token file is unreadable, the previous token stays in use")
	case before != nil && err == nil:
		s.log.Info().Str("file", s.token.file).Msg("consul: the token file is readable again")
	}
	return err
}

// idleConnection detects that an agent has closed the idle connection of the probes. The
// agent has probably restarted, perhaps between two probes, and may have lost its
// registrations. It is safe for concurrent use.
type idleConnection struct {
	open atomic.Bool // the last request left the connection open
	lost atomic.Bool // it was closed before the next request, since a probe was last recorded
}

// trace returns a context for a request on the connection.
func (i *idleConnection) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			// Some proxies keep no connection open: then none is lost. With HTTP/2 only
			// a new connection shows the loss.
			if i.open.Swap(c.Reused) && !c.Reused {
				i.lost.Store(true)
			}
		},
		PutIdleConn: func(err error) { i.open.Store(err == nil) },
	})
}
