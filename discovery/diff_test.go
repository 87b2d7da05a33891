package discovery

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDiff(t *testing.T) {
	a := Instance{Service: "star", ID: "a", Node: "n1", Address: "10.0.0.1", Port: 80, Weight: 1}
	b := Instance{Service: "star", ID: "b", Node: "n1", Address: "10.0.0.2", Port: 80, Weight: 1}
	heavier := a
	heavier.Weight = 10
	moved := a
	moved.Port = 81
	otherNode := a
	otherNode.Node = "n2"
	emptyTags := a
	emptyTags.Tags, emptyTags.Meta = []string{}, map[string]string{}

	for _, tt := range []struct {
		name     string
		old, new []Instance
		want     Changes
	}{
		{name: "both empty"},
		{name: "the first set", new: []Instance{b, a}, want: Changes{Added: []Instance{a, b}}},
		{name: "emptied", old: []Instance{b, a}, want: Changes{Removed: []Instance{a, b}}},
		{name: "another order", old: []Instance{a, b}, new: []Instance{b, a}},
		{name: "nil and empty are the same", old: []Instance{a}, new: []Instance{emptyTags}},
		{name: "a weight is an update", old: []Instance{a, b}, new: []Instance{heavier, b},
			want: Changes{Updated: []Update{{a, heavier}}}},
		{name: "the same id at another address is another instance", old: []Instance{a}, new: []Instance{moved},
			want: Changes{Added: []Instance{moved}, Removed: []Instance{a}}},
		{name: "another node is an update", old: []Instance{a}, new: []Instance{otherNode},
			want: Changes{Updated: []Update{{a, otherNode}}}},
		{name: "the last of equal keys counts", old: []Instance{a}, new: []Instance{a, heavier},
			want: Changes{Updated: []Update{{a, heavier}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Diff(tt.old, tt.new)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("Diff:\n got %+v\nwant %+v", got, tt.want)
			}
			if got.Empty() != (fmt.Sprint(tt.want) == fmt.Sprint(Changes{})) {
				t.Errorf("Empty() = %v for %+v", got.Empty(), got)
			}
		})
	}
}

// randomSet makes sets that are small and alike, so that two of them share
// keys, values and duplicates.
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

// index is the plain meaning of a set: the last of equal keys counts.
func index(set []Instance) map[Key]Instance {
	m := make(map[Key]Instance, len(set))
	for _, i := range set {
		m[i.Key()] = i
	}
	return m
}

func FuzzDiff(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed, seed*7)
	}
	f.Fuzz(func(t *testing.T, seed1, seed2 uint64) {
		r := rand.New(rand.NewPCG(seed1, seed2))
		old, new := randomSet(r), randomSet(r)
		oldCopy, newCopy := slices.Clone(old), slices.Clone(new)
		c := Diff(old, new)

		if !equalSets(old, oldCopy) || !equalSets(new, newCopy) {
			t.Fatal("Diff changed its input")
		}
		applied := index(old)
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
			if u.Old.Key() != u.New.Key() || !applied[u.New.Key()].Equal(u.Old) || u.Old.Equal(u.New) {
				t.Fatalf("not an update: %+v", u)
			}
			applied[u.New.Key()] = u.New
		}
		if want := index(new); !maps.EqualFunc(applied, want, Instance.Equal) {
			t.Fatalf("apply(old, Diff(old, new)):\n got %v\nwant %v", applied, want)
		}
		for name, s := range map[string][]Instance{"Added": c.Added, "Removed": c.Removed} {
			if !slices.IsSortedFunc(s, compareKeys) {
				t.Fatalf("%s is not sorted: %v", name, s)
			}
		}
	})
}

func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			old := make([]Instance, n)
			for i := range old {
				old[i] = Instance{Service: "star", ID: fmt.Sprint(i), Node: "n", Address: "10.0.0.1", Port: i + 1, Weight: 1, Tags: []string{"v1"}}
			}
			old = Normalize(old)
			new := slices.Clone(old)
			new[n/2].Weight = 2
			b.ReportAllocs()
			for b.Loop() {
				Diff(old, new)
			}
		})
	}
}
