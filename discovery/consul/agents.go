package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
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
	// silenceLimit is how long an agent may be silent, or know no leader, when
	// there is no better one, until the queries that wait for it are broken off: a
	// busy machine is no outage, nor is an election.
	silenceLimit = 3 * time.Second

	// outage is how long an agent must not have been good for its connections, its
	// views and what waits for it to be in doubt. To ask everything anew costs an
	// agent most when it is slow because it is busy.
	outage = time.Second

	// complaintTime is how long an agent counts as bad that answers probes and
	// fails queries.
	complaintTime = 15 * time.Second

	// An agent that is preferred to the one in use must have been good for at
	// least calmMin before it is used again, for twice as long after each time
	// that it was given up, and at most for calmMax. Up to as much again is added
	// at random, so that a fleet does not return in step.
	calmMin = 10 * time.Second
	calmMax = 5 * time.Minute

	// returnSpread is the time over which the watches return to it.
	returnSpread = 5 * time.Second
)

// Causes for which queries in flight are broken off.
var (
	errClosed    = errors.New("the client is closed")
	errMoved     = errors.New("another agent is asked from now on")
	errReturned  = fmt.Errorf("the preferred agent is good again: %w", errMoved) // no hurry
	errRecovered = errors.New("the agent answers again, and is asked anew")
)

// agents are those that a client may ask, and the choice of the one that is
// asked. While watch runs the choice follows their condition. It is safe for
// concurrent use.
type agents struct {
	all   []*agent // in order of preference, at least one
	token *token
	log   zerolog.Logger
	alarm chan struct{} // capacity 1: a query failed

	calmMin time.Duration // as the constant, which tests shorten

	mu      sync.Mutex // guards the fields below, and the condition of every agent
	current *agent
	judged  chan struct{} // closed, and replaced, when a round of probes ends
	better  chan struct{} // closed, and replaced, when there is a reason to try again at once
	moved   time.Time     // when current was chosen
	calm    time.Duration // how long a preferred agent must be good before it is used again
	spread  time.Duration // and how long beyond that, at random
}

func newAgents(all []*agent, t *token, log zerolog.Logger) *agents {
	return &agents{
		all: all, token: t, log: log, current: all[0], calmMin: calmMin,
		alarm:  make(chan struct{}, 1),
		judged: make(chan struct{}),
		better: make(chan struct{}),
	}
}

// inUse returns the agent to ask.
func (s *agents) inUse() *agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// lease returns the agent to ask, and a context for a query to it, which ends
// with ctx or when the agent is given up. The caller calls done after the query.
func (s *agents) lease(ctx context.Context) (a *agent, limited context.Context, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a = s.current
	life := a.life
	limited, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(life, func() {
		cause := context.Cause(life)
		if cause == errReturned {
			_ = sleep(limited, rand.N(returnSpread))
		}
		cancel(cause)
	})
	return a, limited, func() {
		stop()
		cancel(nil)
	}
}

// trouble returns when a probe last showed that the agent in use was not good.
func (s *agents) trouble() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.trouble
}

// retry returns a channel that is closed when there is a reason for those whose
// query failed to try again at once: another agent, a recovery, another token.
func (s *agents) retry() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.better
}

// suspect tells that a query to a failed in a way that may be a's fault. It
// has the agents probed at once. If there are others it waits for the result,
// about a second at most, and reports whether another one is used now.
func (s *agents) suspect(ctx context.Context, a *agent) (moved bool) {
	// The round under way may have begun before the query failed.
	for range 2 {
		s.mu.Lock()
		judged, current := s.judged, s.current
		s.mu.Unlock()
		if current != a {
			return true
		}
		select {
		case s.alarm <- struct{}{}:
		default:
		}
		if len(s.all) == 1 {
			return false
		}
		select {
		case <-judged:
		case <-ctx.Done():
			return false
		}
	}
	return s.inUse() != a
}

// complain tells that queries to a fail although it is good by its probes: it
// is used only as long as there is no better one.
func (s *agents) complain(a *agent) {
	s.mu.Lock()
	a.complaints = time.Now().Add(complaintTime)
	s.mu.Unlock()
}

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

