package balancer

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"sluice/discovery"
	"sluice/test/long"
	"sluice/test/verify"
)

// candidatesOf returns idle candidates with these weights.
func candidatesOf(weights ...int) []candidate {
	candidates := make([]candidate, len(weights))
	for i, w := range weights {
		candidates[i] = candidate{peer: &Peer{}, weight: w}
	}
	return candidates
}

var weightCases = [][]int{
	{1}, {7}, {1, 1}, {5, 5, 5}, {1, 2}, {5, 1, 1}, {9, 1}, {1, 2, 3, 4}, {100, 90, 57}, {1, 1, 1, 1, 1, 20},
}

// Without load every policy distributes by weight. Round robin does so exactly: see
// TestScheduleIsExactAndSmooth.
func TestSharesFollowTheWeights(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	for _, policy := range Policies() {
		for _, weights := range weightCases {
			const picks = 20000
			p := newTestPool(t, Options{Policy: policy}, withWeights(weights...)...)
			requests(t, p, picks)
			for i, peer := range p.Snapshot().All {
				share := float64(weights[i]) / float64(sumOf(weights))
				got := float64(peer.Requests())
				// Six standard deviations: it fails by chance once in 500 million.
				limit := 6*math.Sqrt(picks*share*(1-share)) + 1
				verify.That(t, math.Abs(got-picks*share) <= limit,
					"%s %v: peer %d was picked %v times, want %.0f ± %.0f", policy, weights, i, got, picks*share, limit)
			}
		}
	}
}

// With little load, a peer of low weight is mostly idle, but must not get more than its share.
func TestSharesFollowTheWeightsUnderLittleLoad(t *testing.T) {
	for _, policy := range Policies() {
		for _, rate := range []float64{50, 300} {
			got := simulation{
				policy: policy, rate: rate, duration: 5000 * time.Second / time.Duration(rate),
				servers: []server{{weight: 9, service: 5 * ms}, {weight: 1, service: 5 * ms}},
			}.run()
			share := got.shares[1]
			verify.That(t, share >= 0.06 && share <= 0.15, "%s, %v requests a second: a peer with a tenth of the weight has a share of %.3f", policy, rate, share)
		}
	}
}

// Under load the requests in flight follow the weights.
func TestLoadFollowsTheWeights(t *testing.T) {
	for _, policy := range []Policy{PolicyEWMA, PolicyLeastConn} {
		for _, weights := range weightCases {
			p := newTestPool(t, Options{Policy: policy}, withWeights(weights...)...)
			const perWeight = 50
			hold(t, p, perWeight*sumOf(weights))
			for i, peer := range p.Snapshot().All {
				got := float64(peer.Inflight()) / float64(weights[i])
				// Half of the share of a peer does not depend on the comparison.
				verify.That(t, got >= 0.75*perWeight && got <= 1.25*perWeight, "%s %v: %.1f in flight per weight on peer %d, want about %d", policy, weights, got, i, perWeight)
			}
		}
	}
}

// The tickets of the lottery give the exact probabilities.
func TestLotteryIsExact(t *testing.T) {
	cases := append(slices.Clone(weightCases), []int{discovery.MaxWeight, 1}, []int{discovery.MaxWeight, discovery.MaxWeight, 1, 1, 1})
	many := make([]int, 1000)
	for i := range many {
		many[i] = 1 + i*i%discovery.MaxWeight
	}
	for _, weights := range append(cases, many) {
		candidates := candidatesOf(weights...)
		l := newLottery(candidates)
		if equalWeights(candidates) {
			verify.That(t, l.tickets == nil, "%v: equal weights need no tickets", weights)
			continue
		}
		n := float64(len(weights))
		got := make([]float64, len(weights))
		for i, ticket := range l.tickets {
			own := (float64(ticket.own) + 1) / (1 << 32)
			got[i] += own / n
			got[ticket.other] += (1 - own) / n
		}
		for i, w := range weights {
			want := float64(w) / totalWeight(candidates)
			verify.That(t, math.Abs(got[i]-want) <= 1e-9, "%d weights: number %d is drawn with probability %v, want %v", len(weights), i, got[i], want)
		}
	}
}

