package balancer

import (
	"math"
	"slices"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// tiersOf returns tiers with so many of so many peers eligible.
func tiersOf(counts ...[2]int) []tierPeers {
	var tiers []tierPeers
	for _, n := range counts {
		var t tierPeers
		for i := range n[1] {
			p := &Peer{}
			p.condition.Store(&condition{})
			t.all = append(t.all, p)
			if i < n[0] {
				t.eligible = append(t.eligible, p)
			}
		}
		tiers = append(tiers, t)
	}
	return tiers
}

// The first rows are from the table in Envoy's documentation of priority levels,
// with 100 peers in each tier.
func TestTierSharesFollowEnvoysPriorityLevels(t *testing.T) {
	f := func(want []float64, counts ...[2]int) {
		t.Helper()
		got, _ := tierShares(tiersOf(counts...), complete(Options{}).Overprovisioning)
		for i := range want { // Envoy rounds to percents
			verify.That(t, math.Abs(got[i]-want[i]) <= 0.01,
				"%v: shares %.3f, want %.3f", counts, got, want)
		}
	}
	f([]float64{1, 0}, [2]int{100, 100}, [2]int{100, 100})
	f([]float64{1, 0}, [2]int{72, 100}, [2]int{72, 100})
	f([]float64{.99, .01}, [2]int{71, 100}, [2]int{71, 100})
	f([]float64{.70, .30}, [2]int{50, 100}, [2]int{50, 100})
	f([]float64{.35, .65}, [2]int{25, 100}, [2]int{100, 100})
	f([]float64{.5, .5}, [2]int{25, 100}, [2]int{25, 100})
	f([]float64{.36, .36, .28}, [2]int{25, 100}, [2]int{25, 100}, [2]int{20, 100})
	f([]float64{0, 1}, [2]int{0, 3}, [2]int{1, 100})
	f([]float64{0, 1, 0}, [2]int{0, 0}, [2]int{1, 1}, [2]int{1, 1})
	f([]float64{0, 0}, [2]int{0, 3}, [2]int{0, 0})
}

func FuzzTierShares(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4}, 1.4)
	f.Add([]byte{0, 9, 9, 9, 1, 9}, 1.)
	f.Fuzz(func(t *testing.T, counts []byte, overprovisioning float64) {
		if !(overprovisioning >= 1 && overprovisioning < 1e6) || len(counts) > 20 {
			return
		}
		var tiers []tierPeers
		present := false
		for ; len(counts) >= 2; counts = counts[2:] {
			all, eligible := int(counts[1]%20), int(counts[0]%20)
			tiers = append(tiers, tiersOf([2]int{min(eligible, all), all})...)
			present = present || min(eligible, all) > 0
		}
		shares, room := tierShares(tiers, overprovisioning)
		sum := 0.
		for i, share := range shares {
			sum += share
			right := share == 0 || share > 0 && share <= 1 && len(tiers[i].eligible) > 0
			verify.That(t, right,
				"share %v of tier %d with %d of %d", share, i, len(tiers[i].eligible), len(tiers[i].all))
			verify.That(t, i <= 0 || share <= 1e-9 || room < 1 || tiers[i-1].left()*overprovisioning < 1, "tier %d has %v, though the one before has room", i, share)
		}
		want := map[bool]float64{true: 1, false: 0}[present]
		verify.That(t, math.Abs(sum-want) <= 1e-9, "shares add up to %v, want %v", sum, want)
	})
}

func TestSelectors(t *testing.T) {
	i := discovery.Instance{Tags: []string{"v1", "backup"}, Meta: map[string]string{"zone": "b", "empty": ""}, Datacenter: "dc1", Node: "n1"}
	f := func(want bool, s Selector) {
		t.Helper()
		verify.Equal(t, s.selects(&i), want, "%+v", s)
	}
	f(true, Selector{})
	f(true, Selector{Tags: []string{"backup"}})
	f(true, Selector{Tags: []string{"backup", "v1"}, Meta: map[string]string{"zone": "b"}, Nodes: []string{"n1"}})
	f(false, Selector{Tags: []string{"backup", "v2"}})
	f(false, Selector{Meta: map[string]string{"zone": "a"}})
	f(true, Selector{Meta: map[string]string{"empty": ""}})
	f(false, Selector{Meta: map[string]string{"missing": ""}})
	f(false, Selector{Tags: []string{"v1"}, Nodes: []string{"n2"}})
}

