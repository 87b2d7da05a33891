package healthcheck

import (
	"container/heap"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/bench/quality/scenario"
	"sluice/discovery"
	"sluice/test/long"
	"sluice/test/verify"
)

// answer is the end of an attempt in a run.
type answer struct {
	at      time.Duration
	request scenario.Request
	token   balancer.Token
	failed  bool
}

type answersByTime []answer

func (a answersByTime) Len() int           { return len(a) }
func (a answersByTime) Less(i, j int) bool { return a[i].at < a[j].at }
func (a answersByTime) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *answersByTime) Push(x any)        { *a = append(*a, x.(answer)) }
func (a *answersByTime) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// ran is what the requests of a run got.
type ran struct {
	latencies []time.Duration // after the warm-up, sorted
	failed    int
	ejections int
}

func (r *ran) quantile(q float64) time.Duration { return r.latencies[int(q*float64(len(r.latencies)))] }

// run sends the requests of a scenario to peers, of which the last one fails so many requests in
// ten.
func run(t *testing.T, s *scenario.Scenario, settings Settings, failsInTen uint64) (r ran) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(100 * 365 * 24 * time.Hour) // latencies are measured only after the start of the process
		f := newFixture(t, settings, Options{})
		defer f.close()
		f.options.Policy = balancer.PolicyEWMA
		f.reconfigure(settings)
		f.Apply(instances(len(s.Peers)))
		synctest.Wait()
		numbers := make(map[discovery.Key]int)
		free := make([][]time.Duration, len(s.Peers)) // when each slot is free
		for i, p := range s.Peers {
			free[i], numbers[instance(i).Key()] = make([]time.Duration, p.Slots), i
		}
		begin := time.Now()
		var pending answersByTime
		until := func(at time.Duration) {
			for len(pending) > 0 && pending[0].at <= at {
				a := heap.Pop(&pending).(answer)
				time.Sleep(a.at - time.Since(begin))
				latency := a.at - a.request.At
				o := balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: latency}
				if a.failed {
					o = balancer.Outcome{Class: balancer.OutcomeServerError, Status: 500, Latency: latency}
				}
				a.token.Done(o)
				if a.request.At < s.WarmUp {
					continue
				}
				if a.failed {
					r.failed++
				}
				r.latencies = append(r.latencies, latency)
			}
			time.Sleep(at - time.Since(begin))
		}
		for _, request := range s.Requests() {
			until(request.At)
			token, err := f.Pick(nil)
			verify.Require(t, err == nil, "no peer: %v", err)
			i := numbers[token.Peer.ID]
			slot := slices.Index(free[i], slices.Min(free[i]))
			end := s.Peers[i].End(max(free[i][slot], request.At), request.Work)
			free[i][slot] = end
			failed := i == len(s.Peers)-1 && request.Number%10 < failsInTen
			heap.Push(&pending, answer{end, request, token, failed})
		}
		until(time.Hour)
		for _, n := range f.checker.Stats().Ejections {
			r.ejections += int(n)
		}
	})
	slices.Sort(r.latencies)
	return r
}

// Loss of weight pays: fewer requests fail where one peer fails some, late answers are hardly later
// where peers are of different speed, and nothing changes where all are equal. docs/health.md has
// the figures of long runs.
func TestGradedLossInScenarios(t *testing.T) {
	long.Sequential(t)
	all := scenario.All(1, scenario.Short, scenario.Exponential)
	on := comparing()
	on.Passive.Interval = time.Second
	off := on
	off.Passive.SuccessRate, off.Passive.Latency = nil, nil
	compare := func(name string, failsInTen uint64) (without, with ran) {
		i := slices.IndexFunc(all, func(s scenario.Scenario) bool { return s.Name == name })
		without, with = run(t, &all[i], off, failsInTen), run(t, &all[i], on, failsInTen)
		for what, r := range map[string]ran{"without": without, "with": with} {
			t.Logf("%s, %d fail in 10, %s: p50 %v, p99 %v, p99.9 %v, %d of %d failed, %d ejections", name, failsInTen, what,
				r.quantile(.5), r.quantile(.99), r.quantile(.999), r.failed, len(r.latencies), r.ejections)
		}
		return without, with
	}
	without, with := compare("equal", 0)
	p99, want := with.quantile(.99), without.quantile(.99)
	verify.That(t, p99 < want*21/20 && with.ejections == 0, "equal peers: p99 %v and %d ejections, without comparisons %v", p99, with.ejections, want)
	without, with = compare("equal", 3)
	verify.That(t, with.failed*2 < without.failed, "%d requests failed, without comparisons %d", with.failed, without.failed)
	without, with = compare("speeds", 0)
	p99, want = with.quantile(.99), without.quantile(.99)
	verify.That(t, p99 < want*11/10, "peers of different speed: p99 %v, without comparisons %v", p99, want)
}
