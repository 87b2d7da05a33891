package discovery

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/test/verify"
)

func TestDiff(t *testing.T) {
	a := Instance{Service: "star", ID: "a", Node: "n1", Address: "10.0.0.1", Port: 80, Weight: 1}
	b := Instance{Service: "star", ID: "b", Node: "n1", Address: "10.0.0.2", Port: 80, Weight: 1}
	heavier := a
	heavier.Weight = 10
	critical := a
	critical.Status = StatusCritical
	moved := a
	moved.Port = 81
	otherNode := a
	otherNode.Node = "n2"
	emptyTags := a
	emptyTags.Tags, emptyTags.Meta = []string{}, map[string]string{}

	for _, tt := range []struct {
		name          string
		before, after []Instance
		want          Changes
	}{
		{name: "both empty"},
		{name: "the first set", after: []Instance{b, a}, want: Changes{Added: []Instance{a, b}}},
		{name: "emptied", before: []Instance{b, a}, want: Changes{Removed: []Instance{a, b}}},
		{name: "another order", before: []Instance{a, b}, after: []Instance{b, a}},
		{name: "nil and empty are the same", before: []Instance{a}, after: []Instance{emptyTags}},
		{name: "a weight is an update", before: []Instance{a, b}, after: []Instance{heavier, b},
			want: Changes{Updated: []Update{{a, heavier}}}},
		{name: "the same id at another address is another instance", before: []Instance{a}, after: []Instance{moved},
			want: Changes{Added: []Instance{moved}, Removed: []Instance{a}}},
		{name: "another node is an update", before: []Instance{a}, after: []Instance{otherNode},
			want: Changes{Updated: []Update{{a, otherNode}}}},
		{name: "the best of equal keys counts", before: []Instance{critical}, after: []Instance{critical, a, critical},
			want: Changes{Updated: []Update{{critical, a}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Diff(tt.before, tt.after)
			verify.That(t, fmt.Sprint(got) == fmt.Sprint(tt.want), "Diff:\n got %+v\nwant %+v", got, tt.want)
			verify.Equal(t, got.Empty(), (fmt.Sprint(tt.want) == fmt.Sprint(Changes{})), "Empty() = for %+v", got)
		})
	}
}

// randomSet returns small, similar sets, so that two of them share keys, values and
// duplicates.
func randomSet(r *rand.Rand) []Instance {
	set := make([]Instance, r.IntN(8))
	for n := range set {
		set[n] = Instance{
			Service: "star",
			ID:      string(rune('a' + r.IntN(3))),
			Node:    string(rune('m' + r.IntN(2))),
			Address: []string{"10.0.0.1", "::1"}[r.IntN(2)],
			Port:    80 + r.IntN(2),
			Weight:  r.IntN(3),
			Status:  Status(r.IntN(4)),
		}
		set[n].NodeAddress = map[string]string{"m": "10.0.0.1", "n": "10.0.0.2"}[set[n].Node]
		if r.IntN(2) == 0 {
			set[n].Tags = []string{"v1"}
		}
		if r.IntN(2) == 0 {
			set[n].Meta = map[string]string{"zone": "a"}
		}
	}
	return set
}

// index returns the normalised set by key.
func index(set []Instance) map[Key]Instance { return mapped(Normalize(set)) }

func FuzzDiff(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed, seed*7)
	}
	f.Fuzz(func(t *testing.T, seed1, seed2 uint64) {
		r := rand.New(rand.NewPCG(seed1, seed2))
		before, after := randomSet(r), randomSet(r)
		beforeCopy, afterCopy := slices.Clone(before), slices.Clone(after)
		c := Diff(before, after)

		verify.Require(t, equalSets(before, beforeCopy) && equalSets(after, afterCopy), "Diff changed its input")
		applied := index(before)
		for _, i := range c.Removed {
			if _, ok := applied[i.Key()]; !ok {
				t.Fatalf("removed %+v, which was not there", i)
			}
			delete(applied, i.Key())
		}
		for _, i := range c.Added {
			if _, ok := applied[i.Key()]; ok {
				t.Fatalf("added %+v, which was there", i)
			}
			applied[i.Key()] = i
		}
		for _, u := range c.Updated {
			verify.Require(t, u.Old.Key() == u.New.Key() && applied[u.New.Key()].Equal(u.Old) && !u.Old.Equal(u.New), "not an update: %+v", u)
			applied[u.New.Key()] = u.New
		}
		want := index(after)
		verify.Require(t, maps.EqualFunc(applied, want, Instance.Equal), "apply(before, Diff(before, after)):\n got %v\nwant %v", applied, want)
		for name, s := range map[string][]Instance{"Added": c.Added, "Removed": c.Removed} {
			verify.Require(t, slices.IsSortedFunc(s, compareKeys), "%s is not sorted: %v", name, s)
		}
	})
}

func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			before := make([]Instance, n)
			for i := range before {
				before[i] = Instance{Service: "star", ID: fmt.Sprint(i), Node: "n", Address: "10.0.0.1", Port: i + 1, Weight: 1, Tags: []string{"v1"}}
			}
			before = Normalize(before)
			after := slices.Clone(before)
			after[n/2].Weight = 2
			b.ReportAllocs()
			for b.Loop() {
				Diff(before, after)
			}
		})
	}
}
