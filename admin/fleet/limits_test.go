package fleet

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/config/routes"
	"sluice/discovery"
	"sluice/route/ratelimit"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// limited is a replica on the host "web1" with one limit of 100 requests per second, and its admin
// API.
type limited struct {
	*Limits
	limit  routes.FleetLimit
	listed []discovery.Instance
	err    error    // of listing
	asked  []string // what its admin API was asked, with the token
}

func newLimited(t *testing.T, name string) (r *limited, instance discovery.Instance) {
	t.Helper()
	r = new(limited)
	r.Limits = NewLimits(LimitsOptions{
		Limits: func() []routes.FleetLimit {
			if r.limit.ID == "" {
				return nil
			}
			return []routes.FleetLimit{r.limit}
		},
		Name: func() string { return name },
		Survey: func() (Survey, bool) {
			s := survey(r.listed...)
			s.Self = func() Replica { return Replica{Replica: name, Host: "web1"} }
			if r.err != nil {
				s.List = func(context.Context) ([]discovery.Instance, error) { return nil, r.err }
			}
			return s, r.listed != nil || r.err != nil
		},
		Log: zerolog.Nop(),
	})
	r.answersWithin = time.Minute          // a machine may stand still
	r.rounds[0].seed = newSeed(time.Now()) // as one that has joined
	r.Fleet.Set(ratelimit.Standing{Seed: r.rounds[0].seed, Replicas: 1, Seen: 1})
	r.limit = routes.FleetLimit{ID: "l", Limiter: ratelimit.NewShared(100, time.Second, 100, r.Fleet)}
	t.Cleanup(r.forget)
	address := replicaAPI(t, func(w http.ResponseWriter, q *http.Request) {
		r.asked = append(r.asked, q.URL.Path+" "+q.Header.Get("Authorization"))
		after, _ := strconv.ParseUint(q.URL.Query().Get("after"), 10, 64)
		_ = json.NewEncoder(w).Encode(r.Counts(q.URL.Query().Get("process"), after))
	})
	return r, listed(name, "web1", address)
}

// takes takes all tokens of a key that there are now.
func (r *limited) takes(key string) (n int) {
	for now := time.Now(); r.limit.Take([]byte(key), now) == 0; n++ {
	}
	return n
}

func TestReplicasExchangeCounts(t *testing.T) {
	a, inA := newLimited(t, "a")
	b, inB := newLimited(t, "b")
	a.listed, b.listed = []discovery.Instance{inA, inB}, []discovery.Instance{inA, inB}
	round := func(r *limited) {
		t.Helper()
		before := len(a.asked) + len(b.asked)
		r.round(t.Context())
		verify.Equal(t, len(a.asked)+len(b.asked), before+1, "questions in a round")
	}
	a.list(t.Context())
	b.list(t.Context())
	consultest.Await(t, "both have the same seed", func() bool {
		round(a)
		round(b)
		return a.Report().Seen == 2 && b.Report().Seen == 2
	})
	verify.That(t, !slices.ContainsFunc(a.asked, func(q string) bool { return strings.Contains(q, testSecret) }), "asked: %q", a.asked)
	verify.Equal(t, a.Fleet.Standing().Seed, b.Fleet.Standing().Seed, "seed")
	report := a.Report()
	verify.That(t, report.Replicas == 2 && report.Part == 1 && !report.Fallback && len(report.Why) == 0 && report.Others[0].Seen && report.Others[0].Name == "b", "got %+v", report)

	taken := a.takes("key")
	verify.That(t, taken >= 50 && taken < 60, "a replica has %d of 100 tokens of a new key", taken)
	round(a)
	key := a.Report().Limits[0].Heaviest[0]
	verify.That(t, key.Share > 0.99 && int(key.Taken) == taken, "got %+v", key)
	hash := verify.Result(strconv.ParseUint(key.Hash, 16, 64)).Must(t)
	round(a) // b has not asked for the round before
	round(b)
	verify.Equal(t, b.limit.Share(hash), 0.25, "share of a replica without requests")
	// The level of b's bucket is that of the fleet, so a quarter of its own is as empty as that.
	taken += b.takes("key")
	verify.That(t, taken <= 80, "%d tokens were taken at both", taken)
}

// Without a limit of the fleet, nobody is asked.
func TestNoLimitNoQuestion(t *testing.T) {
	a, inA := newLimited(t, "a")
	b, inB := newLimited(t, "b")
	a.listed = []discovery.Instance{inA, inB}
	a.list(t.Context())
	a.limit.ID = ""
	a.round(t.Context())
	verify.Equal(t, len(b.asked), 0, "questions")
	report := a.Report()
	verify.That(t, !report.Fallback && len(report.Limits) == 0, "got %+v", report)
}

