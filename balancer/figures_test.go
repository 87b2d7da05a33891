package balancer

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice/test/verify"
)

var update = flag.Bool("update", false, "write the figures into docs/balancing.md and docs/images")

// scenarios are the results of a policy with ten peers, each with four workers, 10 ms per
// request on average, and a load of 60 %.
type scenarios struct {
	policy                                             Policy
	normal, slow, failing, hanging, replicas, sessions *result
	weightError                                        float64 // largest relative deviation of a share
}

func simulateScenarios(policy Policy, duration time.Duration) scenarios {
	typical := server{service: 10 * ms, workers: 4}
	base := simulation{policy: policy, rate: 2400, duration: duration, warmUp: duration / 4, servers: fleet(10, typical, nil)}
	with := func(f func(*simulation)) *result {
		s := base
		f(&s)
		return s.run()
	}
	last := func(f func(*server)) *result {
		return with(func(s *simulation) { s.servers = fleet(10, typical, f) })
	}
	all := scenarios{
		policy:   policy,
		normal:   with(func(*simulation) {}),
		slow:     last(func(s *server) { s.service *= 50 }),
		failing:  last(func(s *server) { s.class, s.service, s.workers = OutcomeConnectFailure, ms/10, 0 }),
		hanging:  last(func(s *server) { s.hangs = true }),
		replicas: with(func(s *simulation) { s.replicas = 20 }),
		sessions: with(func(s *simulation) { s.sessions = 1000 }),
	}
	weighted := with(func(s *simulation) {
		s.rate, s.duration = 1000, max(100*time.Second, duration)
		for i := range s.servers {
			s.servers[i].weight, s.servers[i].workers = i+1, 0
		}
	})
	for i, share := range weighted.shares {
		due := float64(i+1) / 55
		all.weightError = max(all.weightError, math.Abs(share-due)/due)
	}
	return all
}

