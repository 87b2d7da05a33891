package balancer

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/long"
	"sluice/test/verify"
)

func newHashPool(t testing.TB, set []discovery.Instance) *Pool {
	t.Helper()
	return newTestPool(t, Options{Policy: PolicyHash, RetryBudget: ampleRetries}, set...)
}

// hashes returns n pseudorandom hashes, the same in each call.
func hashes(n int) []uint64 {
	list := make([]uint64, n)
	for i := range list {
		list[i] = mix(uint64(i) + 1)
	}
	return list
}

// owners returns the addresses of the peers that get the hashes, with nothing
// in flight.
func owners(t testing.TB, p *Pool, hashes []uint64) []string {
	t.Helper()
	list := make([]string, len(hashes))
	for i, h := range hashes {
		list[i] = picked(t, p, &Query{Hash: h}).Address()
	}
	return list
}

// moved returns the share of a that is different in b.
func moved(a, b []string) float64 {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return float64(n) / float64(len(a))
}

// When a peer joins or leaves, its part of the hashes must move. The table moves a little more,
// as the paper predicts.
func TestFewHashesMoveWithThePeers(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	keys := hashes(10000)
	for _, n := range []int{3, 10, 100} {
		p := newHashPool(t, instances(n))
		before := owners(t, p, keys)
		shuffled := instances(n)
		generator(t).Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := newHashPool(t, shuffled[:n/2]) // whose peers came in another order
		other.Apply(instances(n + 2))
		other.Apply(shuffled)
		verify.Slices(t, owners(t, other, keys), before, "%d peers: another replica sends hashes elsewhere", n)
		least := 1 / float64(n)
		p.Apply(append(instances(n)[:n/2:n/2], instances(n)[n/2+1:]...))
		got := moved(before, owners(t, p, keys))
		verify.That(t, got <= least+.02, "%d peers, one leaves: %.4f of the hashes move, want little more than %.4f", n, got, least)
		p.Apply(instances(n))
		verify.Slices(t, before, owners(t, p, keys), "%d peers, one leaves and returns: hashes do not return", n)
		p.Apply(instances(n + 1)[1:])
		got = moved(before, owners(t, p, keys))
		verify.That(t, got <= 2*least+.02, "%d peers, one is replaced: %.4f of the hashes move, want little more than %.4f", n, got, 2*least)
		p.Apply(instances(n + 1))
		got = moved(before, owners(t, p, keys))
		verify.That(t, got <= 1/float64(n+1)+.02, "%d peers, one joins: %.4f of the hashes move, want little more than %.4f", n, got, 1/float64(n+1))
		p.Apply(instances(n))
		heavier := instances(n)
		heavier[0].Weight = 2
		p.Apply(heavier)
		got, least = moved(before, owners(t, p, keys)), 2/float64(n+1)-1/float64(n)
		verify.That(t, math.Abs(got-least) <= .02, "%d peers, one doubles its weight: %.4f of the hashes move, want little more than %.4f", n, got, least)
	}
}

// Only the hashes of an ejected peer move, to all other peers. They return with it.
func TestEjectionDoesNotReshuffle(t *testing.T) {
	t.Parallel()
	keys := hashes(20000)
	const n = 10
	for what, out := range map[string]func(p *Pool, set []discovery.Instance, down bool){
		"ejected": func(p *Pool, set []discovery.Instance, down bool) {
			setReason(p, set[3].Key(), ReasonEjected, down, "")
		},
		"drained": func(p *Pool, set []discovery.Instance, down bool) { setReason(p, set[3].Key(), ReasonDrain, down, "") },
		"critical": func(p *Pool, set []discovery.Instance, down bool) {
			set = slices.Clone(set)
			if down {
				set[3].Status, set[3].Weight = discovery.StatusCritical, 0
			}
			p.Apply(set)
		},
	} {
		set := instances(n)
		set[3].Weight = 2
		p := newHashPool(t, set)
		table := p.Snapshot().tables.made[0]
		before := owners(t, p, keys)
		out(p, set, true)
		during := owners(t, p, keys)
		counts := make(map[string]int)
		for i := range keys {
			switch {
			case before[i] == set[3].HostPort():
				counts[during[i]]++
			case before[i] != during[i]:
				t.Fatalf("%s: a hash of another peer moved from %s to %s", what, before[i], during[i])
			}
		}
		verify.That(t, len(counts) == n-1, "%s: its hashes went to %d of %d peers", what, len(counts), n-1)
		for address, got := range counts {
			want := float64(len(keys)) * 2 / (n + 1) / (n - 1)
			verify.That(t, math.Abs(float64(got)-want) <= .2*want, "%s: %d of its hashes went to %s, want about %.0f", what, got, address, want)
		}
		out(p, set, false)
		verify.Slices(t, before, owners(t, p, keys), "%s: hashes do not return", what)
		verify.Equal(t, p.Snapshot().tables.made[0], table, "%s: the table was made anew", what)
	}
}

