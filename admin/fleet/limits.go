package fleet

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/config/routes"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/route/ratelimit"
)

const (
	// listEvery is the time between two queries to Consul who the replicas are.
	listEvery = 5 * time.Second
	// countsTimeout limits how long a replica may take to tell its counts.
	countsTimeout = ratelimit.Round / 2
	// seenFor is how long a replica that does not answer is seen: with its last counts.
	seenFor = 3 * ratelimit.Round
	// adoptEvery is the least time between two seeds of others that are adopted: each makes all
	// buckets full.
	adoptEvery = 10 * time.Second
	// loggedAfter is how long a change must last before it is logged.
	loggedAfter = 5 * ratelimit.Round
	// maxOthers is how many other replicas are asked.
	maxOthers = 256
)

// LimitsOptions configure Limits. All must be set.
type LimitsOptions struct {
	// Limits returns the limits that the replicas keep together.
	Limits func() []routes.FleetLimit
	// Name returns the name of this replica for others.
	Name func() string
	// Survey returns who the replicas are and how they are asked, by the configuration in use;
	// false: sluice is not registered.
	Survey func() (Survey, bool)
	Log    zerolog.Logger
}

// Limits exchanges counts with the other replicas, so that all of them keep rate limits together:
// in each round, it asks each other replica what it has counted. Without limits of that kind it
// asks nobody. Who is a replica comes from Consul; if Consul does not answer, the replicas stay
// that it has listed last, and one that it does not list any more stays while it answers.
//
// A silent replica may still serve, and not see the others either: it keeps 1 / replicas of each
// limit, and the others have the rest. It has none if it is critical in Consul, or nothing listens
// at its address.
type Limits struct {
	LimitsOptions
	Fleet         *ratelimit.Fleet
	process       string
	answersWithin time.Duration // countsTimeout, but in tests

	mu       sync.Mutex      // guards the fields below
	rounds   []counted       // of this replica, the latest ones; the last is never missing
	others   []*otherReplica // listed by Consul
	problem  string          // why others is not known, or may be out of date
	known    bool            // others is
	client   *http.Client
	secret   string
	adopted  time.Time // when the seed of another replica was
	failures uint64    // of questions
	fallback fallback
}

// otherReplica is another replica, as its answers show it.
type otherReplica struct {
	Member
	obstacle string    // why it cannot be asked
	question string    // a URL
	err      error     // of the last question
	answered time.Time // the last time
	process  string    // then
	sequence uint64    // likewise
	ended    time.Time // the round, by the clock of this replica
	seed     ratelimit.Seed
	fresh    bool // its counts are not applied yet
	limits   map[string][]ratelimit.Count
}

// NewLimits returns Limits for which Run and Follow must be called.
func NewLimits(o LimitsOptions) *Limits {
	var process [8]byte
	rand.Read(process[:])
	seed := newSeed(time.Now())
	copy(seed[:], joining)
	return &Limits{
		LimitsOptions: o, Fleet: ratelimit.NewFleet(seed), process: hex.EncodeToString(process[:]), rounds: []counted{{ended: time.Now(), seed: seed}},
		answersWithin: countsTimeout,
	}
}

// joining begins the seed of a process that does not know yet whether others have one. Nobody
// adopts it: so one that joins adopts that of the others, whatever its clock says, and does not
// make all buckets full.
const joining = "\xff\xff\xff\xff\xff\xff"

func isJoining(s ratelimit.Seed) bool { return string(s[:len(joining)]) == joining }

// newSeed returns a random seed. The one of an earlier time is smaller. Where replicas have
// several, they adopt the smallest.
func newSeed(now time.Time) (s ratelimit.Seed) {
	binary.BigEndian.PutUint64(s[:], uint64(now.UnixMilli())<<16)
	rand.Read(s[6:])
	return s
}

// Follow keeps the list of replicas up to date until ctx ends.
func (l *Limits) Follow(ctx context.Context) {
	every, last := time.NewTicker(ratelimit.Round), time.Time{}
	defer every.Stop()
	defer l.forget()
	for {
		switch {
		case len(l.Limits()) == 0:
			l.forget()
			last = time.Time{}
		case time.Since(last) >= listEvery:
			l.list(ctx)
			last = time.Now()
		}
		if wake.Await(ctx, every.C) != nil {
			return
		}
	}
}

// forget forgets the others.
func (l *Limits) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others, l.known, l.problem = nil, false, ""
	l.use(nil, "")
}

