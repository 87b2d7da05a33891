package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/observe/events"
	"sluice/observe/wake"
)

const (
	// cancelAfter is how long an agent may be unreachable, or without a leader, before its queries
	// are canceled, if no agent is better. A busy machine or an election takes less.
	cancelAfter = 3 * time.Second

	// penaltyTime is how long an agent ranks as degraded after it has failed queries,
	// although it answers probes.
	penaltyTime = 15 * time.Second

	// A preferred agent is used again when it has been healthy for returnMin, and for twice the
	// previous time after each failure, up to returnMax; plus a random time up to the same length,
	// so that the replicas of a fleet do not return at the same moment.
	returnMin = 10 * time.Second
	returnMax = 5 * time.Minute
)

// Causes of the cancellation of queries.
var (
	errClosed     = errors.New("the client is closed")
	errOtherAgent = errors.New("another agent is used")
	errRecovered  = errors.New("the agent has recovered")
	errReset      = errors.New("the state of Consul may be lost")
)

// canceledByAgents reports whether err ended a query that can be asked again at once: another agent
// is in use, the same one has recovered, or Consul has lost the state that its views show.
func canceledByAgents(err error) bool {
	return errors.Is(err, errOtherAgent) || errors.Is(err, errRecovered) || errors.Is(err, errReset)
}

// agents are the agents of a client, one of which is in use. While watch runs, the
// choice follows their conditions. It is safe for concurrent use.
type agents struct {
	all    []*agent // in order of preference, at least one
	token  *token
	log    zerolog.Logger
	events *events.Feed // may be nil
	alarm  wake.One     // requests a round of probes

	probeInterval time.Duration  // Options.ProbeInterval
	returnMin     time.Duration  // Options.ReturnAfter
	random        func() float64 // Options.Random

	roundDone wake.All // a round of probes has ended
	// changed is sent when failed queries should be retried: another agent or token, a recovery.
	changed wake.All

	mu          sync.Mutex // guards the fields below, and the state of every agent
	current     *agent
	switched    time.Time     // when current was chosen
	returnAfter time.Duration // for how long a preferred agent must be healthy before its use
	spread      time.Duration // random time in addition
	resetAt     time.Time     // when Consul may have lost its state; zero: never
}

func (s *agents) randomBelow(d time.Duration) time.Duration {
	return time.Duration(s.random() * float64(d))
}

// inUse returns the agent for queries.
func (s *agents) inUse() *agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// lease returns the agent for one query, and a context for it that also ends when the query is
// canceled. view says that a view may answer the query. The caller calls done after the query.
func (s *agents) lease(ctx context.Context, view bool) (a *agent, limited context.Context, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a = s.current
	life := a.life
	if view {
		life = a.views
	}
	limited, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	return a, limited, func() {
		stop()
		cancel(nil)
	}
}

// resetTime is the time in which all signs of lost state count as one: each loop sees its own.
const resetTime = 10 * time.Second

// recordReset records that Consul may have lost its state.
func (s *agents) recordReset(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resetAt.IsZero() || now.Sub(s.resetAt) >= resetTime {
		s.resetAt = now
		s.current.cancelQueriesLocked(false, errReset)
	}
}

// resetSince reports whether Consul may have lost its state after a time.
func (s *agents) resetSince(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resetAt.After(t)
}

// lastOutage returns the time of the last probe in an outage of the agent in use, or of the
// good one that ended it.
func (s *agents) lastOutage() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.lastOutage
}

// probeAfterFailure starts a round of probes after a query failed, perhaps because of agent a. If
// there are other agents, it waits for the result, about a second at most. It reports
// whether another agent is in use.
func (s *agents) probeAfterFailure(ctx context.Context, a *agent) (switched bool) {
	// The current round may have started before the query failed.
	for range 2 {
		roundDone := s.roundDone.Wait()
		if s.inUse() != a {
			return true
		}
		s.alarm.Send()
		if len(s.all) == 1 {
			return false
		}
		if wake.Await(ctx, roundDone) != nil {
			return false
		}
	}
	return s.inUse() != a
}

// penalize ranks agent a as degraded: it fails queries, but answers probes. elsewhere says that
// another agent has failed them too: if a answers other queries, the fault is in the queries.
func (s *agents) penalize(a *agent, elsewhere bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !elsewhere || now.Sub(a.answered) >= viewLag {
		a.penalizedUntil = now.Add(penaltyTime)
	}
}

// recordAnswer records that agent a has answered the queries of a loop.
func (s *agents) recordAnswer(a *agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.answered = time.Now()
}

// preferred returns the agents before a.
func (s *agents) preferred(a *agent) []*agent { return s.all[:slices.Index(s.all, a)] }

// switchToBest puts the best agent into use.
func (s *agents) switchToBest(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := s.current
	best := current
	for _, a := range s.all {
		if a.rankLocked(now) > best.rankLocked(now) {
			best = a
		}
	}
	why := current.failureLocked(now)
	if best != current {
		why = nil // best answers
	}
	current.meter.gate.setUnanswered(why)
	if best == current {
		if why != nil && !current.canceled {
			current.canceled = true
			current.cancelQueriesLocked(current.condition == unreachable, why)
		}
		best = s.preferredAgainLocked(now)
	}
	if best == current {
		return
	}
	current.cancelQueriesLocked(true, errOtherAgent) // also if it is healthy: it continues them
	if current.rankLocked(now) < healthy {
		s.returnAfter = min(max(2*s.returnAfter, s.returnMin), returnMax)
		if now.Sub(s.switched) > returnMax {
			s.returnAfter = s.returnMin
		}
		s.spread = s.randomBelow(s.returnAfter)
		s.log.Warn().Str("agent", best.url).Str("instead_of", current.url).Msg("consul: another agent is used")
		s.events.Add(events.Event{Kind: events.KindAgentChanged, Level: events.Warning,
			Text: fmt.Sprintf("The Consul agent %s is used instead of %s, which fails", best.url, current.url)})
	} else {
		s.log.Info().Str("agent", best.url).Str("instead_of", current.url).Msg("consul: the preferred agent is used again")
		s.events.Add(events.Event{Kind: events.KindAgentChanged,
			Text: fmt.Sprintf("The preferred Consul agent %s is used again, instead of %s", best.url, current.url)})
	}
	current.logged, best.logged = healthy, healthy
	s.current, s.switched = best, now
	best.meter.gate.use(&best.multiplexed)
	s.changed.Send()
}

// preferredAgainLocked returns the first preferred agent that may be used again, else
// the agent in use.
func (s *agents) preferredAgainLocked(now time.Time) *agent {
	for _, a := range s.preferred(s.current) {
		if a.rankLocked(now) == healthy && now.Sub(a.since) >= s.returnAfter+s.spread {
			return a
		}
	}
	return s.current
}

// doubt returns why an answer of agent a that does not report the leader is doubtful, or nil.
func (s *agents) doubt(a *agent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.failureLocked(time.Now())
}
