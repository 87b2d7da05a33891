package balancer

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bench/quality/scenario"
	"sluice/test/long"
	"sluice/test/verify"
)

// chooser is one replica of a load balancer in a scenario: sluice's own picker, or a model of
// another one.
type chooser interface {
	pick(now time.Duration, r *scenario.Request) int
	done(peer int, a *answered)
}

// answered is what a chooser learns when an exchange has ended.
type answered struct {
	route   int
	start   time.Duration // of the pick
	latency time.Duration // until the head of the answer
	end     time.Duration // of the exchange
	class   OutcomeClass
}

// rival is a load balancer to simulate.
type rival struct {
	name string
	new  func(peers []scenario.Peer, random *rand.Rand) chooser // returns one replica
	// forgets says that a reload begins with a new process or new state.
	forgets bool
}

// score is the result of a scenario for the first route, in seconds from intent. A failed request
// takes forever.
type score struct {
	p50, p99, p999 float64
	failed         float64 // share of the requests that got no right answer
	least, most    float64 // of its due, which a sound peer got in five seconds; see scenario.Shares
}

func scoreOf(latencies []float64, all int) score {
	slices.Sort(latencies)
	at := func(q float64) float64 { return latencies[min(int(q*float64(len(latencies))), len(latencies)-1)] }
	failed := 0
	for _, l := range latencies {
		if math.IsInf(l, 1) {
			failed++
		}
	}
	return score{p50: at(.5), p99: at(.99), p999: at(.999), failed: float64(failed) / float64(all)}
}

// flight is a request on its way.
type flight struct {
	answered
	by   chooser
	peer int
}

func (f *flight) over() time.Duration { return f.end }

// atOnce is the latency of an answer that needs no work.
const atOnce = 500 * time.Microsecond

// play simulates a scenario, in virtual time.
func play(s *scenario.Scenario, requests []scenario.Request, by rival) score {
	free := make([][]time.Duration, len(s.Peers)) // when each slot is free
	for i := range s.Peers {
		free[i] = make([]time.Duration, s.Peers[i].Slots)
	}
	replicas := make([]chooser, s.Replicas)
	begin := func(seed uint64) {
		for i := range replicas {
			replicas[i] = by.new(s.Peers, rand.New(rand.NewPCG(s.Seed+seed, uint64(i))))
		}
	}
	begin(0)
	var latencies []float64
	var pending soonest[*flight]
	all := 0
	reload := s.Reload
	picks, starts := make([][]time.Duration, len(s.Peers)), make([]int, len(s.Peers))
	first := make([]time.Duration, len(s.Peers))
	for i := range s.Peers {
		first[i] = s.Peers[i].First
	}
	for i := range requests {
		r := &requests[i]
		for p := range s.Peers {
			if peer := &s.Peers[p]; starts[p] < len(peer.Starts) && r.At >= peer.Starts[starts[p]] {
				starts[p]++
				first[p] = peer.First
				for _, b := range replicas {
					if b, ok := b.(interface{ replace(int) }); ok {
						b.replace(p)
					}
				}
			}
		}
		for len(pending) > 0 && pending[0].end <= r.At {
			f := heap.Pop(&pending).(*flight)
			f.by.done(f.peer, &f.answered)
		}
		if by.forgets && reload > 0 && r.At >= reload {
			begin(1)
			reload = 0
		}
		b := replicas[r.Replica]
		p := b.pick(r.At, r)
		peer := &s.Peers[p]
		f := &flight{by: b, peer: p, answered: answered{route: r.Route, start: r.At}}
		picks[p] = append(picks[p], r.At)
		switch peer.Answer {
		case scenario.Works:
			slot := slices.Index(free[p], slices.Min(free[p]))
			start := max(r.At, free[p][slot])
			free[p][slot] = peer.End(start, r.Work+first[p])
			first[p] = 0
			f.latency = free[p][slot] - r.At
			f.end = free[p][slot] + s.Routes[r.Route].Stream
		default:
			f.latency, f.end = atOnce, r.At+atOnce
			if peer.Answer == scenario.Unavailable {
				f.class = OutcomeServerError
			}
		}
		heap.Push(&pending, f)
		if r.At < s.WarmUp || r.Route >= s.Measured {
			continue
		}
		all++
		if peer.Answer == scenario.Works {
			latencies = append(latencies, f.latency.Seconds())
		} else {
			latencies = append(latencies, math.Inf(1))
		}
	}
	result := scoreOf(latencies, all)
	result.least, result.most = s.Shares(picks)
	return result
}

