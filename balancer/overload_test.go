package balancer

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/long"
	"sluice/test/verify"
)

// overload is a simulation of a pool with an adaptive limit, in virtual time: requests come at
// random, each peer works on a few of them and queues the others.
type overload struct {
	options  Options
	peers    int // numbered as instance; the last backups of them are in the second tier
	backups  int
	slots    int                              // requests that a peer works on at a time
	service  func(r *rand.Rand) time.Duration // how long it takes
	mean     time.Duration                    // of service
	load     func(at time.Duration) float64   // of the capacity of the first tier
	slowdown func(at time.Duration) float64   // nil: 1
	asks     bool                             // first, by Pool.Sheds
	pauses   bool                             // of 500 ms, of one peer at a time
	duration time.Duration
}

// second is what happened in a second of a simulation.
type second struct {
	refused  [NumCriticalities]int
	answered [2]int          // by tier
	critical []time.Duration // latencies of critical requests
	limits   []int           // of the first tier, from time to time; 0: none
}

type arrival struct {
	Token
	criticality Criticality
}

// work is a request at a peer.
type work struct {
	arrival
	service, ends time.Duration
	peer          int
}

func (w *work) over() time.Duration { return w.ends }

// capacity returns the requests per second that n peers can do.
func (o *overload) capacity(n int) float64 { return float64(n*o.slots) / o.mean.Seconds() }

// run returns the seconds of a simulation. 30 % of the requests are critical, 40 % normal.
func (o overload) run(t *testing.T, seed uint64) []second {
	seconds := make([]second, int(o.duration/time.Second)+1)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 0))
		o.options.Limits.Adaptive, o.options.Random = true, numbers(seed)
		p := newTestPool(t, o.options)
		set := instances(o.peers)
		for i := range set[:o.peers-o.backups] {
			set[i].Tags = []string{"main"}
		}
		p.Apply(set)
		index := make(map[*Peer]int)
		for i, peer := range p.Snapshot().All {
			index[peer] = i
		}
		queues, busy := make([][]*work, o.peers), make([]int, o.peers)
		paused := make([]time.Duration, o.peers)
		var running soonest[*work]
		begin := time.Now()
		now := func() time.Duration { return time.Since(begin) }
		start := func(w *work) {
			busy[w.peer]++
			w.ends = max(now(), paused[w.peer]) + w.service
			heap.Push(&running, w)
		}
		arrives, pause := time.Duration(0), 2*time.Second
		for {
			next := arrives
			if len(running) > 0 {
				next = min(next, running[0].ends)
			}
			if next >= o.duration {
				break
			}
			time.Sleep(next - now())
			s := &seconds[next/time.Second]
			if o.pauses && next >= pause {
				pause += time.Second
				who := random.IntN(o.peers)
				paused[who] = next + 500*time.Millisecond
				for _, w := range running {
					if w.peer == who {
						w.ends += 500 * time.Millisecond
					}
				}
				heap.Init(&running)
				continue
			}
			if next < arrives { // an answer
				w := heap.Pop(&running).(*work)
				w.Done(Outcome{Class: OutcomeOK, Latency: time.Since(w.Picked())})
				s.answered[w.Peer.tier.Load()]++
				if w.criticality == CriticalityCritical {
					s.critical = append(s.critical, time.Since(w.Picked()))
				}
				if s.answered[0]%50 == 0 {
					s.limits = append(s.limits, p.Snapshot().Overload().Tiers[0].Limit)
				}
				if busy[w.peer]--; len(queues[w.peer]) > 0 {
					first := queues[w.peer][0]
					queues[w.peer] = queues[w.peer][1:]
					start(first)
				}
				continue
			}
			arrives += time.Duration(random.ExpFloat64() / (o.load(next) * o.capacity(o.peers-o.backups)) * float64(time.Second))
			q := Query{Criticality: CriticalityNormal}
			switch dice := random.IntN(10); {
			case dice < 3:
				q.Criticality = CriticalityCritical
			case dice >= 7:
				q.Criticality = CriticalitySheddable
			}
			if o.asks && p.Sheds(&q) {
				s.refused[q.Criticality]++
				continue
			}
			token, err := p.Pick(&q)
			if err != nil {
				verify.Equal(t, err, ErrOverload, "Pick")
				s.refused[q.Criticality]++
				continue
			}
			w := &work{arrival: arrival{token, q.Criticality}, service: o.service(random), peer: index[token.Peer]}
			if o.slowdown != nil {
				w.service = time.Duration(float64(w.service) * o.slowdown(next))
			}
			if busy[w.peer] < o.slots {
				start(w)
			} else {
				queues[w.peer] = append(queues[w.peer], w)
			}
		}
		for _, w := range running {
			w.Done(Outcome{Class: OutcomeLocal})
		}
		for _, w := range slices.Concat(queues...) {
			w.Done(Outcome{Class: OutcomeLocal})
		}
		for i, tier := range p.Snapshot().Overload().Tiers {
			verify.Equal(t, tier.Waiting, 0, "attempts wait in tier %d at the end", i)
		}
	})
	return seconds
}

