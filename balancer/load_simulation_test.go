package balancer

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/long"
	"sluice/test/verify"
)

// loadSimulation sends requests through real pools, in a bubble, to peers that report their utilization in each answer.
type loadSimulation struct {
	policy    Policy
	speeds    []float64 // of peers, with four workers each
	replicas  int
	busy      float64       // part of the capacity in use
	averaged  time.Duration // a report is the average of this time
	delay     time.Duration // and that old
	reports   bool
	duration  time.Duration
	seed      uint64
	deviation float64 // of service times, at most, from their mean
	byWorkers bool    // a faster peer has more workers, not faster ones
}

type loadResult struct {
	excess  float64 // highest utilization in relation to the mean, in the second half
	swing   float64 // highest factor of a peer in the second half in relation to its lowest, over all peers and replicas
	settled int     // when, in seconds, ten seconds with an excess of at most 1.1 begin; -1: never
	p99     time.Duration
}

type loadJob struct {
	at    time.Duration
	start time.Duration
	peer  int
	token Token
}

type loadJobs []loadJob

func (e loadJobs) Len() int           { return len(e) }
func (e loadJobs) Less(i, j int) bool { return e[i].at < e[j].at }
func (e loadJobs) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *loadJobs) Push(x any)        { *e = append(*e, x.(loadJob)) }
func (e *loadJobs) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

const loadBin = 100 * time.Millisecond

func (s loadSimulation) run(t *testing.T) (r loadResult) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(epoch) + time.Hour) // nanotime counts from there
		random := rand.New(rand.NewPCG(s.seed, 7))
		var set []discovery.Instance
		free := make([][]time.Duration, len(s.speeds))
		capacity := 0.
		const service = 40 * time.Millisecond
		each := make([]time.Duration, len(s.speeds))
		for i, speed := range s.speeds {
			set = append(set, instance(i, 1))
			workers := 4
			each[i] = time.Duration(float64(service) / speed)
			if s.byWorkers {
				workers, each[i] = int(4*speed), service
			}
			free[i] = make([]time.Duration, workers)
			capacity += float64(workers) / each[i].Seconds()
		}
		pools := make([]*Pool, s.replicas)
		index := make(map[*Peer]int)
		for i := range pools {
			seeded := rand.New(rand.NewPCG(s.seed, uint64(i)+100))
			pools[i] = newTestPool(t, Options{Policy: s.policy, ReportedLoad: s.reports, Random: seeded.Uint64})
			defer pools[i].Close()
			pools[i].Apply(set)
			for _, p := range pools[i].Snapshot().All {
				index[p] = slices.IndexFunc(set, func(j discovery.Instance) bool { return j.Key() == p.ID })
			}
		}
		bins := int(s.duration/loadBin) + 100
		busy := make([][]float64, len(s.speeds)) // seconds of workers, by time
		for i := range busy {
			busy[i] = make([]float64, bins)
		}
		work := func(peer int, from, to time.Duration) {
			for from < to {
				b := int(from / loadBin)
				end := min(to, time.Duration(b+1)*loadBin)
				if b < bins {
					busy[peer][b] += (end - from).Seconds()
				}
				from = end
			}
		}
		average := func(peer int, from, to time.Duration) float64 {
			a, b := max(int(from/loadBin), 0), int(to/loadBin)
			if b <= a {
				return 0
			}
			sum := 0.
			for _, v := range busy[peer][a:b] {
				sum += v
			}
			return sum / (float64(b-a) * loadBin.Seconds() * float64(len(free[peer])))
		}
		began := time.Now()
		until := func(at time.Duration) { time.Sleep(at - time.Since(began)) }
		var pending loadJobs
		var latencies []time.Duration
		end := func() {
			j := heap.Pop(&pending).(loadJob)
			until(j.at)
			if s.reports {
				published := (j.at - s.delay).Truncate(time.Second)
				if u := average(j.peer, published-s.averaged, published); u > 0 {
					j.token.Peer.ReportLoad(u)
				}
			}
			j.token.Done(Outcome{Latency: j.at - j.start})
			if j.start > s.duration/2 {
				latencies = append(latencies, j.at-j.start)
			}
		}
		type span struct{ least, most float64 }
		spans := make(map[*Peer]span)
		next := s.duration / 2
		for now := time.Duration(0); now < s.duration; {
			now += time.Duration(random.ExpFloat64() / (capacity * s.busy) * float64(time.Second))
			for len(pending) > 0 && pending[0].at <= now {
				end()
			}
			until(now)
			if now > next {
				next += time.Second
				for p := range index {
					by, _ := p.Factor(FactorLoad)
					v, known := spans[p]
					if !known {
						v = span{by, by}
					}
					spans[p] = span{min(v.least, by), max(v.most, by)}
				}
			}
			token, err := pools[random.IntN(s.replicas)].Pick(nil)
			verify.Require(t, err == nil, "pick: %v", err)
			i := index[token.Peer]
			w := slices.Index(free[i], slices.Min(free[i]))
			begin := max(now, free[i][w])
			took := time.Duration(float64(each[i]) * (1 + s.deviation*(2*random.Float64()-1)))
			free[i][w] = begin + took
			work(i, begin, begin+took)
			heap.Push(&pending, loadJob{begin + took, now, i, token})
		}
		for len(pending) > 0 {
			end()
		}
		excess := func(from, to time.Duration) float64 {
			sum, most := 0., 0.
			for i := range s.speeds {
				u := average(i, from, to)
				sum, most = sum+u, max(most, u)
			}
			return most / (sum / float64(len(s.speeds)))
		}
		r.excess = excess(s.duration/2, s.duration)
		r.settled = -1
		for at := time.Duration(0); at+10*time.Second <= s.duration && r.settled < 0; at += 10 * time.Second {
			if excess(at, at+10*time.Second) <= 1.1 {
				r.settled = int(at / time.Second)
			}
		}
		for _, v := range spans {
			r.swing = max(r.swing, v.most/v.least)
		}
		slices.Sort(latencies)
		r.p99 = latencies[len(latencies)*99/100]
	})
	return r
}

