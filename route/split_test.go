package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"sluice/balancer"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// clients returns the keys of n clients, the same ones in each run.
func clients(n int) [][]byte {
	random := rand.New(rand.NewPCG(4711, 0))
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = strconv.AppendUint(nil, random.Uint64(), 36)
	}
	return keys
}

// groups are the first, the second and the third group of a pool, and its rest.
var groups = func() (list [4]*balancer.Group) {
	pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
	for i := range list {
		list[i] = pool.Group(strconv.Itoa(i))
	}
	return list
}()

// split returns one with these sizes of shares, of the first groups; the last is the rest.
func split(seed string, sizes ...float64) *Split {
	s := &Split{Rest: groups[3], Seed: seed}
	for i, size := range sizes {
		s.Shares = append(s.Shares, Share{Group: groups[i], Size: size})
	}
	return s
}

// Each group gets its share of the clients, by random keys and by similar ones.
func TestSharesOfASplit(t *testing.T) {
	const n = 20000
	random := clients(n)
	kinds := map[string]func(i int) []byte{
		"random":    func(i int) []byte { return random[i] },
		"addresses": func(i int) []byte { return fmt.Appendf(nil, "10.0.%d.%d", i/256, i%256) },
	}
	for _, sizes := range [][]float64{{0}, {.05}, {.5}, {1}, {.01, .3}, {.25, .25, .5}} {
		for name, key := range kinds {
			s := split("star", sizes...)
			got := make(map[*balancer.Group]float64)
			for i := range n {
				got[s.Group(key(i))]++
			}
			left := 1.0
			for i, size := range append(sizes, 0) {
				group := groups[i]
				if i == len(sizes) {
					group, size = groups[3], left
				}
				left -= size
				// Six standard deviations.
				if most := 6 * math.Sqrt(n*size*(1-min(size, 1))); math.Abs(got[group]-n*size) > most+.5 {
					t.Errorf("%v, %s: group %s has %v of %d, want %v", sizes, name, group.Name(), got[group], n, n*size)
				}
			}
		}
	}
}

// A larger share takes clients from the rest and moves no other; a smaller one gives
// some back.
func TestALargerShareMovesClientsOneWay(t *testing.T) {
	before := split("star", 0)
	for share := .01; share <= 1; share += .01 {
		after := split("star", share)
		for _, client := range clients(2000) {
			was, is := before.Group(client), after.Group(client)
			verify.Require(t, was != groups[0] || is == groups[0], "at %v a client left the group whose share has grown", share)
		}
		before = after
	}
}

func TestReplicasAgreeOnClients(t *testing.T) {
	same, others := 0, 0
	a, b, other := split("star", .3), split("star", .3), split("moon", .3)
	for _, client := range clients(2000) {
		verify.Require(t, a.Group(client) == b.Group(client), "two replicas disagree")
		if a.Group(client) == groups[0] {
			if same++; other.Group(client) == groups[0] {
				others++
			}
		}
	}
	// 600 ± 20; another seed has 30 % of them.
	share := float64(others) / float64(same)
	verify.That(t, share >= .2 && share <= .4, "a split with another seed has %v of the same clients, want about 0.3", share)
	got := ToGroup(groups[2]).Group([]byte("x"))
	verify.That(t, got == groups[2], "group %s, want the route's", got.Name())
}

func TestSplitDoesNotAllocate(t *testing.T) {
	s, client := split("star", .05), []byte("3w5e11264sgsf")
	verify.Equal(t, testing.AllocsPerRun(100, func() { s.Group(client) }), 0, "allocations")
}

func TestParseSplitKey(t *testing.T) {
	for text, want := range map[string]SplitKey{
		"cookie": {Source: SplitCookie}, "client_address": {Source: SplitClientAddress}, "none": {Source: SplitNone},
		"header X-User": {SplitHeader, "x-user"},
	} {
		got, err := ParseSplitKey(text)
		verify.That(t, got == want && err == nil, "%q: %v, %v", text, got, err)
	}
	for _, text := range []string{"", "header", "header ", "header a b", "cookie x", "Cookie", "query x"} {
		got, err := ParseSplitKey(text)
		verify.That(t, err != nil, "%q: %v, want an error", text, got)
	}
	verify.Equal(t, (SplitKey{SplitHeader, "x-user"}).String(), "header x-user", "result")
}

// A client that is judged carries the mark of its share, which differs from that of any share with
// other odds, and never none: a client without it is not judged.
func TestJudgedClients(t *testing.T) {
	seen := make(map[uint8]float64)
	for _, share := range []float64{0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1} {
		s := Split{Judged: ShareMark(share)}
		known, twice := seen[s.Judged]
		verify.That(t, s.Judged != 0 && !twice, "the mark of %v is %d, as that of %v", share, s.Judged, known)
		seen[s.Judged] = share
		client, mark := SplitJudged(uint64(s.JudgedClient(0xabcdef)))
		verify.That(t, client == 0xabcdef && mark == s.Judged, "client %x, mark %d", client, mark)
		verify.That(t, s.JudgedClient(1<<40) != 0, "share %v: a client whose last bits are 0 is none", share)
	}
	verify.Equal(t, new(Split).JudgedClient(7), uint32(0), "a client that nobody judges")
}