// sum adds seconds.
func sum(seconds []second) (all second) {
	for _, s := range seconds {
		for i, n := range s.refused {
			all.refused[i] += n
		}
		for i, n := range s.answered {
			all.answered[i] += n
		}
		all.critical, all.limits = append(all.critical, s.critical...), append(all.limits, s.limits...)
	}
	slices.Sort(all.critical)
	return all
}

func (s *second) total() int { return s.refused[0] + s.refused[1] + s.refused[2] }

func (s *second) p99() time.Duration {
	return s.critical[len(s.critical)*99/100].Round(time.Millisecond)
}

// The distributions of service times, of 40 ms on average but for the last.
var (
	exponential    = func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(40*time.Millisecond)) }
	nearlyConstant = func(r *rand.Rand) time.Duration {
		return 36*time.Millisecond + time.Duration(r.Float64()*float64(8*time.Millisecond))
	}
	bimodal = func(r *rand.Rand) time.Duration {
		if r.IntN(20) == 0 {
			return 500 * time.Millisecond
		}
		return 10 * time.Millisecond
	}
)

func steadily(load float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return load }
}

// tenPeers are the peers of most simulations.
func tenPeers(service func(*rand.Rand) time.Duration, load func(time.Duration) float64) overload {
	o := overload{peers: 10, slots: 4, service: service, mean: 40 * time.Millisecond, load: load, duration: 20 * time.Second}
	if r := rand.New(rand.NewPCG(1, 1)); service(r) == 10*time.Millisecond {
		o.mean = 34500 * time.Microsecond
	}
	return o
}

func TestOverload(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	const from, until = 6, 13 // seconds of twice the capacity
	load := func(at time.Duration) float64 {
		if at >= from*time.Second && at < until*time.Second {
			return 2
		}
		return .6
	}
	for _, test := range []struct {
		name    string
		service func(*rand.Rand) time.Duration
		goodput float64
	}{{"exponential", exponential, .9}, {"nearly constant", nearlyConstant, .9}, {"5 % of 500 ms", bimodal, .9}} {
		for seed := range uint64(3) {
			o := tenPeers(test.service, load)
			o.asks = seed > 0
			seconds := o.run(t, seed)
			calm, over, after := sum(seconds[1:from]), sum(seconds[from+2:until]), sum(seconds[until+2:])
			goodput := float64(over.answered[0]) / float64(until-from-2) / o.capacity(10)
			row := fmt.Sprintf("%s, seed %d: goodput %.2f, p99 of critical %v, calm %v; refused normal/critical/sheddable %v, then %v; limit %d to %d",
				test.name, seed, goodput, over.p99(), calm.p99(), over.refused, after.refused, slices.Min(over.limits), slices.Max(over.limits))
			t.Log(row)
			verify.That(t, goodput >= test.goodput, "%s: too little", row)
			verify.That(t, over.p99() <= 2*calm.p99(), "%s: too late", row)
			verify.That(t, after.p99() <= calm.p99()*3/2, "%s: %v two seconds after the overload", row, after.p99())
			verify.Equal(t, calm.total()+after.total(), 0, "%s: refusals before and after", row)
			verify.That(t, over.refused[CriticalityCritical]*5 < over.refused[CriticalityNormal], "%s: the wrong ones", row)
		}
	}
}

func TestCalmServiceRefusesNothing(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	halfAndHalf := tenPeers(func(r *rand.Rand) time.Duration {
		return time.Duration(10+490*r.IntN(2)) * time.Millisecond
	}, steadily(.5))
	halfAndHalf.mean = 255 * time.Millisecond
	for name, o := range map[string]overload{
		"exponential":     tenPeers(exponential, steadily(.6)),
		"nearly constant": tenPeers(nearlyConstant, steadily(.6)),
		"bimodal":         tenPeers(bimodal, steadily(.6)),
		"half and half":   halfAndHalf,
	} {
		for _, o.pauses = range []bool{false, true} {
			for seed := range uint64(3) {
				if o.pauses && name == "half and half" {
					continue // as late as a queue
				}
				all := sum(o.run(t, seed))
				verify.Equal(t, all.total(), 0, "%s, pauses %v, seed %d: refused, of %d answered", name, o.pauses, seed, all.answered[0])
			}
		}
	}
}