func millis(d time.Duration) string {
	switch {
	case d > 30*time.Second: // the queue grows during the whole simulation
		return "over 30 s"
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f ms", float64(d)/float64(ms))
}

func percent(f float64) string {
	switch {
	case f > 0 && f < 0.0001:
		return "< 0.01 %"
	case f > 0 && f < 0.0995:
		return fmt.Sprintf("%.2g %%", f*100)
	}
	return fmt.Sprintf("%.0f %%", f*100)
}

// share returns n of all requests of r.
func (r *result) share(n int) float64 {
	total := 0
	for _, k := range r.perServer {
		total += k
	}
	return float64(n) / float64(total)
}

func policyTable(all []scenarios) string {
	var b strings.Builder
	b.WriteString("| policy | normal: p50, p99 | one peer 50 × slower: p99, its share | one peer refuses: failed attempts | one peer hangs: its share | 20 replicas: p99 | weights 1 to 10: largest error | 1,000 sessions: requests that change the peer |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, s := range all {
		fmt.Fprintf(&b, "| `%s` | %s, %s | %s, %s | %s | %s | %s | %s | %s |\n", s.policy,
			millis(s.normal.quantile(.5)), millis(s.normal.quantile(.99)), millis(s.slow.quantile(.99)), percent(s.slow.shares[9]),
			percent(s.failing.share(s.failing.failures)), percent(s.hanging.shares[9]), millis(s.replicas.quantile(.99)),
			percent(s.weightError), percent(s.sessions.share(s.sessions.moves)))
	}
	return b.String()
}

// TestFigures checks the claims about policies in docs/balancing.md and, with -update, writes
// the figures into it.
func TestFigures(t *testing.T) {
	t.Parallel()
	duration := 6 * time.Second
	if *update {
		duration = time.Minute
	}
	order := []Policy{PolicyEWMA, PolicyLeastConn, PolicyRoundRobin, PolicyRandom, PolicyHash, PolicySticky}
	if len(order) != len(Policies()) {
		t.Errorf("%d policies of %d", len(order), len(Policies()))
	}
	byName := make(map[Policy]scenarios)
	var all []scenarios
	for _, policy := range order {
		s := simulateScenarios(policy, duration)
		all, byName[policy] = append(all, s), s
	}
	table := policyTable(all)
	t.Log("\n" + table)
	claim := func(what string, holds bool) {
		t.Helper()
		verify.That(t, holds, "wrong in docs/balancing.md: %s", what)
	}
	ewma, least, rr, hash, sticky := byName[PolicyEWMA], byName[PolicyLeastConn], byName[PolicyRoundRobin], byName[PolicyHash], byName[PolicySticky]
	p99 := func(r *result) time.Duration { return r.quantile(.99) }
	claim("with ewma one slow peer does not double p99", p99(ewma.slow) < 2*p99(ewma.normal))
	claim("with round_robin one slow peer multiplies p99 by ten", p99(rr.slow) > 10*p99(rr.normal))
	claim("least_conn is drawn to a peer that refuses, ewma avoids it",
		least.failing.share(least.failing.failures) > .15 && ewma.failing.share(ewma.failing.failures) < .01)
	claim("many replicas do not make ewma worse than taking turns", p99(ewma.replicas) < p99(rr.replicas)*5/4)
	claim("hash keeps nearly all requests of a session together", hash.sessions.share(hash.sessions.moves) < .1)
	claim("sticky keeps them all together", sticky.sessions.moves == 0)
	for _, s := range all {
		claim(fmt.Sprintf("%s respects weights", s.policy), s.weightError < .35)
	}
	if !*update {
		return
	}
	write(t, "policies", table+"\n![p99 with one slow peer](images/slow-peer.svg)\n")
	var bars []bar
	for _, s := range all {
		bars = append(bars, bar{string(s.policy), p99(s.normal), p99(s.slow)})
	}
	writeFile(t, "../docs/images/slow-peer.svg", slowPeerChart(bars))
	writeFile(t, "../docs/images/slow-start.svg", slowStartChart())
	write(t, "hashing", hashingTable())
	write(t, "subsets", subsetTable(t))
}

// write puts text between the markers of a figure in docs/balancing.md.
func write(t *testing.T, figure, text string) {
	t.Helper()
	const file = "../docs/balancing.md"
	old := verify.Result(os.ReadFile(file)).Must(t)
	markers := regexp.MustCompile("(?s)(<!-- figure " + figure + " -->\n).*?(<!-- end -->)")
	verify.Require(t, markers.Match(old), "%s has no markers for the figure %q", file, figure)
	writeFile(t, file, markers.ReplaceAllString(string(old), "${1}"+text+"${2}"))
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o644))
}

// Two other kinds of consistent hashing, for comparison.

// ring is a hash ring with several points for each peer (D. Karger et al.,
// "Consistent Hashing and Random Trees", STOC 1997).
type ring struct {
	points []uint64
	owner  map[uint64]string
}

func newRing(addresses []string, points int) *ring {
	r := &ring{owner: make(map[uint64]string)}
	for _, a := range addresses {
		h := xxhash.Sum64String(a)
		for i := range points {
			point := mix(h + uint64(i)*tierSalt)
			r.points = append(r.points, point)
			r.owner[point] = a
		}
	}
	slices.Sort(r.points)
	return r
}

func (r *ring) at(hash uint64) string {
	i := sort.Search(len(r.points), func(i int) bool { return r.points[i] >= hash })
	return r.owner[r.points[i%len(r.points)]]
}

// rendezvous selects the peer with the highest score for a hash (D. Thaler, C. Ravishankar,
// "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998).
func rendezvous(addresses []string, hash uint64) string {
	best, owner := uint64(0), ""
	for _, a := range addresses {
		if score := mix(xxhash.Sum64String(a) ^ hash); score >= best {
			best, owner = score, a
		}
	}
	return owner
}

