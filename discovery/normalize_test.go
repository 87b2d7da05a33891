package discovery

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/test/verify"
)

// identity is what registrations of one process have in common; Key in other words.
func identity(i Instance) [4]any {
	machine := ""
	if i.Address == "::1" {
		machine = i.NodeAddress
	}
	return [...]any{i.ID, i.Address, i.Port, machine}
}

// A process that is registered with several agents is one instance: the one with the best status
// or, of equal ones, one that a check has seen, at the first of the nodes. 127.0.0.1 is another
// address on each machine.
func FuzzNormalize(f *testing.F) {
	for seed := range uint64(64) {
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
		for _, i := range set {
			registrations := slices.DeleteFunc(slices.Clone(set), func(o Instance) bool { return identity(o) != identity(i) })
			slices.SortStableFunc(registrations, func(a, b Instance) int { return cmp.Compare(a.Node, b.Node) })
			want := slices.MinFunc(registrations, func(a, b Instance) int {
				return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(fmt.Sprint(a.Unchecked), fmt.Sprint(b.Unchecked)))
			})
			want.Node, want.NodeAddress = registrations[0].Node, registrations[0].NodeAddress
			verify.Require(t, slices.ContainsFunc(got, func(i Instance) bool { return same(i, want) }), "%+v is not in %+v", want, got)
		}
	})
}