// What became slower for good, and is not overloaded, is refused nothing in the end.
func TestSlowerServiceIsNotOverloaded(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		o := tenPeers(nearlyConstant, steadily(.2))
		o.slowdown = func(at time.Duration) float64 {
			if at > 5*time.Second {
				return 3
			}
			return 1
		}
		seconds := o.run(t, seed)
		all, end := sum(seconds), sum(seconds[12:])
		t.Logf("seed %d: %d refused of %d", seed, all.total(), all.total()+all.answered[0])
		verify.Equal(t, end.total(), 0, "seed %d: refused in the last seconds", seed)
		verify.That(t, all.total() > 0, "seed %d: the limit was never tried", seed)
	}
}

// Load above the capacity of the first tier goes to the second, and only that.
func TestSpillOver(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	for _, test := range []struct {
		load, least, most float64 // of the capacity of the first tier; what the second one gets
		refused           float64 // at most, of all requests
	}{{.6, 0, 0, 0}, {1.5, .45, .62, .005}, {2.6, .9, 1.05, .3}} {
		for seed := range uint64(2) {
			o := tenPeers(exponential, steadily(test.load))
			o.peers, o.backups = 20, 10
			o.options = backups(o.options)
			seconds := o.run(t, seed)
			all := sum(seconds[5:20])
			var shares []string
			for _, s := range seconds[5:20] {
				share := float64(s.answered[1]) / o.capacity(10)
				shares = append(shares, fmt.Sprintf("%.2f", share))
				verify.That(t, share >= test.least*.6 && share <= test.most*1.4, "load %.1f, seed %d: the second tier's second has %.2f", test.load, seed, share)
			}
			first, second := float64(all.answered[0])/15/o.capacity(10), float64(all.answered[1])/15/o.capacity(10)
			t.Logf("load %.1f, seed %d: tiers do %.2f and %.2f; refused %v; by second: %v", test.load, seed, first, second, all.refused, shares)
			verify.That(t, second >= test.least && second <= test.most, "load %.1f, seed %d: the second tier gets %.2f", test.load, seed, second)
			verify.That(t, first >= min(.95, .95*test.load), "load %.1f, seed %d: the first tier gets %.2f", test.load, seed, first)
			refused := float64(all.total()) / float64(all.total()+all.answered[0]+all.answered[1])
			verify.That(t, refused <= test.refused, "load %.1f, seed %d: %.4f are refused", test.load, seed, refused)
		}
	}
}