// With any hashes, no peer exceeds the bound.
func TestLoadIsBounded(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 2, 3, 4}} {
		total := sumOf(weights)
		random := generator(t)
		for name, next := range map[string]func() uint64{
			"one hash":    func() uint64 { return 42 },
			"few hashes":  func() uint64 { return mix(random.Uint64N(5)) },
			"many hashes": random.Uint64,
			"no hash":     func() uint64 { return 0 },
		} {
			p := newHashPool(t, withWeights(weights...))
			const n = 5000
			for i := range n {
				mustPick(t, p, &Query{Hash: next()})
				for j, peer := range p.Snapshot().All {
					due := float64(weights[j]) / float64(total) * float64(i+1)
					most := int(math.Ceil(max(complete(Options{}).HashBound*due, due+3*math.Sqrt(due))))
					verify.Require(t, peer.Inflight() <= most, "%v, %s: peer %d has %d of %d in flight, want at most %d", weights, name, j, peer.Inflight(), i+1, most)
				}
			}
			busiest := 0.
			for j, peer := range p.Snapshot().All {
				busiest = max(busiest, float64(peer.Inflight())/n*float64(total)/float64(weights[j]))
			}
			verify.That(t, name != "one hash" || busiest >= 1.2, "%v: the peer of the only hash has %.2f of the average, want 1.25", weights, busiest)
		}
	}
}

// A few random hashes on the same peer are not an overload.
func TestRandomCollisionsAreNotAnOverload(t *testing.T) {
	random := generator(t)
	for _, average := range []float64{0.2, 1, 5, 30} {
		p := newHashPool(t, instances(20))
		var held []Token
		elsewhere := 0
		const n = 20000
		for range n {
			h := random.Uint64()
			token := mustPick(t, p, &Query{Hash: h})
			if owner := p.Snapshot().picker.(*hashed); owner.members[owner.table.at(h)].peer != token.Peer {
				elsewhere++
			}
			held = append(held, token)
			if float64(len(held)) > 20*average { // a random one ends
				i := random.IntN(len(held))
				held[i].Done(Outcome{})
				held[i] = held[len(held)-1]
				held = held[:len(held)-1]
			}
		}
		share := float64(elsewhere) / n
		verify.That(t, share <= .03, "with %v in flight at each peer, %.1f %% of the requests do not go to the peer of their hash", average, share*100)
	}
}

func TestHashWithoutBound(t *testing.T) {
	o := complete(Options{Policy: PolicyHash})
	o.HashBound = 0
	p := NewPool("star", o)
	p.Apply(instances(10))
	peer := mustPick(t, p, &Query{Hash: 7}).Peer
	for range 1000 {
		verify.Require(t, mustPick(t, p, &Query{Hash: 7}).Peer == peer, "went elsewhere")
	}
}

// A retry goes to the peer that its hash would have without the first peer.
func TestTheSecondChoiceOfAHashIsTheSameToo(t *testing.T) {
	p := newHashPool(t, instances(10))
	for _, h := range hashes(100) {
		var q Query
		q.Hash = h
		first := picked(t, p, &q)
		q.Tried.Add(first)
		second := picked(t, p, &q)
		setReason(p, first.ID, ReasonEjected, true, "")
		third := picked(t, p, &Query{Hash: h})
		setReason(p, first.ID, ReasonEjected, false, "")
		verify.Require(t, second == third,
			"the retry went to %v, without the first peer requests go to %v", second, third)
	}
}

// A warming peer gets its hashes gradually, and loses none.
func TestHashesMoveToAWarmingPeerGradually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{Policy: PolicyHash, SlowStart: SlowStart{Window: 10 * time.Second}})
		defer p.Close()
		keys := hashes(5000)
		set := instances(4)
		p.Apply(set[:3])
		time.Sleep(time.Minute)
		p.Apply(set)
		added := set[3].HostPort()
		var before []string
		for age := range 11 {
			synctest.Wait()
			now := owners(t, p, keys)
			count := 0
			for i := range keys {
				if now[i] == added {
					count++
				}
				if before != nil && before[i] != now[i] && now[i] != added {
					t.Fatalf("after %d s a hash moved from %s to %s", age, before[i], now[i])
				}
			}
			factor := max(.1, float64(age)/10)
			want := float64(len(keys)) / 4 * factor
			verify.That(t, math.Abs(float64(count)-want) <= 5*math.Sqrt(want)+20, "after %d s the new peer has %d hashes, want about %.0f", age, count, want)
			before = now
			time.Sleep(time.Second)
		}
	})
}

// Each slot has an owner, and each owner has its share.
func FuzzMaglev(f *testing.F) {
	f.Add([]byte{1})
	f.Add([]byte{1, 1, 1, 200})
	f.Add([]byte{255, 1, 17, 3, 3, 3, 90})
	f.Fuzz(func(t *testing.T, weights []byte) {
		if len(weights) == 0 || len(weights) > 50 {
			return
		}
		var addresses []string
		var list []int
		total := 0
		for i, w := range weights {
			addresses = append(addresses, fmt.Sprintf("10.0.0.%d:80", i))
			list = append(list, max(1, int(w)))
			total += list[i]
		}
		m := newMaglev(addresses, list)
		counts := make([]int, len(list))
		for _, i := range m.slots {
			counts[i]++
		}
		for i, n := range counts {
			want := float64(list[i]) / float64(total) * maglevSize
			verify.That(t, (!(math.Abs(float64(n)-want) > 2+want*.2) || total <= minTurns) && (!(math.Abs(float64(n)-want) > 2) || total > minTurns), "%v: peer %d has %d slots, want %.0f", list, i, n, want)
		}
		verify.That(t, newMaglev(addresses, list).is(m.addresses, m.weights) && slices.Equal(newMaglev(addresses, list).slots, m.slots), "the same input made another table")
	})
}