func hashingTable() string {
	var b strings.Builder
	b.WriteString("| peers | way | busiest peer, of the average | moves when one leaves (least possible) | when one joins | bytes |\n|---|---|---|---|---|---|\n")
	for _, n := range []int{10, 100, 1000} {
		addresses := make([]string, n+1)
		for i := range addresses {
			addresses[i] = instance(i, 1).HostPort()
		}
		ones := slices.Repeat([]int{1}, n+1)
		for _, way := range []struct {
			name  string
			make  func(addresses []string) func(uint64) string
			bytes int
		}{
			{"Maglev table", func(a []string) func(uint64) string {
				m := newMaglev(a, ones[:len(a)])
				return func(h uint64) string { return a[m.at(h)] }
			}, maglevSize * 4},
			{"ring, 128 points each", func(a []string) func(uint64) string { return newRing(a, 128).at }, n * 128 * 12},
			{"rendezvous", func(a []string) func(uint64) string {
				return func(h uint64) string { return rendezvous(a, h) }
			}, 0},
		} {
			keys := make([]uint64, 1000*1000)
			if way.bytes == 0 {
				keys = keys[:10*1000*1000/n]
			}
			for i := range keys {
				keys[i] = uint64(i) * tierSalt // evenly spread, so deviations are not random
			}
			at := way.make(addresses[:n])
			counts := make(map[string]int)
			owners := make([]string, len(keys))
			for i, k := range keys {
				owners[i] = at(k)
				counts[owners[i]]++
			}
			busiest := 0
			for _, c := range counts {
				busiest = max(busiest, c)
			}
			moves := func(after func(uint64) string) float64 {
				n := 0
				for i, k := range keys {
					if after(k) != owners[i] {
						n++
					}
				}
				return float64(n) / float64(len(keys))
			}
			left := slices.Delete(slices.Clone(addresses[:n]), n/2, n/2+1)
			even := fmt.Sprintf("%.2f", float64(busiest)*float64(n)/float64(len(keys)))
			if way.bytes == 0 {
				even = "1 in the long run"
			}
			fmt.Fprintf(&b, "| %d | %s | %s | %.2f %% (%.2f %%) | %.2f %% (%.2f %%) | %d |\n", n, way.name,
				even, moves(way.make(left))*100, 100/float64(n), moves(way.make(addresses))*100, 100/float64(n+1), way.bytes)
		}
	}
	return b.String()
}

// bookSubset is the algorithm of the book in the comment of Subset.
func bookSubset(addresses []string, replica, size int) []string {
	count := len(addresses) / size
	round := replica / count
	shuffled := slices.Clone(addresses)
	rand.New(rand.NewPCG(uint64(round), 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	start := replica % count * size
	return shuffled[start : start+size]
}

func subsetTable(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| peers, subset, replicas | way | replicas per peer | of a subset changes when one joins | when one leaves |\n|---|---|---|---|---|\n")
	for _, test := range []struct{ peers, size, replicas int }{{100, 20, 10}, {100, 20, 7}, {300, 30, 50}, {1000, 40, 50}} {
		set := instances(test.peers + 1)
		for _, way := range []string{"sluice", "the book"} {
			of := func(n int) [][]string {
				if way == "sluice" {
					return subsets(t, set[:n], test.size, test.replicas)
				}
				var all [][]string
				var addresses []string
				for _, i := range set[:n] {
					addresses = append(addresses, i.HostPort())
				}
				for replica := range test.replicas {
					all = append(all, bookSubset(addresses, replica, test.size))
				}
				return all
			}
			before := of(test.peers)
			used := make(map[string]int)
			for _, subset := range before {
				for _, a := range subset {
					used[a]++
				}
			}
			least, most := test.replicas, 0
			for _, i := range set[:test.peers] {
				least, most = min(least, used[i.HostPort()]), max(most, used[i.HostPort()])
			}
			_, joins := differences(before, of(test.peers+1))
			_, leaves := differences(before, of(test.peers-1))
			fmt.Fprintf(&b, "| %d, %d, %d | %s | %d to %d | %s | %s |\n", test.peers, test.size, test.replicas, way, least, most,
				percent(joins/float64(test.size)), percent(leaves/float64(test.size)))
		}
	}
	return b.String()
}