// tagged returns n instances, of which those from first on carry a tag.
func tagged(n, first int, tag string) []discovery.Instance {
	set := instances(n)
	for i := first; i < n; i++ {
		set[i].Tags = []string{tag}
	}
	return set
}

// backups are tiers: those without the tag backup, then those with it.
func backups(o Options) Options {
	o.Tiers = []Selector{{Tags: []string{"main"}}}
	return o
}

// sharesOf returns the share of the requests of each peer, by number.
func sharesOf(t *testing.T, p *Pool, picks int) map[int]float64 {
	t.Helper()
	before := make(map[*Peer]uint64)
	for _, peer := range p.Snapshot().All {
		before[peer] = peer.Requests()
	}
	requests(t, p, picks)
	shares := make(map[int]float64)
	for i, peer := range p.Snapshot().All {
		shares[i] = float64(peer.Requests()-before[peer]) / float64(picks)
	}
	return shares
}

// A tier that is full, as its peers have a limit, overflows too.
func TestAFullTierOverflows(t *testing.T) {
	set := tagged(12, 2, "main")
	p := newTestPool(t, backups(Options{Limits: Limits{PeerRequests: 3}}), set...)
	for n := range 36 {
		token := mustPick(t, p, nil)
		backup := token.Peer.ID == set[0].Key() || token.Peer.ID == set[1].Key()
		verify.Require(t, backup == (n >= 30), "request %d went to %v", n+1, token.Peer)
	}
	expectPick(t, p, nil, ErrPeersSaturated)
}

// Requests of one hash stay together also where a tier overflows.
func TestTheTierOfAHashIsTheSameEachTime(t *testing.T) {
	set := tagged(6, 2, "main")
	p := newTestPool(t, backups(Options{Policy: PolicyHash}), set...)
	keys := hashes(2000)
	before := owners(t, p, keys)
	setReason(p, set[2].Key(), ReasonEjected, true, "")
	setReason(p, set[3].Key(), ReasonEjected, true, "")
	during := owners(t, p, keys)
	verify.Slices(t, during, owners(t, p, keys), "hashes moved for no reason")
	out := []string{set[2].HostPort(), set[3].HostPort()}
	stayed := 0
	for i := range keys {
		if !slices.Contains(out, before[i]) && before[i] == during[i] {
			stayed++
		}
	}
	share := float64(stayed) / float64(len(keys))
	verify.That(t, share >= .5*.7-.05, "%.3f of the hashes stayed where they were, want 70 %% of the half whose peers are well", share)
}

// Priorities of the registry make tiers without selectors, and divide those of selectors.
func TestPriorities(t *testing.T) {
	set := tagged(4, 2, "main")
	for n := range set {
		set[n].Priority = 10 + n%2*10 // 10, 20, 10, 20
	}
	p := newTestPool(t, Options{PanicThreshold: .5}, set...)
	one := Tier{Peers: 2, Eligible: 2}
	first := Tier{Peers: 2, Eligible: 2, Share: 1}
	verify.Slices(t, p.Snapshot().Tiers, []Tier{first, one}, "tiers")
	got := sharesOf(t, p, 1000)
	verify.That(t, got[0]+got[2] == 1, "the smaller priority gets %v of the requests, want all", got[0]+got[2])
	setReason(p, set[0].Key(), ReasonActive, true, "")
	setReason(p, set[2].Key(), ReasonActive, true, "") // half of the peers, and the other half has room
	expectEligible(t, p, false, 1, 3)
	got = sharesOf(t, p, 1000)
	verify.That(t, got[1]+got[3] == 1, "the larger priority gets %v of the requests, want all", got[1]+got[3])
	setReason(p, set[0].Key(), ReasonActive, false, "")
	verify.That(t, near(p.Snapshot().Tiers[0].Share, .7),
		"with half of its peers the first tier has the share %v, want 0.7", p.Snapshot().Tiers[0].Share)
	changed := slices.Clone(set)
	for n := range changed {
		changed[n].Priority = 20
	}
	p.Apply(changed)
	verify.Slices(t, p.Snapshot().Tiers, []Tier{{Peers: 4, Eligible: 3, Share: 1}}, "with one priority: tiers")

	p = newTestPool(t, backups(Options{}), set...) // 2 and 3 are the main ones
	one = Tier{Peers: 1, Eligible: 1}
	verify.Slices(t, p.Snapshot().Tiers, []Tier{{Peers: 1, Eligible: 1, Share: 1}, one, one, one},
		"with a selector: tiers")
}
