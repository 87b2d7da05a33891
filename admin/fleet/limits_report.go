package fleet

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/observe/metrics"
)

// LimitsReport is the body of /api/limits: the rate limits that the replicas keep together, and how
// this one does.
type LimitsReport struct {
	Replicas int           `json:"replicas"` // that keep them, with this one
	Seen     int           `json:"seen"`     // of them, those that exchange counts, with this one
	Part     float64       `json:"part"`     // of each limit, held by seen ones: seen / replicas
	Fallback bool          `json:"fallback"` // not all are seen, or it is not known who they are
	Why      []string      `json:"why"`      // of the fallback
	Since    *time.Time    `json:"since"`    // start or end of the fallback; null: no round yet
	Consul   string        `json:"consul"`   // why Consul's list may be out of date, or empty
	Others   []LimitsOther `json:"others"`
	Limits   []LimitState  `json:"limits"`
}

// LimitsOther is another replica.
type LimitsOther struct {
	Name     string     `json:"name"`
	Admin    string     `json:"admin"` // its admin API
	Seen     bool       `json:"seen"`
	Gone     bool       `json:"gone"`     // without a part: critical, or nothing listens there
	Error    string     `json:"error"`    // why it is not seen
	Answered *time.Time `json:"answered"` // the last time
}

// LimitState is a limit.
type LimitState struct {
	ID       string     `json:"id"`
	Requests string     `json:"requests"` // that the route matches
	Rate     int        `json:"rate"`
	Per      string     `json:"per"`
	Burst    int        `json:"burst"`
	Key      string     `json:"key"`
	Keys     int        `json:"keys"`     // those that its last round has told the others
	Heaviest []KeyState `json:"heaviest"` // of them, the first
}

// KeyState is a key of a limit, by its hash.
type KeyState struct {
	Hash  string  `json:"hash"`
	Share float64 `json:"share"` // of the limit, that this replica has
	Asked float64 `json:"asked"` // requests at this replica lately, also those that were refused
	Taken uint32  `json:"taken"` // requests that it admitted in its last round
	Debt  float64 `json:"debt"`  // admitted by all replicas, and not given back by the rate yet
}

// heaviest is how many keys of a limit a report has.
const heaviest = 10

// Counts returns the rounds of this replica that another one lacks: those after the round with the
// number after, which it has got from process. From another process than this one it lacks the last
// round.
func (l *Limits) Counts(process string, after uint64) Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.last()
	if process != l.process {
		after = last.sequence
	}
	return Counts{
		Replica: l.Name(), Process: l.process, Sequence: last.sequence, Seed: hex.EncodeToString(last.seed[:]),
		AgeMS: max(0, time.Since(last.ended).Milliseconds()), Limits: countsSince(l.rounds, after),
	}
}

// Report returns the state.
func (l *Limits) Report() LimitsReport {
	now, standing := time.Now(), l.Fleet.Standing()
	r := LimitsReport{Replicas: standing.Replicas, Seen: standing.Seen, Part: standing.Part(), Others: []LimitsOther{}, Limits: []LimitState{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Fallback, r.Why, r.Since, r.Consul = len(l.fallback.why) > 0, append([]string{}, l.fallback.why...), moment(l.fallback.since), l.problem
	for _, o := range l.others {
		missing := o.missing(now, standing.Seed)
		r.Others = append(r.Others, LimitsOther{o.Name, o.Admin, missing == "", missing != "" && o.gone(), missing, moment(o.answered)})
	}
	own := l.last().limits
	for _, limit := range l.Limits() {
		counts, s := own[limit.ID], limit.Settings
		state := LimitState{limit.ID, limit.Requests, s.Rate, s.Per.String(), s.Burst, s.Key.Text, len(counts), []KeyState{}}
		for _, c := range counts[:min(heaviest, len(counts))] {
			state.Heaviest = append(state.Heaviest, KeyState{fmt.Sprintf("%016x", c.Hash), limit.Share(c.Hash), float64(c.Asked), c.Taken, max(float64(c.Debt), 0)})
		}
		r.Limits = append(r.Limits, state)
	}
	return r
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC().Truncate(time.Millisecond))
}

var descriptions metrics.Descriptions

var (
	limitReplicas = descriptions.New("fleet_limit_replicas", "Replicas that keep the rate limits with the scope fleet, with this one; absent without such a limit.")
	limitSeen     = descriptions.New("fleet_limit_replicas_seen", "Of them, those that exchange counts with this one, with itself.")
	limitKeys     = descriptions.New("fleet_limit_keys", "Keys of which this replica has told the others in its last round.")
	limitErrors   = descriptions.New("fleet_limit_errors_total", "Questions to other replicas for their counts that were not answered.")
)

// Metrics returns the collector of l.
func (l *Limits) Metrics() prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		if len(l.Limits()) == 0 {
			return
		}
		standing := l.Fleet.Standing()
		l.mu.Lock()
		defer l.mu.Unlock()
		keys := 0
		for _, counts := range l.last().limits {
			keys += len(counts)
		}
		s.Gauge(limitReplicas, float64(standing.Replicas))
		s.Gauge(limitSeen, float64(standing.Seen))
		s.Gauge(limitKeys, float64(keys))
		s.Counter(limitErrors, l.failures)
	})
}
