package route

import (
	"math"
	"strconv"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// target returns a target with a service of its own that has n usable peers.
func target(t testing.TB, name string, n int, share float64) Target {
	t.Helper()
	pool := balancer.NewPool(name, balancertest.Complete(balancer.Options{}))
	t.Cleanup(pool.Close)
	setPeers(pool, n)
	return Target{Route: &Route{Service: &Service{Name: name, Pool: pool}}, Share: share}
}

// setPeers gives a pool n peers; below 0: -n that the registry has lost.
func setPeers(pool *balancer.Pool, n int) {
	var set []discovery.Instance
	for i := range max(n, -n) {
		one := discovery.Instance{Service: pool.Name, ID: strconv.Itoa(i), Address: "127.0.0.1", Port: 9000 + i, Tags: []string{strconv.Itoa(i)}, Weight: 1, Status: discovery.StatusPassing}
		if n < 0 {
			one.Probation = time.Unix(1, 0)
		}
		set = append(set, one)
	}
	pool.Apply(discovery.Normalize(set))
}

// The shares by usable peers are as in fabio's route table (weighTargets of
// route/route.go): fixed weights first, made smaller if they are more than all, and larger if
// nobody is there for the rest.
func TestPresentShares(t *testing.T) {
	type part struct {
		peers int
		share float64
	}
	for _, test := range []struct {
		byPeers bool
		parts   []part
		want    []float64
	}{
		{false, []part{{1, .2}, {1, .8}}, []float64{.2, .8}},
		{false, []part{{5, .2}, {1, .8}}, []float64{.2, .8}},
		{false, []part{{0, .2}, {1, .8}}, []float64{0, 1}},
		{false, []part{{1, .2}, {1, .3}, {0, .5}}, []float64{.4, .6, 0}},
		{false, []part{{0, .2}, {0, .8}}, []float64{.2, .8}},
		{false, []part{{1, 0}, {1, 1}}, []float64{0, 1}},
		{false, []part{{1, 0}, {0, 1}}, []float64{0, 1}}, // none: nobody has asked for it

		{false, []part{{-1, .2}, {1, .8}}, []float64{0, 1}}, // lost: only if there is nothing else
		{false, []part{{-1, .2}, {-1, .8}}, []float64{.2, .8}},
		{false, []part{{-1, .2}, {0, .8}}, []float64{1, 0}},
		{true, []part{{-3, 0}, {1, 0}}, []float64{0, 1}},
		{true, []part{{-3, 0}, {-1, 0}}, []float64{.75, .25}},

		{true, []part{{1, 0}, {1, 0}}, []float64{.5, .5}},
		{true, []part{{3, 0}, {1, 0}}, []float64{.75, .25}},
		{true, []part{{1, .2}, {1, 0}}, []float64{.2, .8}},
		{true, []part{{2, .2}, {3, 0}}, []float64{.4, .6}},
		{true, []part{{1, .2}, {1, .3}}, []float64{.4, .6}},
		{true, []part{{1, 2}, {1, 0}}, []float64{1, 0}},
		{true, []part{{4, .5}, {2, 1}}, []float64{.5, .5}},
		{true, []part{{0, .2}, {2, 0}, {2, 0}}, []float64{0, .5, .5}},
		{true, []part{{1, .2}, {0, 0}}, []float64{1, 0}},
		{true, []part{{0, .2}, {0, 0}}, []float64{.2, .8}},
	} {
		w := &Weighted{ByPeers: test.byPeers, Seed: "a b"}
		for i, p := range test.parts {
			w.Targets = append(w.Targets, target(t, strconv.Itoa(i), p.peers, p.share))
		}
		got := w.Shares()
		for i := range test.want {
			if math.Abs(got[i]-test.want[i]) > 1e-9 {
				t.Errorf("by peers %t, %v: shares %v, want %v", test.byPeers, test.parts, got, test.want)
				break
			}
		}
		const n = 20000
		count := make(map[*Target]float64)
		for _, key := range clients(n) {
			count[w.Choose(key)]++
		}
		for i, share := range test.want {
			most := 6 * math.Sqrt(n*share*(1-share))
			verify.That(t, math.Abs(count[&w.Targets[i]]-n*share) <= most+.5, "by peers %t, %v: target %d has %v of %d clients, want %v", test.byPeers, test.parts, i, count[&w.Targets[i]], n, n*share)
		}
	}
}

// The clients of a target without peers move to the others, whose own clients stay; they come
// back with its peers.
func TestClientsOfATargetWithoutPeers(t *testing.T) {
	w := &Weighted{Targets: []Target{target(t, "a", 1, .2), target(t, "b", 1, .3), target(t, "c", 1, .5)}, Seed: "a b c"}
	keys := clients(5000)
	choices := func() (all []*Target) {
		for _, key := range keys {
			all = append(all, w.Choose(key))
		}
		return all
	}
	before := choices()
	pool := w.Targets[1].Route.Service.Pool
	setPeers(pool, 0)
	moved := make(map[*Target]int)
	for i, now := range choices() {
		switch {
		case before[i] == &w.Targets[1]:
			moved[now]++
		case now != before[i]:
			t.Fatalf("client %d of %s moves to %s", i, before[i].Route.ServiceName(), now.Route.ServiceName())
		}
	}
	a, c := moved[&w.Targets[0]], moved[&w.Targets[2]]
	verify.That(t, moved[&w.Targets[1]] <= 0 && a >= 300 && c >= 800, "the clients of b moved %d to a, %d to c", a, c)
	setPeers(pool, 2)
	for i, now := range choices() {
		verify.Require(t, now == before[i], "client %d does not come back", i)
	}
	for i := range w.Targets {
		setPeers(w.Targets[i].Route.Service.Pool, -1)
	}
	for i, now := range choices() {
		verify.Require(t, now == before[i], "client %d moves, though the registry has lost the peers of all targets", i)
	}
}

// A request leaves its target for one with better peers: listed ones, or those that it lacks.
func TestWhichTargetIsBetter(t *testing.T) {
	for _, test := range []struct {
		own, other int
		better     bool
	}{{0, 0, false}, {0, 1, true}, {0, -1, true}, {-1, -1, false}, {-1, 1, true}, {1, 1, false}, {1, -1, false}, {-1, 0, false}} {
		w := &Weighted{Targets: []Target{target(t, "a", test.own, .5), target(t, "b", test.other, .5)}}
		verify.Equal(t, w.HasOther(w.Targets[0].Route), test.better, "%+v", test)
	}
	verify.That(t, !(*Weighted)(nil).HasOther(nil), "nothing is better than nothing")
}

// The peers of a target with a group are the group's.
func TestUsablePeersOfAGroup(t *testing.T) {
	one := target(t, "a", 0, 1)
	pool := one.Route.Service.Pool
	pool.Reconfigure(balancertest.Complete(balancer.Options{Groups: []balancer.GroupSelector{
		{Name: "canary", Selector: balancer.Selector{Tags: []string{"0"}}},
	}}))
	setPeers(pool, 3)
	for group, want := range map[string]int{"canary": 1, balancer.RestGroup: 2} {
		one.Route.Split = ToGroup(pool.Group(group))
		verify.Equal(t, one.UsablePeers(), want, "%s has peers", group)
	}
}

func TestChooseDoesNotAllocate(t *testing.T) {
	for _, byPeers := range []bool{false, true} {
		w := &Weighted{ByPeers: byPeers, Targets: []Target{target(t, "a", 0, .5), target(t, "b", 3, .5)}, Seed: "a b"}
		key := []byte("3w5e11264sgsf")
		n := testing.AllocsPerRun(100, func() { w.Choose(key) })
		verify.That(t, n <= 0, "by peers %t: %v allocations", byPeers, n)
	}
}