// Without an answer of another replica, this one has its part. If that one is gone, it has all.
func TestMissingReplicas(t *testing.T) {
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
	}
	end := make(chan struct{})
	defer close(end)
	for _, c := range []struct {
		name     string
		handler  http.HandlerFunc
		change   func(i *discovery.Instance)
		replicas int // that are known; none of the others is seen
		why      string
	}{
		{name: "no JSON", handler: answer("hello"), replicas: 2, why: "not an answer of sluice"},
		{name: "another version", handler: http.NotFound, replicas: 2, why: "404 Not Found"},
		{name: "another secret", handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, replicas: 2, why: "consul.register.replica_token_file"},
		{name: "no seed", handler: answer(`{"replica":"b"}`), replicas: 2, why: "it has no seed"},
		{name: "a long seed", handler: answer(`{"replica":"b","seed":"` + strings.Repeat("0", 34) + `"}`), replicas: 2, why: "it has no seed"},
		{name: "another seed", handler: answer(`{"replica":"b","seed":"` + strings.Repeat("e", 32) + `"}`), replicas: 2, why: "another seed"},
		{name: "too long", handler: answer(`{"replica":"b","process":"` + strings.Repeat("x", 2*maxCountsBytes)), replicas: 2, why: errNoProof.Error()},
		{name: "slow", handler: func(_ http.ResponseWriter, q *http.Request) {
			select {
			case <-end:
			case <-q.Context().Done():
			}
		}, replicas: 2, why: late},
		{name: "nothing listens", handler: answer(""), change: func(i *discovery.Instance) { i.Meta["sluice-admin"] = "127.0.0.1:1" }, replicas: 1},
		{name: "critical", handler: http.NotFound, change: func(i *discovery.Instance) { i.Status = discovery.StatusCritical }, replicas: 1},
		{name: "a stranger", handler: http.NotFound, change: func(i *discovery.Instance) { i.Meta = nil }, replicas: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, inA := newLimited(t, "a")
			if c.why == late {
				a.answersWithin = NewLimits(LimitsOptions{}).answersWithin
			}
			inB := listed("b", "web1", replicaAPI(t, c.handler))
			if c.change != nil {
				c.change(&inB)
			}
			a.listed = []discovery.Instance{inA, inB}
			a.list(t.Context())
			a.round(t.Context())
			report := a.Report()
			verify.That(t, report.Replicas == c.replicas && report.Seen == 1 && report.Part == 1/float64(c.replicas), "got %+v", report)
			verify.That(t, report.Fallback == (c.why != "") && strings.Contains(strings.Join(report.Why, "\n"), c.why), "got %+v, want %q", report, c.why)
			taken := a.takes("key")
			verify.That(t, taken >= 100/c.replicas && taken <= 100/c.replicas+10, "%d tokens", taken)
		})
	}
}

// The replicas stay those that Consul has listed last.
func TestLimitsWithoutConsul(t *testing.T) {
	a, inA := newLimited(t, "a")
	b, inB := newLimited(t, "b")
	a.err = errors.New("refused")
	a.list(t.Context())
	a.round(t.Context())
	report := a.Report()
	verify.That(t, report.Fallback && report.Part == 1 && slices.Equal(report.Why, []string{"refused"}) && report.Consul == "refused", "got %+v", report)
	a.err, a.listed = nil, []discovery.Instance{inA, inB}
	a.list(t.Context())
	b.adopt(a)
	a.round(t.Context())
	a.err = errors.New("refused")
	a.list(t.Context())
	a.round(t.Context())
	report = a.Report()
	verify.That(t, !report.Fallback && report.Seen == 2 && report.Consul == "refused", "got %+v", report)
	a.err, a.listed = nil, nil
	a.list(t.Context())
	a.round(t.Context())
	report = a.Report()
	verify.That(t, report.Fallback && report.Replicas == 1 && strings.Contains(report.Why[0], "consul.register"), "got %+v", report)
}

// A replica that Consul has lost is one while it answers.
func TestLimitsAfterLossInConsul(t *testing.T) {
	a, inA := newLimited(t, "a")
	b, inB := newLimited(t, "b")
	a.listed = []discovery.Instance{inA, inB}
	b.adopt(a)
	a.list(t.Context())
	a.round(t.Context())
	a.listed = []discovery.Instance{}
	for range 2 {
		a.list(t.Context())
		a.round(t.Context())
		verify.Equal(t, a.Fleet.Standing().Seen, 2, "replicas that are seen")
	}
	a.others[0].Admin = "127.0.0.1:1"
	a.round(t.Context())
	verify.That(t, a.Fleet.Standing().Replicas == 1 && !a.Report().Fallback, "got %+v", a.Report())
	a.list(t.Context())
	verify.Equal(t, len(a.others), 0, "other replicas")
}