// Whatever happens meanwhile, no attempt is refused below the limit, and all are given back.
func TestAdaptiveLimitCountsRight(t *testing.T) {
	t.Parallel()
	random := generator(t)
	for range long.Count(t, 8, 30) {
		synctest.Test(t, func(t *testing.T) {
			var seen [NumCriticalities]uint64
			options := func() Options {
				o := Options{
					Policy: Policies()[random.IntN(len(Policies()))], RetryBudget: ampleRetries, Random: random.Uint64,
					Limits: Limits{Adaptive: random.IntN(4) > 0, AdaptiveMin: 2 + random.IntN(3), Pending: 3},
				}
				if random.IntN(2) == 0 {
					o = backups(o)
				}
				if random.IntN(2) == 0 {
					o.Groups = []GroupSelector{{Name: "odd", Selector: Selector{Tags: []string{"odd"}}}}
				}
				switch random.IntN(4) {
				case 0:
					o.Limits.PeerRequests = 3
				case 1:
					o.Limits.PeerConnections = 3
				case 2:
					o.Limits.Requests = 20
				}
				return complete(o)
			}
			p := newTestPool(t, options())
			apply := func() {
				set := tagged(1+random.IntN(8), random.IntN(2), "main")
				for i := range set {
					if set[i].Priority = random.IntN(2); random.IntN(2) == 0 {
						set[i].Tags = append(set[i].Tags, "odd")
					}
				}
				p.Apply(set)
			}
			apply()
			type try struct {
				Token
				answered bool
			}
			var tries []try
			end := func(i int) {
				time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond)
				o := Outcome{Class: OutcomeClass(random.IntN(NumOutcomes)), Details: Details{Answered: tries[i].answered}}
				if random.IntN(4) > 0 {
					o.Class, o.Latency = OutcomeOK, time.Since(tries[i].Picked())
				}
				tries[i].Done(o)
				tries = slices.Delete(tries, i, i+1)
			}
			for range 3000 {
				// As in an overload.
				if a := p.Admission.adaptive.Load(); a != nil && random.IntN(200) == 0 {
					a.tiers[random.IntN(2)].limit.Store(2 + int64(random.IntN(10)))
				}
				switch dice := random.IntN(100); {
				case dice == 0:
					apply()
				case dice == 1:
					p.Reconfigure(options())
				case dice < 50:
					q := Query{Criticality: Criticality(random.IntN(NumCriticalities)), Group: GroupID(random.IntN(2))}
					if len(tries) > 0 && random.IntN(4) == 0 {
						q.Tried.Add(tries[random.IntN(len(tries))].Peer)
					}
					token, err := p.Pick(&q)
					if random.IntN(10) == 0 {
						if m, err := p.PickMirror(Query{}); err == nil {
							tries = append(tries, try{Token: m})
						}
					}
					switch {
					case err == nil:
						tries = append(tries, try{Token: token})
					case err == ErrOverload:
						c := q.Criticality
						if q.Tried.Len() > 0 {
							c = CriticalitySheddable
						}
						seen[c]++
						roomy := slices.ContainsFunc(p.Snapshot().part(q.Group).Eligible, func(peer *Peer) bool {
							return !q.Tried.Has(peer) && p.Snapshot().terms.perPeer > 3 && p.Admission.adaptive.Load().tiers[peer.tier.Load()].hasRoom(c)
						})
						verify.That(t, !roomy, "refused below the limit")
					}
				case len(tries) > 0 && dice < 60:
					if i := random.IntN(len(tries)); !tries[i].answered {
						tries[i].Answered(Outcome{Class: OutcomeOK, Latency: time.Since(tries[i].Picked())})
						tries[i].answered = true
					}
				case len(tries) > 0:
					end(random.IntN(len(tries)))
				}
			}
			for len(tries) > 0 {
				end(0)
			}
			p.Reconfigure(complete(Options{Limits: Limits{Adaptive: true}}))
			a := p.Admission.adaptive.Load()
			for i := range a.tiers {
				verify.Equal(t, a.tiers[i].waiting.Load(), 0, "attempts wait in tier %d", i)
			}
			verify.Equal(t, p.Snapshot().Overload().Shed, seen, "refusals by criticality")
			for _, peer := range p.Snapshot().All {
				verify.Equal(t, peer.Inflight(), 0, "attempts in flight")
			}
		})
	}
}

// Attempts that never have an answer, such as long polls, do not keep others out for good.
func TestStandstillEndsTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{Limits: Limits{Adaptive: true}}, instances(3)...)
		mustPick(t, p, nil).Done(Outcome{Class: OutcomeOK, Latency: time.Millisecond})
		p.Admission.adaptive.Load().tiers[0].limit.Store(4)
		hold(t, p, 3)
		expectPick(t, p, nil, ErrOverload) // at the limit
		verify.Equal(t, p.Sheds(&Query{}), true, "normal requests are refused")
		verify.Equal(t, p.Sheds(&Query{Criticality: CriticalityCritical}), false, "critical requests are refused")
		time.Sleep(2 * standstill)
		verify.Equal(t, p.Sheds(new(Query)), true, "the first one later is refused")
		mustPick(t, p, nil)
	})
}

// Whatever becomes of an attempt, its place in the limit of its tier is free after it.
func TestEveryOutcomeFreesItsPlace(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Options{Limits: Limits{Adaptive: true}}, instances(3)...)
	for class := range NumOutcomes {
		for _, o := range []Outcome{{Class: OutcomeClass(class)}, {Class: OutcomeClass(class), Latency: time.Millisecond}} {
			mustPick(t, p, nil).Done(o)
			verify.Equal(t, p.Admission.adaptive.Load().tiers[0].waiting.Load(), 0, "attempts that wait after %v", o)
		}
	}
}