func TestDrawTwoAreDifferent(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 1, 1}, {discovery.MaxWeight, 1}, {discovery.MaxWeight, 1, 1}} {
		l := newLottery(candidatesOf(weights...))
		seen := make(map[[2]int]int)
		for range 10000 {
			i, j := l.drawTwo(nil)
			verify.Require(t, i != j && i >= 0 && j >= 0 && i < len(weights) && j < len(weights), "%v: drew %d and %d", weights, i, j)
			seen[[2]int{i, j}]++
		}
		if equalWeights(candidatesOf(weights...)) {
			pairs := len(weights) * (len(weights) - 1)
			for pair, n := range seen {
				want := 10000 / pairs
				verify.That(t, n >= want*8/10 && n <= want*12/10, "%v: pair %v came %d times, want about %d", weights, pair, n, want)
			}
		}
	}
}

// checkSchedule fails unless each i has exactly its turns, and at any time a number of turns
// within one of its share.
func checkSchedule(t *testing.T, counts []int) {
	t.Helper()
	schedule := newSchedule(counts)
	had := make([]int, len(counts))
	for m, i := range schedule {
		had[i]++
		for i, n := range counts {
			due := float64(m+1) * float64(n) / float64(len(schedule))
			verify.Require(t, math.Abs(float64(had[i])-due) < 1, "%v: after %d turns, %d has had %d, %.2f were due", counts, m+1, i, had[i], due)
		}
	}
	verify.Slices(t, had, counts, "turns")
}

func TestScheduleIsExactAndSmooth(t *testing.T) {
	for _, weights := range weightCases {
		checkSchedule(t, weights)
	}
	verify.Slices(t, newSchedule([]int{5, 1, 1}), []uint32{0, 0, 0, 1, 0, 0, 2}, "schedule")
}

func FuzzSchedule(f *testing.F) {
	f.Add([]byte{1})
	f.Add([]byte{5, 1, 1})
	f.Add([]byte{255, 254, 1, 7, 7, 100})
	f.Fuzz(func(t *testing.T, weights []byte) {
		if len(weights) == 0 || len(weights) > 20 {
			return
		}
		counts := make([]int, len(weights))
		for i, w := range weights {
			counts[i] = int(w) + 1
		}
		checkSchedule(t, counts)
	})
}

func TestSchedulesAreBounded(t *testing.T) {
	f := func(weights []int, want []int) {
		t.Helper()
		verify.Slices(t, turns(candidatesOf(weights...)), want, "turns of %v", weights)
	}
	f([]int{10, 20, 30}, []int{1, 2, 3})
	f([]int{4000, 96}, []int{125, 3})
	f([]int{4001, 1}, []int{4001, 1})
	f([]int{discovery.MaxWeight, discovery.MaxWeight - 1, 1}, []int{2048, 2048, 1})
	many := make([]int, 1000)
	for i := range many {
		many[i] = discovery.MaxWeight - i
	}
	length := 0
	for i, n := range turns(candidatesOf(many...)) {
		verify.Require(t, n == turnsPerPeer, "peer %d has %d turns, want %d", i, n, turnsPerPeer)
		length += n
	}
	verify.Equal(t, length, 1000*turnsPerPeer, "turns")
}

// In a small pool all peers are compared.
func TestLeastConnFindsTheOnlyIdlePeer(t *testing.T) {
	p := newTestPool(t, Options{Policy: PolicyLeastConn}, instances(fullScan)...)
	tokens := make(map[*Peer]Token)
	for range fullScan {
		token := mustPick(t, p, nil)
		_, busy := tokens[token.Peer]
		verify.Require(t, !busy, "picked a busy peer while another was idle")
		tokens[token.Peer] = token
	}
	for range 100 {
		for _, token := range tokens {
			token.Done(Outcome{})
			verify.Require(t, mustPick(t, p, nil).Peer == token.Peer,
				"picked a busy peer while another was idle")
		}
	}
}

