package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fleetOf returns replicas that agree, or that differ in each service.
func fleetOf(replicas, services int, differ bool) Report {
	var r Report
	for m := range replicas {
		one := member(fmt.Sprint("r", m), "c")
		for n := range services {
			s := star("d", uint64(1000+m))
			s.Service = fmt.Sprintf("service-with-a-name-%05d", n)
			if differ {
				s.Digest = fmt.Sprint("d", m%2)
			}
			one.Services = append(one.Services, s)
		}
		r.Replicas = append(r.Replicas, one)
	}
	return r
}

// The comparison of replicas that differ in everything takes a fraction of the time between two
// surveys. A comparison of all pairs would take most of a minute.
func TestComparisonOfDifferentReplicasIsFast(t *testing.T) {
	const replicas, services, limit = 50, 3000, 15 * time.Second
	var duration time.Duration
	for range 3 { // the machine may be slow
		r := fleetOf(replicas, services, true)
		begin := time.Now()
		r.conclude()
		duration = time.Since(begin)
		if len(r.Differences) != services || len(r.Differences[0].Behind) != replicas-1 {
			t.Fatalf("%d differences, want %d: %+v", len(r.Differences), services, r.Differences[:1])
		}
		if duration < limit {
			return
		}
	}
	t.Errorf("the comparison took %v three times, want less than %v", duration, limit)
}

// behind returns the same as a comparison of all pairs.
func TestBehind(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var members []*Member
		var items []item
		for n := range 1 + random.IntN(6) {
			members = append(members, &Member{Name: fmt.Sprint(n)})
			items = append(items, item{
				value: fmt.Sprint(random.IntN(3)), source: fmt.Sprint(random.IntN(2)), index: uint64(random.IntN(4)),
			})
		}
		want := []string{}
		for n, mine := range items {
			if mine.index > 0 && slices.ContainsFunc(items, func(theirs item) bool {
				return theirs.index > mine.index && theirs.source == mine.source && theirs.value != mine.value
			}) {
				want = append(want, members[n].Name)
			}
		}
		if got := behind(members, items); !slices.Equal(got, want) {
			t.Fatalf("%+v: behind %q, want %q", items, got, want)
		}
	}
}

func BenchmarkCompare(b *testing.B) {
	for _, size := range [][2]int{{10, 1000}, {50, 1000}, {20, 3000}} {
		for _, differ := range []bool{false, true} {
			b.Run(fmt.Sprintf("replicas=%d/services=%d/differ=%v", size[0], size[1], differ), func(b *testing.B) {
				r := fleetOf(size[0], size[1], differ)
				for b.Loop() {
					r.conclude()
				}
			})
		}
	}
}
