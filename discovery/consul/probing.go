package consul

import (
	"context"
	"sync"
	"time"
)

const (
	// probeEvery is the time between two probes of the agent in use: long enough
	// to be no burden (fewer than one a second), short enough to notice within
	// about a second that it hangs.
	probeEvery = 1250 * time.Millisecond
	// probeTroubled is the time between two probes while the agent in use is not
	// good: this is what bounds how long a recovery goes unnoticed.
	probeTroubled = 500 * time.Millisecond
	// probeOthers is the time between two probes of agents that are preferred to
	// the one in use.
	probeOthers = 5 * time.Second
	// probeTimeout is how long the answer to a probe may take. One that takes
	// longer is asked for again, on a new connection, together with those of the
	// other agents: only then the agent counts as silent, and another one takes over.
	probeTimeout = 300 * time.Millisecond
	// roundGap is the least time between two rounds of probes.
	roundGap = 100 * time.Millisecond

	// outage is how long an agent must not have been good for its connections, its
	// views and what waits for it to be in doubt. To ask everything anew costs an
	// agent most when it is slow because it is busy.
	outage = time.Second
)

// watch probes the agents until ctx ends.
func (s *agents) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	secret := s.token.current()
	var unreadable error
	var others time.Time // when those preferred to the one in use were probed
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.alarm:
		case <-timer.C:
		}
		if now := s.token.current(); now != secret {
			secret = now
			s.log.Info().Str("file", s.token.file).Msg("consul: another token is used from now on")
			s.tryAgain()
		}
		unreadable = s.reportToken(unreadable)

		s.round(ctx, &others)
		if sleep(ctx, roundGap) != nil {
			return
		}
		timer.Reset(s.pause())
	}
}

// round probes the agent in use and, if it has to, the others, and makes the
// choice.
func (s *agents) round(ctx context.Context, others *time.Time) {
	defer s.endRound()
	current := s.inUse()
	c, err := current.probe(ctx, probeTimeout)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	bad := c < good || time.Now().Before(current.complaints)
	s.mu.Unlock()
	switch {
	case bad:
		s.probeAll(ctx, s.all)
	case current != s.all[0] && time.Since(*others) >= probeOthers:
		*others = time.Now()
		s.note(current, c, err)
		s.probeAll(ctx, s.preferred(current))
	default:
		s.note(current, c, err)
	}
	if ctx.Err() == nil {
		s.choose(time.Now())
	}
}

// probeAll probes several agents at the same time.
func (s *agents) probeAll(ctx context.Context, list []*agent) {
	var probing sync.WaitGroup
	for _, a := range list {
		probing.Go(func() {
			c, err := a.probe(ctx, probeTimeout)
			if ctx.Err() == nil {
				s.note(a, c, err)
			}
		})
	}
	probing.Wait()
}

// note keeps what a probe of a showed.
func (s *agents) note(a *agent, c condition, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	was := a.condition
	lasted := a.judge(now, c, denied(err)) // who denies the question is no trouble
	if a == s.current {
		s.tell(a, now, err)
	}
	closed := a.kept.closed()
	if c == was {
		if closed && c == good {
			s.tryAgainLocked() // it may have been restarted between two probes
		}
		return
	}
	if lasted && (was == silent || c == good) {
		// Queries that hang since before may never be answered, as their connections
		// may be dead, or late, as the agent's views may lag.
		a.breakOff(was == silent, errRecovered)
	}
	a.brokenOff = false
	if c > was {
		s.tryAgainLocked()
	}
}

// judge makes c the condition of a. It reports whether a has not been good, or
// not for two probes in a row, for the length of an outage. It needs mu.
func (a *agent) judge(now time.Time, c condition, excused bool) (lasted bool) {
	fine := c == good || excused
	lasted = a.ailed(now)
	switch {
	case fine && a.condition == c: // twice in a row: it does not flap
		a.notGood = time.Time{}
	case fine:
	case a.notGood.IsZero():
		a.notGood = now
	case lasted:
		a.trouble = now
	}
	switch {
	case fine:
		a.leaderless = time.Time{}
	case c == troubled && a.leaderless.IsZero():
		a.leaderless = now
	}
	if a.condition != c {
		a.condition, a.since = c, now
	}
	return lasted
}

// ailed reports whether a has not been good for the length of an outage. It
// needs mu.
func (a *agent) ailed(now time.Time) bool {
	return !a.notGood.IsZero() && now.Sub(a.notGood) >= outage
}

// tell logs the condition of the agent in use when it is another one than the log
// says, and lasts: while servers elect a leader, each probe may show another one.
// It needs mu.
func (s *agents) tell(a *agent, now time.Time, err error) {
	steady := now.Sub(a.since) >= outage
	switch {
	case a.condition == a.told:
		return
	case a.condition == good && steady:
		s.log.Info().Str("agent", a.url).Msg("consul: the agent is good again")
	case a.condition < good && (steady || a.told == good && a.ailed(now)):
		s.log.Warn().Str("agent", a.url).Err(err).Msgf("consul: the agent is %s", a.condition)
	default:
		return
	}
	a.told = a.condition
}

// pause returns the time until the next round: give or take a tenth, so that
// a fleet does not probe in step.
func (s *agents) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	every := probeEvery
	if s.current.worth(time.Now()) < good {
		every = probeTroubled
	}
	return every - every/10 + s.upTo(every/5)
}

func (s *agents) endRound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.judged)
	s.judged = make(chan struct{})
}

// reportToken logs when the token's file cannot be read any more, and when it
// can again.
func (s *agents) reportToken(before error) error {
	err := s.token.problem()
	switch {
	case before == nil && err != nil:
		s.log.Warn().Err(err).Msg("consul: the token's file cannot be read, going on with the token that it held")
	case before != nil && err == nil:
		s.log.Info().Str("file", s.token.file).Msg("consul: the token's file can be read again")
	}
	return err
}