func TestTiesAreDecidedAtRandom(t *testing.T) {
	p := newTestPool(t, Options{Policy: PolicyLeastConn}, instances(3)...)
	var q Query // two idle peers, which get the same share, and a busy one
	busy := mustPick(t, p, &q)
	requests(t, p, 10000)
	for _, peer := range p.Snapshot().All {
		got := peer.Requests()
		verify.That(t, peer != busy.Peer || got == 0, "the busy peer was picked %d times", got)
		verify.That(t, peer == busy.Peer || got >= 4500 && got <= 5500,
			"an idle peer was picked %d times, want about 5000", got)
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	for _, policy := range Policies() {
		for _, n := range []int{1, 2, 10, 1000} {
			for name, set := range map[string][]int{"equal": slices.Repeat([]int{1}, n), "weighted": slices.Repeat([]int{1, 5}, (n+1)/2)} {
				p := newTestPool(t, Options{
					Policy:           policy,
					Limits:           Limits{Requests: 10, PeerRequests: 10, Retries: 10},
					RetryBudget:      ampleRetries,
					OnFailure:        func(*Peer, Outcome, Streak) {},
					MeasureLatencies: n == 10,
					Groups:           byTag("a")[:n%2],
				})
				a, rest := p.Group("a").ID(), p.Group(RestGroup).ID()
				p.Apply(withWeights(set...))
				t.Run(fmt.Sprintf("%s/%s/%d", policy, name, n), func(t *testing.T) {
					if allocs := testing.AllocsPerRun(200, func() {
						q := Query{Hash: 1, Group: a, Fallback: rest}
						token, _ := p.Pick(&q)
						token.Done(Outcome{Class: OutcomeOK, Latency: ms})
						q.Tried.Add(token.Peer)
						if again, err := p.Pick(&q); err == nil {
							again.Done(Outcome{Class: OutcomeConnectFailure})
						}
					}); allocs != 0 {
						t.Errorf("%v allocations, want 0", allocs)
					}
				})
			}
		}
	}
}

// The compiler keeps structs of up to four words and four fields in registers. A larger Token
// makes a pick a third slower, a larger Outcome the stack of each HTTP/2 stream so deep that it is
// copied: 15 % of a request.
func TestTokenAndOutcomeStayInRegisters(t *testing.T) {
	const most = 4
	for _, value := range []reflect.Type{reflect.TypeFor[Token](), reflect.TypeFor[Outcome](), reflect.TypeFor[marks](), reflect.TypeFor[Details]()} {
		fits := value.Size() <= most*unsafe.Sizeof(uintptr(0)) && value.NumField() <= most
		verify.That(t, fits, "%v: %d bytes in %d fields", value, value.Size(), value.NumField())
	}
}

// Fields that each request writes are on separate cache lines.
func TestHotFieldsHaveTheirCacheLines(t *testing.T) {
	const line = 64
	p := newTestPool(t, Options{}, instances(10)...)
	for _, peer := range p.Snapshot().All {
		addr := uintptr(unsafe.Pointer(peer))
		verify.That(t, addr%line == 0, "a peer at %#x is not at the start of a cache line", addr)
	}
	var peer Peer
	lineOf := func(offset uintptr) uintptr { return offset / line }
	load, counters := lineOf(unsafe.Offsetof(peer.load)), lineOf(unsafe.Offsetof(peer.outcomes))
	verify.Equal(t, lineOf(unsafe.Offsetof(peer.latency)+unsafe.Sizeof(peer.latency)-1), load, "what a pick reads is on two cache lines")
	verify.That(t, lineOf(unsafe.Offsetof(peer.drained)) < load && load < counters &&
		unsafe.Offsetof(peer.outcomes)%line == 0 && unsafe.Sizeof(peer)%line == 0,
		"fields of a peer share cache lines that should not")
	before, after := unsafe.Offsetof(p.cursor)-unsafe.Offsetof(p.snapshot), unsafe.Offsetof(p.mu)-unsafe.Offsetof(p.cursor)
	verify.That(t, before >= line && after >= line, "the cursor shares its cache line")
}
