package discovery

import (
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/test/verify"
)

func TestNormalizeSameIDOnTwoNodesIsOneInstance(t *testing.T) {
	onA := Instance{Service: "star", ID: "star-1", Node: "a", Address: "10.0.0.1", Port: 80,
		Status: StatusCritical, Detail: "Serf Health Status: Agent not live or unreachable"}
	onB := Instance{Service: "star", ID: "star-1", Node: "b", Address: "10.0.0.1", Port: 80, Weight: 1, Tags: []string{"v1"}}
	elsewhere := onB
	elsewhere.Address = "10.0.0.2"

	got := Normalize([]Instance{elsewhere, onB, onA})
	merged := onB
	merged.Node = "a"
	if want := []Instance{merged, elsewhere}; !equalSets(got, want) {
		t.Errorf("Normalize:\n got %+v\nwant %+v", got, want)
	}

	onA.Status, onA.Weight = StatusPassing, 3
	got = Normalize([]Instance{onA, onB})
	if want := []Instance{onA}; !equalSets(got, want) {
		t.Errorf("both passing:\n got %+v\nwant %+v", got, want)
	}
}

// A check of one agent fails. Another agent is unreachable, so its status is unchecked.
func TestNormalizePrefersCheckedInstances(t *testing.T) {
	checked := Instance{Service: "star", ID: "star-1", Node: "a", Address: "10.0.0.1", Port: 80, Status: StatusCritical, Detail: "http: 500"}
	unchecked := checked
	unchecked.Unchecked, unchecked.Detail = true, "Serf Health Status: Agent not live or unreachable"
	for _, nodes := range [][2]string{{"a", "b"}, {"b", "a"}} {
		checked.Node, unchecked.Node = nodes[0], nodes[1]
		want := checked
		want.Node = "a"
		if got := Normalize([]Instance{checked, unchecked}); !equalSets(got, []Instance{want}) {
			t.Errorf("checked through %s: got %+v", nodes[0], got)
		}
	}
}

// 127.0.0.1 is another address on each machine.
func TestNormalizeSeparatesLoopbackAddressesOfTwoMachines(t *testing.T) {
	on := func(node, machine, address string) Instance {
		return Instance{Service: "star", ID: "star-1", Node: node, NodeAddress: machine, Address: address, Port: 80, Weight: 1}
	}
	for _, address := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.1.1", "localhost"} {
		a, b := on("a", "10.0.0.1", address), on("b", "10.0.0.2", address)
		second := on("second-agent-of-a", "10.0.0.1", address)
		if got := Normalize([]Instance{second, b, a}); !equalSets(got, []Instance{a, b}) {
			t.Errorf("%s: got %+v", address, got)
		}
		namesake := on("a", "10.9.0.1", address) // of another data centre
		if got := Normalize([]Instance{namesake, a}); !equalSets(got, []Instance{a, namesake}) {
			t.Errorf("%s: got %+v", address, got)
		}
	}
	a, b := on("a", "10.0.0.1", "10.0.0.9"), on("b", "10.0.0.2", "10.0.0.9")
	if got := Normalize([]Instance{b, a}); !equalSets(got, []Instance{a}) {
		t.Errorf("a unique address: got %+v", got)
	}
}

func FuzzNormalize(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		set := randomSet(r)
		before := slices.Clone(set)
		got := Normalize(set)
		verify.Require(t, equalSets(set, before), "Normalize changed its input")
		for n := 1; n < len(got); n++ {
			verify.Require(t, compareKeys(got[n-1], got[n]) < 0, "keys do not ascend: %v", got)
		}
		verify.Require(t, equalSets(Normalize(got), got), "not idempotent: %v", got)
		best := func(set []Instance, like Instance) Status {
			status := StatusMaintenance
			for _, i := range set {
				if i.Key() == like.Key() {
					status = min(status, i.Status)
				}
			}
			return status
		}
		for _, i := range set {
			n := slices.IndexFunc(got, func(g Instance) bool { return g.Key() == i.Key() })
			verify.Require(t, n >= 0, "%+v was lost", i)
			if want := best(set, i); got[n].Status != want {
				t.Fatalf("%+v became %+v, want status %v", i, got[n], want)
			}
		}
	})
}
