package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"sluice/test/filled"
	"sluice/test/verify"
)

// fields give a field of an instance one of a few values.
var fields = []func(i *Instance, r *rand.Rand){
	func(i *Instance, r *rand.Rand) { i.ID = string(rune('a' + r.IntN(3))) },
	func(i *Instance, r *rand.Rand) { i.Node = string(rune('m' + r.IntN(2))) },
	func(i *Instance, r *rand.Rand) { i.Address = []string{"10.0.0.1", "::1"}[r.IntN(2)] },
	func(i *Instance, r *rand.Rand) { i.NodeAddress = []string{"10.0.0.1", "10.0.0.2"}[r.IntN(2)] },
	func(i *Instance, r *rand.Rand) { i.Port = 80 + r.IntN(2) },
	func(i *Instance, r *rand.Rand) { i.Weight = r.IntN(3) },
	func(i *Instance, r *rand.Rand) { i.Status = Status(r.IntN(4)) },
	func(i *Instance, r *rand.Rand) { i.Unchecked = r.IntN(2) == 0 },
	func(i *Instance, r *rand.Rand) { i.Tags = [][]string{nil, {}, {"v1"}}[r.IntN(3)] },
	func(i *Instance, r *rand.Rand) { i.Meta = []map[string]string{nil, {}, {"zone": "a"}}[r.IntN(3)] },
}

// randomSet returns small, similar sets, so that two of them share keys, values and
// duplicates.
func randomSet(r *rand.Rand) []Instance {
	set := make([]Instance, r.IntN(8))
	for n := range set {
		set[n].Service = "star"
		for _, f := range fields {
			f(&set[n], r)
		}
	}
	return set
}

// same reports whether two instances read the same. Unlike Equal, it leaves out no field.
func same(a, b Instance) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// Each field counts, but when the registration was last written.
func TestEqualSeesEachField(t *testing.T) {
	var full Instance
	filled.New(t).Fill(&full)
	values := reflect.ValueOf(full)
	for n := range values.NumField() {
		name, one := values.Type().Field(n).Name, Instance{}
		reflect.ValueOf(&one).Elem().Field(n).Set(values.Field(n))
		verify.Equal(t, one.Equal(Instance{}), name == "Registered", "equal without %s", name)
	}
}

// index returns the normalised set by key.
func index(set []Instance) map[Key]Instance { return mapped(Normalize(set)) }

func FuzzDiff(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, seed*7)
	}
	f.Fuzz(func(t *testing.T, seed1, seed2 uint64) {
		r := rand.New(rand.NewPCG(seed1, seed2))
		before, after := randomSet(r), randomSet(r)
		if seed1%2 == 0 { // as before, but for a field of each
			after = slices.Clone(before)
			for n := range after {
				fields[r.IntN(len(fields))](&after[n], r)
			}
		}
		beforeCopy, afterCopy := slices.Clone(before), slices.Clone(after)
		c := Diff(before, after)

		verify.Require(t, equalSets(before, beforeCopy) && equalSets(after, afterCopy), "Diff changed its input")
		applied := index(before)
		for _, i := range c.Removed {
			_, ok := applied[i.Key()]
			verify.Require(t, ok, "removed %+v, which was not there", i)
			delete(applied, i.Key())
		}
		for _, i := range c.Added {
			_, ok := applied[i.Key()]
			verify.Require(t, !ok, "added %+v, which was there", i)
			applied[i.Key()] = i
		}
		for _, u := range c.Updated {
			verify.Require(t, u.Old.Key() == u.New.Key() && same(applied[u.New.Key()], u.Old) && !same(u.Old, u.New), "not an update: %+v", u)
			applied[u.New.Key()] = u.New
		}
		verify.Require(t, c.Empty() == (len(c.Removed)+len(c.Added)+len(c.Updated) == 0), "Empty() is %v of %+v", c.Empty(), c)
		want := index(after)
		verify.Require(t, maps.EqualFunc(applied, want, same), "apply(before, Diff(before, after)):\n got %v\nwant %v", applied, want)
		for name, s := range map[string][]Instance{"Added": c.Added, "Removed": c.Removed} {
			verify.Require(t, slices.IsSortedFunc(s, compareKeys), "%s is not sorted: %v", name, s)
		}
	})
}

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