// preferred returns the agents that come before a.
func (s *agents) preferred(a *agent) []*agent {
	for n := range s.all {
		if s.all[n] == a {
			return s.all[:n]
		}
	}
	return nil
}

// note keeps what a probe of a showed.
func (s *agents) note(a *agent, c condition, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	fine := c == good || denied(err) // who denies the question is no trouble
	lasted := !a.notGood.IsZero() && now.Sub(a.notGood) >= outage
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
	closed := a.kept.closed()
	if a.condition == c {
		if closed && c == good {
			s.tryAgainLocked() // it may have been restarted between two probes
		}
		return
	}
	was := a.condition
	a.condition, a.since = c, now
	switch {
	case a != s.current:
	case c == good:
		s.log.Info().Str("agent", a.url).Msg("consul: the agent is good again")
	default:
		s.log.Warn().Str("agent", a.url).Err(err).Msgf("consul: the agent is %s", c)
	}
	if lasted && (was == silent || c == good) {
		// Queries that hang since before may never be answered, as their connections
		// may be dead, or late, as the agent's views may lag.
		a.breakOff(errRecovered)
	}
	a.brokenOff = false
	if c > was {
		s.tryAgainLocked()
	}
}

// breakOff ends the queries in flight, and leaves their connections behind. It
// needs mu.
func (a *agent) breakOff(cause error) {
	a.endLife(cause)
	a.connections.renew()
}

// endLife ends the queries in flight; later ones are not concerned. It needs mu.
func (a *agent) endLife(cause error) {
	a.end(cause)
	a.life, a.end = context.WithCancelCause(context.Background())
}

// choose makes the best agent the one in use.
func (s *agents) choose(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := s.current
	best := current
	for _, a := range s.all {
		if a.worth(now) > best.worth(now) {
			best = a
		}
	}
	if best == current {
		if why := current.useless(now); why != nil && !current.brokenOff {
			current.brokenOff = true
			current.breakOff(why)
		}
		best = s.returnTo(now)
	}
	if best == current {
		return
	}
	if current.worth(now) < good {
		s.calm = min(max(2*s.calm, s.calmMin), calmMax)
		if now.Sub(s.moved) > calmMax {
			s.calm = s.calmMin
		}
		s.spread = rand.N(s.calm)
		current.breakOff(errMoved)
		s.log.Warn().Str("agent", best.url).Str("instead_of", current.url).Msg("consul: another agent is asked from now on")
	} else {
		current.endLife(errReturned)
		s.log.Info().Str("agent", best.url).Str("instead_of", current.url).Msg("consul: back at the preferred agent")
	}
	s.current, s.moved = best, now
	s.tryAgainLocked()
}

// returnTo returns the first agent that is preferred to the one in use and has
// been good for long enough, or the one in use. It needs mu.
func (s *agents) returnTo(now time.Time) *agent {
	for _, a := range s.preferred(s.current) {
		if a.worth(now) == good && now.Sub(a.since) >= s.calm+s.spread {
			return a
		}
	}
	return s.current
}

// useless returns why a query that waits for a waits in vain: nothing tells it
// that a is silent, nor one that streams that there is no leader. It needs mu.
func (a *agent) useless(now time.Time) error {
	switch {
	case a.condition == silent && now.Sub(a.since) >= silenceLimit:
		return fmt.Errorf("consul %s: the agent has been silent for %v", a.url, silenceLimit)
	case a.condition == troubled && !a.leaderless.IsZero() && now.Sub(a.leaderless) >= silenceLimit:
		return fmt.Errorf("consul %s: %w", a.url, errNoLeader)
	}
	return nil
}

// ailing returns why an answer of a that says nothing of a leader must not be
// used.
func (s *agents) ailing(a *agent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.useless(time.Now())
}

// worth is a's condition as far as it can be relied on. It needs mu.
func (a *agent) worth(now time.Time) condition {
	if a.condition == good && now.Before(a.complaints) {
		return troubled
	}
	return a.condition
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
	return every - every/10 + rand.N(every/5)
}

func (s *agents) endRound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.judged)
	s.judged = make(chan struct{})
}

// tryAgain wakes those whose query failed.
func (s *agents) tryAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tryAgainLocked()
}

func (s *agents) tryAgainLocked() {
	close(s.better)
	s.better = make(chan struct{})
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