// use replaces the client. mu must be held.
func (l *Limits) use(client *http.Client, secret string) {
	if l.client != nil {
		l.client.CloseIdleConnections()
	}
	l.client, l.secret = client, secret
}

func (l *Limits) list(ctx context.Context) {
	survey, registered := l.Survey()
	if !registered {
		l.forget()
		l.fail("consul.register is not configured")
		return
	}
	secret, secretErr := survey.secret()
	verified, tlsErr := survey.TLS()
	if err := cmp.Or(secretErr, tlsErr); err != nil {
		l.fail(err.Error())
		return
	}
	self := survey.Self()
	l.prepare(survey.client(verified, l.answersWithin), verified != nil, secret)
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	members, err := survey.members(ctx, self)
	if err != nil {
		l.fail(err.Error())
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var others []*otherReplica
	for _, m := range members {
		if m.Self || m.Duplicate || m.replica == "" {
			continue
		}
		o := &otherReplica{Member: m, obstacle: m.obstacle(verified != nil)}
		for _, before := range l.others {
			if before.replica == m.replica && before.Admin == m.Admin {
				*o = *before
				o.Member, o.obstacle = m, m.obstacle(verified != nil)
			}
		}
		if len(others) >= maxOthers {
			o.obstacle = fmt.Sprintf("more than %d replicas", maxOthers)
		}
		others = append(others, o)
	}
	l.others, l.known, l.problem = append(others, l.unlisted(others)...), true, ""
}

// prepare says how the others are asked from now on, also those of the state of an old process,
// before Consul answers.
func (l *Limits) prepare(client *http.Client, verified bool, secret string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.use(client, secret)
	for _, o := range l.others {
		if o.obstacle == notAsked {
			o.obstacle = o.Member.obstacle(verified)
		}
	}
}

// unlisted returns those of the others that are not listed any more, but still answer: Consul may
// have lost its state, and who stops finishes its requests. mu must be held.
func (l *Limits) unlisted(listed []*otherReplica) (others []*otherReplica) {
	for _, o := range l.others {
		again := slices.ContainsFunc(listed, func(l *otherReplica) bool { return l.replica == o.replica })
		if !again && o.missing(time.Now(), o.seed) == "" {
			o.Status = unregistered
			others = append(others, o)
		}
	}
	return others[:min(maxOthers, len(others))]
}

func (l *Limits) fail(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problem = why
}

// Run exchanges counts until ctx ends.
func (l *Limits) Run(ctx context.Context) {
	wake.Every(ctx, ratelimit.Round, func() { l.round(ctx) })
}

// round counts, asks the others, and applies what they have counted.
func (l *Limits) round(ctx context.Context) {
	limits := l.Limits()
	own := counted{ended: time.Now(), seed: l.Fleet.Standing().Seed, limits: make(map[string][]ratelimit.Count, len(limits))}
	for _, limit := range limits {
		own.limits[limit.ID] = limit.Collect(own.ended, min(maxKeys, max(1, maxAllKeys/len(limits))))
	}
	l.publish(own)
	if len(limits) > 0 {
		l.askAll(ctx)
	}
	now := time.Now()
	reports := l.conclude(now, len(limits) > 0)
	if l.Fleet.Standing().Seed != own.seed {
		return // these hashes are those of another one
	}
	for _, limit := range limits {
		limit.Apply(now, own.limits[limit.ID], reports[limit.ID])
	}
}

func (l *Limits) publish(own counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own.sequence = l.last().sequence + 1
	l.rounds = append(l.rounds[max(0, len(l.rounds)+1-keptRounds):], own)
}

// last returns the counts of the last round. mu must be held.
func (l *Limits) last() counted {
	return l.rounds[len(l.rounds)-1]
}

// askAll asks the others that can be asked, all at the same time.
func (l *Limits) askAll(ctx context.Context) {
	others, client, secret := l.askable()
	var questions sync.WaitGroup
	for _, o := range others {
		questions.Go(func() {
			defer panics.Contain(panics.Task, nil)
			var c Counts
			err := ask(ctx, client, o.question, secret, o.replica, maxCountsBytes, &c)
			l.answer(o, c, err)
		})
	}
	questions.Wait()
}

// askable returns whom to ask, and how.
func (l *Limits) askable() (others []*otherReplica, client *http.Client, secret string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.others {
		if o.obstacle == "" {
			o.question = fmt.Sprintf("%s/api/limits/counts?process=%s&after=%d", o.Admin, url.QueryEscape(o.process), o.sequence)
			others = append(others, o)
		}
	}
	return others, l.client, l.secret
}

// answer notes the answer of o, or why there is none.
func (l *Limits) answer(o *otherReplica, c Counts, err error) {
	seed, seedErr := parseSeed(c.Seed)
	err = cmp.Or(err, seedErr)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.err = err; err != nil {
		l.failures++
		return
	}
	o.answered = now
	if o.process == c.Process && o.sequence == c.Sequence && o.seed == seed {
		return
	}
	o.process, o.sequence, o.seed, o.fresh = c.Process, c.Sequence, seed, true
	o.ended = now.Add(-time.Duration(max(0, min(c.AgeMS, seenFor.Milliseconds()))) * time.Millisecond)
	o.limits = make(map[string][]ratelimit.Count)
	for id, counts := range c.Limits {
		o.limits[id] = decode(counts)
	}
}

const notAsked = "not asked yet"

// missing returns why o is not seen; "": it is.
func (o *otherReplica) missing(now time.Time, seed ratelimit.Seed) string {
	switch {
	case o.obstacle != "":
		return o.obstacle
	case o.err != nil && (o.answered.IsZero() || errors.Is(o.err, errRefused) || now.Sub(o.answered) > seenFor):
		return o.err.Error()
	case o.answered.IsZero():
		return notAsked
	// A replica without limits asks nobody, and joins when it has some.
	case o.seed != seed && !(isJoining(o.seed) && len(o.limits) == 0):
		return "its hashes of keys have another seed: one of both adopts the other's"
	}
	return ""
}

// gone reports whether o, which is not seen, has no requests either.
func (o *otherReplica) gone() bool {
	return o.Status == "critical" || o.Status == unregistered || errors.Is(o.err, errRefused)
}

// conclude sets the standing of the fleet, and returns the reports of the replicas that are seen,
// by id of the limit. used says that there are limits.
func (l *Limits) conclude(now time.Time, used bool) map[string][]ratelimit.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	standing, reports := ratelimit.Standing{Seed: l.seed(now), Replicas: 1, Seen: 1}, make(map[string][]ratelimit.Report)
	var why []string
	if !l.known {
		why = append(why, cmp.Or(l.problem, "the replicas are not known yet"))
	}
	for _, o := range l.others {
		missing := o.missing(now, standing.Seed)
		switch {
		case missing == "":
			standing.Replicas, standing.Seen = standing.Replicas+1, standing.Seen+1
			for id, counts := range o.limits {
				reports[id] = append(reports[id], ratelimit.Report{Counts: counts, Age: now.Sub(o.ended), Fresh: o.fresh})
			}
			o.fresh = false
		case !o.gone():
			standing.Replicas++
			why = append(why, o.Name+": "+missing)
		}
	}
	if !used {
		why = nil
	}
	l.fallback.turn(now, why, standing, l.Log)
	if standing != l.Fleet.Standing() {
		l.Fleet.Set(standing)
	}
	return reports
}