// What was seen before a pause does not count with what is seen after it: the answers per second of
// both together say nothing.
func TestPauseEndsTheWindow(t *testing.T) {
	t.Parallel()
	for n := range 4 {
		off, limited := n%2 == 1, n >= 2
		synctest.Test(t, func(t *testing.T) {
			on := complete(Options{Policy: PolicyRoundRobin, Limits: Limits{Adaptive: true}})
			p := newTestPool(t, on, instances(1)...)
			answers := func(n, together int, latency time.Duration) {
				for range n {
					tokens := hold(t, p, together)
					time.Sleep(latency)
					for _, token := range tokens {
						token.Done(Outcome{Class: OutcomeOK, Latency: latency})
					}
				}
			}
			answers(100, 10, 10*time.Millisecond)
			for l := &p.Admission.adaptive.Load().tiers[0]; l.gradient.overloads == 0 || limited && p.Snapshot().Overload().Tiers[0].Limit == 0; {
				answers(1, 10, 40*time.Millisecond)
			}
			if off {
				p.Reconfigure(complete(Options{Policy: PolicyRoundRobin}))
			}
			time.Sleep(time.Hour)
			p.Reconfigure(on)
			answers(100, 2, 40*time.Millisecond)
			verify.Equal(t, p.Snapshot().Overload().Tiers[0].Limit, 0, "limit after the pause, switched off %t, with a limit before %t", off, limited)
		})
	}
}

// A request whose group has no room goes to the group's fallback, as Sheds has said; a copy goes
// nowhere.
func TestFallbackOfAGroupWithoutRoom(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Options{
		Limits: Limits{Adaptive: true}, Tiers: []Selector{{Tags: []string{"main"}}},
		Groups: []GroupSelector{{Name: "new", Selector: Selector{Tags: []string{"main"}}}},
	})
	p.Apply(tagged(2, 1, "main"))
	snapshot := p.Snapshot()
	q := Query{Group: snapshot.Groups[0].Group.ID(), Fallback: snapshot.Groups[1].Group.ID()}
	full, other := &p.Admission.adaptive.Load().tiers[snapshot.Groups[0].All[0].tier.Load()], snapshot.Groups[1].All
	full.limit.Store(2)
	mustPick(t, p, &q)
	copied := Query{Group: q.Group}
	_, err := p.PickMirror(copied)
	verify.Equal(t, err, ErrOverload, "a copy")
	verify.Equal(t, p.Sheds(&q), false, "it is refused before its body is read")
	token := mustPick(t, p, &q)
	verify.That(t, slices.Contains(other, token.Peer), "it went to %v", token.Peer.ID)
	verify.Equal(t, p.Snapshot().Overload().Shed, [NumCriticalities]uint64{}, "requests refused")
	full.limit.Store(unlimited)
	verify.Result(p.PickMirror(copied)).Must(t).Done(Outcome{})
	verify.Equal(t, full.waiting.Load(), 1, "attempts that wait")
}

// A tier keeps its limit when another one goes or comes, as data centres do: what is late for one
// is calm for another.
func TestTiersKeepTheirLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{Limits: Limits{Adaptive: true}})
		near, far := instances(10)[:5], instances(10)[5:]
		for i := range far {
			far[i].Priority = 1
		}
		both := slices.Concat(near, far)
		send := func(d time.Duration) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
				token := mustPick(t, p, nil)
				latency := 3 * time.Millisecond
				if token.Peer.Instance().Priority == 1 {
					latency = 60 * time.Millisecond
				}
				time.AfterFunc(latency, func() { token.Done(Outcome{Class: OutcomeOK, Latency: latency}) })
			}
		}
		for range 2 {
			p.Apply(both)
			send(20 * time.Second)
			p.Apply(far)
			send(3 * time.Second)
			verify.That(t, p.Snapshot().Overload().Tiers[0].Waiting > 0, "nothing waits in the tier that is left")
		}
		pass(time.Second)
		p.Apply(both)
		verify.Slices(t, p.Snapshot().Overload().Tiers, []TierLoad{{}, {}}, "tiers in the end")
	})
}

// Tiers that come and go have a limiter each while there are enough, and the last one is shared
// beyond.
func TestLimitersOfManyTiers(t *testing.T) {
	p := newTestPool(t, Options{Limits: Limits{Adaptive: true}})
	numbers := func(priorities ...int) (have []int) {
		set := instances(len(priorities))
		for i := range set {
			set[i].Priority = priorities[i]
		}
		p.Apply(set)
		for _, peer := range p.Snapshot().All {
			have = append(have, int(peer.tier.Load()))
		}
		return have
	}
	verify.Slices(t, numbers(1, 1, 2, 3), []int{0, 0, 1, 2}, "three")
	verify.Slices(t, numbers(3, 2), []int{2, 1}, "without the first")
	verify.Slices(t, numbers(0, 1, 3), []int{3, 0, 2}, "with one before all")
	verify.Slices(t, numbers(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), []int{3, 0, 1, 2, 4, 5, 6, 7, 7, 7}, "too many")
	verify.Slices(t, numbers(8, 9), []int{0, 1}, "in place of those that are gone")
}