// bestPossible simulates one central queue that knows the speeds of the peers and what each does.
// It takes the fastest free slot, unless a request would be done earlier in a slot that is not free
// yet.
func bestPossible(s *scenario.Scenario, requests []scenario.Request) score {
	free := make([][]time.Duration, len(s.Peers))
	var changes []time.Duration
	for i := range s.Peers {
		free[i] = make([]time.Duration, s.Peers[i].Slots)
		for _, in := range s.Peers[i].Slowness {
			changes = append(changes, in.To)
		}
	}
	slices.Sort(changes)
	var mean float64
	for _, r := range s.Routes {
		for _, w := range r.Work {
			mean += r.Share * w.Share * float64(w.Mean)
		}
	}
	var latencies []float64
	all := 0
	var queue []*scenario.Request
	planned := make([][]time.Duration, len(free))
	// serve begins what is better begun than kept for a slot that becomes free later. A request
	// that waits for such a slot reserves it against the ones behind it.
	serve := func(now time.Duration) {
		idle := 0
		for i := range free {
			planned[i] = append(planned[i][:0], free[i]...)
			if s.Peers[i].Answer != scenario.Works {
				continue
			}
			for _, at := range free[i] {
				if at <= now && !math.IsInf(s.Peers[i].SlownessAt(now), 1) {
					idle++
				}
			}
		}
		for n := 0; n < len(queue) && idle > 0 && n < 64; n++ {
			peer, slot, done := -1, 0, math.Inf(1)
			for i := range s.Peers {
				if s.Peers[i].Answer != scenario.Works {
					continue
				}
				takes := mean * s.Peers[i].SlownessAt(now)
				for j, at := range planned[i] {
					if d := float64(max(0, at-now)) + takes; d < done {
						peer, slot, done = i, j, d
					}
				}
			}
			if peer < 0 {
				return
			}
			if planned[peer][slot] > now {
				planned[peer][slot] += time.Duration(mean * s.Peers[peer].SlownessAt(now))
				continue
			}
			idle--
			r := queue[n]
			queue = slices.Delete(queue, n, n+1)
			n--
			free[peer][slot] = s.Peers[peer].End(now, r.Work)
			planned[peer][slot] = free[peer][slot]
			if r.At >= s.WarmUp && r.Route < s.Measured {
				all++
				latencies = append(latencies, (free[peer][slot] - r.At).Seconds())
			}
		}
	}
	// next returns when a slot becomes free or a peer changes, after now.
	next := func(now time.Duration) time.Duration {
		at := scenario.Always
		for i := range free {
			for _, f := range free[i] {
				if f > now {
					at = min(at, f)
				}
			}
		}
		if i, _ := slices.BinarySearch(changes, now+1); i < len(changes) {
			at = min(at, changes[i])
		}
		return at
	}
	now := time.Duration(0)
	until := func(end time.Duration) {
		for len(queue) > 0 {
			at := next(now)
			if at > end || at == scenario.Always {
				return
			}
			now = at
			serve(now)
		}
	}
	for i := range requests {
		until(requests[i].At)
		now = requests[i].At
		queue = append(queue, &requests[i])
		serve(now)
	}
	until(scenario.Always - 1)
	return scoreOf(latencies, all)
}

// quality has the results of one scenario: the best possible, and each rival.
type quality struct {
	scenario     scenario.Scenario
	distribution scenario.Distribution
	best         score
	scores       []score
}

// playAll simulates the scenarios with every rival.
func playAll(seed uint64, length scenario.Length, rivals []rival) []quality {
	var all []quality
	for _, d := range []scenario.Distribution{scenario.Exponential, scenario.Constant} {
		for _, s := range scenario.All(seed, length, d) {
			all = append(all, quality{scenario: s, distribution: d, scores: make([]score, len(rivals))})
		}
	}
	turns := make(chan struct{}, 2)
	var running sync.WaitGroup
	for i := range all {
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			q := &all[i]
			requests := q.scenario.Requests()
			q.best = bestPossible(&q.scenario, requests)
			for j := range rivals {
				q.scores[j] = play(&q.scenario, requests, rivals[j])
			}
		})
	}
	running.Wait()
	return all
}

// inMilliseconds formats p50, p99 and p99.9.
func (s score) inMilliseconds() string {
	f := func(seconds float64) string {
		switch {
		case math.IsInf(seconds, 1):
			return "failed"
		case seconds > 10:
			return "over 10 s"
		}
		return fmt.Sprintf("%.0f", seconds*1000)
	}
	text := f(s.p50) + " / " + f(s.p99) + " / " + f(s.p999)
	if s.failed > 0 {
		text += " (" + percent(s.failed) + ")"
	}
	return text
}

