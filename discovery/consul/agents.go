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
	// silenceLimit is how long an agent may be silent, or know no leader, when
	// there is no better one, until the queries that wait for it are broken off: a
	// busy machine is no outage, nor is an election.
	silenceLimit = 3 * time.Second

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

	calmMin time.Duration  // as the constant, which tests shorten
	random  func() float64 // ClientOptions.Random

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
		all: all, token: t, log: log, random: rand.Float64, current: all[0], calmMin: calmMin,
		alarm:  make(chan struct{}, 1),
		judged: make(chan struct{}),
		better: make(chan struct{}),
	}
}

// upTo returns a random time below d.
func (s *agents) upTo(d time.Duration) time.Duration { return time.Duration(s.random() * float64(d)) }

// inUse returns the agent to ask.
func (s *agents) inUse() *agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// lease returns the agent to ask, and a context for a query to it, which ends
// with ctx or when the agent is given up. View says that the query may be answered
// from a view; it also ends when the view is in doubt. The caller calls done after
// the query.
func (s *agents) lease(ctx context.Context, view bool) (a *agent, limited context.Context, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a = s.current
	life := a.life
	if view {
		life = a.views
	}
	limited, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(life, func() {
		cause := context.Cause(life)
		if cause == errReturned {
			_ = sleep(limited, s.upTo(returnSpread))
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

// good reports whether the agent in use is, by its probes, and since when.
func (s *agents) good() (is bool, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.condition == good, s.current.since
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

// preferred returns the agents that come before a.
func (s *agents) preferred(a *agent) []*agent {
	for n := range s.all {
		if s.all[n] == a {
			return s.all[:n]
		}
	}
	return nil
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
	why := current.useless(now)
	current.meter.gate.setNarrow(best == current && why != nil)
	if best == current {
		if why != nil && !current.brokenOff {
			current.brokenOff = true
			current.breakOff(current.condition == silent, why)
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
		s.spread = s.upTo(s.calm)
		current.breakOff(true, errMoved)
		s.log.Warn().Str("agent", best.url).Str("instead_of", current.url).Msg("consul: another agent is asked from now on")
	} else {
		current.endLife(errReturned)
		s.log.Info().Str("agent", best.url).Str("instead_of", current.url).Msg("consul: back at the preferred agent")
	}
	current.told, best.told = good, good
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

// ailing returns why an answer of a that says nothing of a leader must not be
// used.
func (s *agents) ailing(a *agent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.useless(time.Now())
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