// A new process begins with the replicas and the seed of the old one, and asks them before Consul
// answers.
func TestLimitsOfAnOldProcess(t *testing.T) {
	a, inA := newLimited(t, "a")
	b, inB := newLimited(t, "b")
	verify.That(t, a.Save() == nil, "a state without knowledge of the others")
	a.listed = []discovery.Instance{inA, inB}
	b.adopt(a)
	a.list(t.Context())
	a.round(t.Context())
	text := verify.Result(json.Marshal(a.Save())).Must(t)
	var state *LimitsState
	verify.NoError(t, json.Unmarshal(text, &state))

	next, _ := newLimited(t, "a")
	next.Restore(state)
	verify.Equal(t, next.Fleet.Standing(), a.Fleet.Standing(), "what the new process knows")
	taken := next.takes("key")
	verify.That(t, taken >= 50 && taken < 60, "the new process has %d of 100 tokens", taken)
	next.round(t.Context())
	verify.Equal(t, next.Fleet.Standing().Replicas, 2, "replicas")
	next.err = errors.New("refused")
	next.list(t.Context())
	next.round(t.Context())
	report := next.Report()
	verify.That(t, report.Seen == 2 && !report.Fallback && report.Consul == "refused", "got %+v", report)
	verify.DeepEqual(t, next.Save(), a.Save(), "the state of the new process")

	for _, bad := range []*LimitsState{nil, {}, {Seed: state.Seed, Replicas: 1, Seen: 2}, {Seed: "0", Replicas: 1, Seen: 1}} {
		other, _ := newLimited(t, "a")
		before := other.Fleet.Standing()
		other.Restore(bad)
		verify.Equal(t, other.Fleet.Standing(), before, "after a state that is none")
	}
}

// adopt gives r the seed of another one, and a round with it.
func (r *limited) adopt(other *limited) {
	r.Fleet.Set(other.Fleet.Standing())
	r.limit.ID = "" // it asks nobody
	r.round(context.Background())
	r.limit.ID = "l"
}

// A replica that asks late learns all tokens, and one that asks twice each of them once.
func TestCountsSince(t *testing.T) {
	a, _ := newLimited(t, "a")
	total := 0
	of := func(c Counts) (n uint32) {
		for _, count := range decode(c.Limits["l"]) {
			n += count.Taken
		}
		return n
	}
	for i := range 3 {
		total += a.takes("one") + a.takes(fmt.Sprint(i))
		a.round(t.Context())
	}
	first := a.Counts("", 0)
	verify.That(t, first.Sequence == 3 && of(first) > 0, "got %+v", first)
	verify.Equal(t, of(a.Counts(first.Process, 0)), uint32(total), "tokens of all rounds")
	verify.Equal(t, of(a.Counts(first.Process, 3)), of(first), "tokens of the last round: who asks knows that it has them")
	verify.Equal(t, of(a.Counts("another", 0)), of(first), "tokens of the last round")
}

func TestDecode(t *testing.T) {
	good := []ratelimit.Count{{Hash: 1, Taken: 2, Asked: 3, Debt: -4}, {Hash: math.MaxUint64, Taken: math.MaxUint32, Asked: math.MaxFloat32, Debt: math.MaxFloat32}}
	verify.That(t, slices.Equal(decode(encode(good)), good), "got %+v", decode(encode(good)))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	bad := []ratelimit.Count{{Asked: nan}, {Asked: inf}, {Asked: -1}, {Debt: nan}, {Debt: -inf}}
	verify.Equal(t, len(decode(encode(bad))), 0, "counts that are no numbers")
	verify.Equal(t, len(decode(encode(make([]ratelimit.Count, 2*maxKeys)))), maxKeys, "counts")
	verify.Equal(t, len(decode("!")), 0, "counts in what is no base64")
	verify.Equal(t, len(decode(base64.StdEncoding.EncodeToString(make([]byte, countBytes+1)))), 1, "counts in bytes with a rest")
}