func qualityTable(all []quality, rivals []rival) string {
	var b strings.Builder
	b.WriteString("| scenario | best possible |")
	for _, r := range rivals {
		b.WriteString(" " + r.name + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(rivals)) + "\n")
	for _, q := range all {
		fmt.Fprintf(&b, "| %s, %s | %s |", q.scenario.Name, cmp.Or(map[scenario.Distribution]string{scenario.Constant: "± 10 %"}[q.distribution], "exp."), q.best.inMilliseconds())
		for _, s := range q.scores {
			b.WriteString(" " + s.inMilliseconds())
			if q.scenario.LowLoad {
				fmt.Fprintf(&b, ", share %.2f … %.2f", s.least, s.most)
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// nginxAndHAProxy are the indices in rivals of the ones that the pass marks name.
var nginxAndHAProxy = []int{2, 3, 4, 5}

// missed returns which pass marks of bench/quality/results.md the default policy misses.
func (q *quality) missed() (marks []string) {
	for _, p := range []struct {
		name string
		of   func(score) float64
	}{
		{"p50", func(s score) float64 { return s.p50 }},
		{"p99", func(s score) float64 { return s.p99 }},
		{"p99.9", func(s score) float64 { return s.p999 }},
	} {
		got, better, worst := p.of(q.scores[0]), math.Inf(1), 0.
		for _, i := range nginxAndHAProxy {
			better = min(better, p.of(q.scores[i]))
		}
		for _, s := range q.scores[1:] {
			worst = max(worst, p.of(s))
		}
		const clockNoise = .001 // as in bench/quality
		if got > worst+clockNoise {
			marks = append(marks, fmt.Sprintf("%s is the worst of all: %.0f ms, then %.0f ms", p.name, got*1000, worst*1000))
		}
		limit := q.scenario.Limit(p.name)
		if limit > 0 && got > better*limit+clockNoise && !math.IsInf(better, 1) {
			marks = append(marks, fmt.Sprintf("%s is %.0f ms, want at most %.2f x %.0f ms, the better of nginx and HAProxy", p.name, got*1000, limit, better*1000))
		}
	}
	if own := q.scores[0]; q.scenario.LowLoad && (own.least < scenario.LeastShare || own.most > scenario.MostShare) {
		marks = append(marks, fmt.Sprintf("a sound peer got %.2f to %.2f times its due in five seconds", own.least, own.most))
	}
	return marks
}

// TestQuality logs the table of bench/quality/results.md and the pass marks that the default policy
// misses. In each run it checks what holds with a margin.
func TestQuality(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	length, rivals := scenario.Short, rivals()
	if long.All() {
		length = scenario.Long
	}
	all := playAll(1, length, rivals)
	t.Log("\n" + qualityTable(all, rivals))
	for _, q := range all {
		name := fmt.Sprintf("%s, %v", q.scenario.Name, q.distribution)
		for _, m := range q.missed() {
			t.Logf("%s: %s", name, m)
		}
		own, counting := q.scores[0], score{p99: math.Inf(1), p999: math.Inf(1)} // the best of those that count requests
		for _, i := range nginxAndHAProxy[1:] {
			counting.p99, counting.p999 = min(counting.p99, q.scores[i].p99), min(counting.p999, q.scores[i].p999)
		}
		switch q.scenario.Name {
		case "one slow", "one slow, 5 replicas", "cold":
			limit := q.best.p999 + (counting.p999-q.best.p999)/2
			if q.scenario.Name == "cold" && length == scenario.Short {
				limit = counting.p999 // the ten slowest requests are those that find out
			}
			verify.That(t, own.p999 <= limit, "%s: p99.9 is %.3f s, want at most %.3f s", name, own.p999, limit)
		case "unavailable":
			verify.That(t, own.failed < .002, "%s: %.2f %% fail", name, own.failed*100)
		case "wrong":
			verify.That(t, own.failed <= .11, "%s: %.2f %% fail, want about its share of 10 %%", name, own.failed*100)
			continue
		case "endpoints":
			limit := counting.p999 * 1.1
			verify.That(t, own.p999 <= limit, "%s: p99.9 is %.3f s, want at most %.3f s", name, own.p999, limit)
		case "pauses": // nobody knows that a peer has stopped; the table has how it ends
			continue
		}
		if q.scenario.LowLoad {
			verify.That(t, own.least >= scenario.LeastShare && own.most <= scenario.MostShare,
				"%s: a sound peer got %.2f to %.2f times its due in five seconds", name, own.least, own.most)
		}
		verify.That(t, own.p99 <= counting.p99*1.15, "%s: p99 is %.3f s, want at most 1.15 x %.3f s", name, own.p99, counting.p99)
	}
}