// seed returns the seed of the hashes from now on. mu must be held.
func (l *Limits) seed(now time.Time) ratelimit.Seed {
	seed := l.Fleet.Standing().Seed
	if now.Sub(l.adopted) < adoptEvery {
		return seed
	}
	smallest, asked := seed, l.known
	for _, o := range l.others {
		missing := o.missing(now, o.seed)
		asked = asked && missing != notAsked
		if missing == "" && !isJoining(o.seed) && bytes.Compare(o.seed[:], smallest[:]) < 0 {
			smallest = o.seed
		}
	}
	switch {
	case smallest != seed:
		l.adopted = now
	case isJoining(seed) && asked: // nobody has one
		return newSeed(now)
	}
	return smallest
}

// fallback is whether this replica sees all others, and since when.
type fallback struct {
	why    []string // it does not; empty: it does
	since  time.Time
	logged bool // the last that was logged: it does not
}

// turn notes why not all others are seen, and logs changes that last.
func (f *fallback) turn(now time.Time, why []string, s ratelimit.Standing, log zerolog.Logger) {
	missing := len(why) > 0
	if f.since.IsZero() || missing != (len(f.why) > 0) {
		f.since = now
	}
	if f.why = why; missing == f.logged || now.Sub(f.since) < loggedAfter {
		return
	}
	f.logged = missing
	if missing {
		log.Warn().Int("replicas", s.Replicas).Int("seen", s.Seen).Strs("why", why).
			Msg("not all replicas exchange counts of rate limits: those that do have their part of the limits")
		return
	}
	log.Info().Int("replicas", s.Replicas).Msg("all replicas exchange counts of rate limits")
}