// The log has each change that lasts, once.
func TestFallbackIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	var f fallback
	now := time.Now()
	for _, step := range []struct {
		rounds int
		why    []string
		lines  int // in the log, after it
	}{{10, nil, 0}, {3, []string{"b"}, 0}, {10, nil, 0}, {100, []string{"b"}, 1}, {3, nil, 1}, {100, []string{"c"}, 1}, {100, nil, 2}} {
		for range step.rounds {
			now = now.Add(ratelimit.Round)
			f.turn(now, step.why, ratelimit.Standing{Replicas: 2, Seen: 1}, zerolog.New(&log))
		}
		verify.Equal(t, strings.Count(log.String(), "\n"), step.lines, "after %+v:\n%s", step, &log)
	}
}

// The oldest seed of all is adopted, and not one after the other without a pause.
func TestSeeds(t *testing.T) {
	now := time.Now()
	older, old := newSeed(now.Add(-time.Hour)), newSeed(now.Add(-time.Minute))
	verify.That(t, bytes.Compare(older[:], old[:]) < 0, "%x is not below %x", older, old)
	a, _ := newLimited(t, "a")
	a.others = []*otherReplica{{Member: Member{Name: "b"}, answered: now, seed: old}}
	a.known = true
	a.conclude(now, true)
	verify.Equal(t, a.Fleet.Standing().Seed, old, "seed")
	a.others[0].seed = older
	a.conclude(now.Add(adoptEvery/2), true)
	verify.Equal(t, a.Fleet.Standing().Seed, old, "seed right after another one")
	a.conclude(now.Add(adoptEvery), true)
	verify.Equal(t, a.Fleet.Standing().Seed, older, "seed")
}

// A process that starts adopts the seed of those that are there, and they do not adopt its own,
// whatever the clocks say.
func TestSeedOfAProcessThatJoins(t *testing.T) {
	now := time.Now()
	start := func() *Limits {
		return NewLimits(LimitsOptions{Name: func() string { return "" }, Limits: func() []routes.FleetLimit { return nil }, Log: zerolog.Nop()})
	}
	seedOf := func(l *Limits) ratelimit.Seed { return l.Fleet.Standing().Seed }
	a, b := start(), start()
	first := seedOf(a)
	told := verify.Result(parseSeed(a.Counts("", 0).Seed)).Must(t)
	verify.Equal(t, told, first, "the seed that others hear before the first round")
	a.conclude(now, true)
	verify.Equal(t, seedOf(a), first, "the seed before the replicas are known")
	a.known, a.others = true, []*otherReplica{{Member: Member{Name: "b"}}}
	a.conclude(now, true)
	verify.Equal(t, seedOf(a), first, "the seed before the other one was asked")
	a.others = nil
	a.conclude(now, true)
	there := seedOf(a)
	verify.That(t, there != first, "the seed of a replica that is the only one is that of one that joins")
	a.conclude(now, true)
	verify.Equal(t, seedOf(a), there, "its seed later")

	for _, ahead := range []time.Duration{-time.Hour, 0, time.Hour} { // the clock of the fleet
		there, b, c := newSeed(now.Add(ahead)), start(), start()
		joining := seedOf(b)
		b.known, b.others = true, []*otherReplica{{Member: Member{Name: "a"}, answered: now, seed: there}, {Member: Member{Name: "c"}, answered: now, seed: seedOf(c)}}
		b.conclude(now, true)
		verify.Equal(t, seedOf(b), there, "the seed of the process that joins; the fleet's clock is ahead by %s", ahead)
		c.Fleet.Set(ratelimit.Standing{Seed: there, Replicas: 1, Seen: 1})
		c.known, c.others = true, []*otherReplica{{Member: Member{Name: "b"}, answered: now, seed: joining}}
		c.conclude(now, true)
		verify.Equal(t, seedOf(c), there, "the seed of the fleet when it joins; the fleet's clock is ahead by %s", ahead)
	}

	// One that has no limits asks nobody, so it has no other seed. With limits, its hashes are not
	// those of the others.
	idle := &otherReplica{Member: Member{Name: "d"}, answered: now, seed: seedOf(start())}
	verify.Equal(t, idle.missing(now, there), "", "why a replica without limits is not seen")
	idle.limits = map[string][]ratelimit.Count{"l": nil}
	verify.That(t, idle.missing(now, there) != "", "a replica with limits and another seed is seen")

	// Of several that start at the same time, all have the seed of one in the end.
	b.known, b.others = true, []*otherReplica{{Member: Member{Name: "c"}, answered: now, seed: seedOf(start())}}
	b.conclude(now, true)
	c := start()
	c.known, c.others = true, []*otherReplica{{Member: Member{Name: "b"}, answered: now, seed: seedOf(b)}}
	c.conclude(now, true)
	verify.Equal(t, seedOf(c), seedOf(b), "the seed of another one that starts")
}