func mixedSpeeds(n int) []float64 {
	speeds := make([]float64, n)
	for i := range speeds {
		speeds[i] = []float64{1, 2, 4}[i%3]
	}
	return speeds
}

func (r loadResult) String() string {
	return fmt.Sprintf("%.3f of the mean, p99 %v, settled after %d s", r.excess, r.p99, r.settled)
}

// With peers of speeds 1 : 2 : 4 and equal weights, the default policy gives each the same utilization when they report it, however
// many replicas there are, each of which sees its own requests only, and however late the reports are: docs/balancing.md has the table.
func TestReportedLoadEvensUtilization(t *testing.T) {
	type world struct {
		peers, replicas int
		busy            float64
		averaged, delay time.Duration
		byWorkers       bool
	}
	worlds := []world{{10, 1, .6, time.Second, time.Second, true}, {10, 20, .3, 5 * time.Second, 5 * time.Second, false}}
	duration := long.Count(t, 120*time.Second, 240*time.Second)
	if long.All() {
		worlds = nil
		for _, peers := range []int{10, 40} {
			for _, replicas := range []int{1, 5, 20} {
				for _, busy := range []float64{.3, .6, .85} {
					w := world{peers, replicas, busy, time.Second, time.Second, len(worlds)%2 == 0}
					if len(worlds)%4 >= 2 {
						w.averaged, w.delay = 10*time.Second, 5*time.Second
					}
					worlds = append(worlds, w)
				}
			}
		}
	}
	for i, w := range worlds {
		s := loadSimulation{
			policy: PolicyEWMA, speeds: mixedSpeeds(w.peers), replicas: w.replicas, busy: w.busy, averaged: w.averaged, delay: w.delay,
			byWorkers: w.byWorkers, duration: duration, seed: uint64(i), deviation: .1,
		}
		without := s.run(t)
		s.reports = true
		with := s.run(t)
		kind := "faster"
		if w.byWorkers {
			kind = "more workers"
		}
		t.Logf("| %d | %d | %.0f %% | %s | %v, %v | %.2f | %.3f | %.0f ms, %.0f ms |", w.peers, w.replicas, w.busy*100, kind, w.averaged, w.delay,
			without.excess, with.excess, without.p99.Seconds()*1000, with.p99.Seconds()*1000)
		verify.That(t, with.excess <= 1.05, "%+v: highest utilization %v", w, with)
		verify.That(t, with.swing <= 2, "%+v: a factor swings by %.2f", w, with.swing)
	}
}
