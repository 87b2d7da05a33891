package balancer

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sluice/discovery"
)

// Sizes of the measured pools.
var benchmarkSizes = []int{1, 10, 100, 1000}

// weighted returns n instances with weights from 1 to 7.
func weighted(n int) []discovery.Instance {
	set := make([]discovery.Instance, n)
	for i := range set {
		set[i] = instance(i, 1+i%7)
	}
	return set
}

// forEachPool runs f for each policy and size, with equal weights and, if the policy uses
// weights, with different ones.
func forEachPool(b *testing.B, f func(b *testing.B, p *Pool, set []discovery.Instance)) {
	for _, policy := range Policies() {
		for _, n := range benchmarkSizes {
			for _, variant := range []struct {
				name string
				set  []discovery.Instance
			}{{"equal", instances(n)}, {"weighted", weighted(n)}} {
				if n == 1 && variant.name == "weighted" {
					continue
				}
				b.Run(fmt.Sprintf("%s/%s/%d", policy, variant.name, n), func(b *testing.B) {
					p := newTestPool(b, Options{Policy: policy})
					p.Apply(variant.set)
					for i, peer := range p.Snapshot().All { // as after some traffic
						peer.latency.observe(time.Duration(i+1)*time.Millisecond, nanotime())
					}
					b.ReportAllocs()
					f(b, p, variant.set)
				})
			}
		}
	}
}

func pickOnce(b *testing.B, p *Pool, q *Query) {
	token, err := p.Pick(q)
	if err != nil {
		b.Error(err)
		return
	}
	token.Done(Outcome{Class: OutcomeOK, Status: 200, Latency: time.Millisecond})
}

func BenchmarkPick(b *testing.B) {
	forEachPool(b, func(b *testing.B, p *Pool, _ []discovery.Instance) {
		var q Query
		for b.Loop() {
			pickOnce(b, p, &q)
		}
	})
}

func BenchmarkPickParallel(b *testing.B) {
	forEachPool(b, func(b *testing.B, p *Pool, _ []discovery.Instance) {
		b.RunParallel(func(pb *testing.PB) {
			var q Query
			for pb.Next() {
				pickOnce(b, p, &q)
			}
		})
	})
}

// BenchmarkPickChurn picks while a writer changes the set every millisecond.
func BenchmarkPickChurn(b *testing.B) {
	forEachPool(b, func(b *testing.B, p *Pool, set []discovery.Instance) {
		var stop atomic.Bool
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			ticker := time.NewTicker(time.Millisecond)
			defer ticker.Stop()
			for left := false; !stop.Load(); left = !left {
				<-ticker.C
				if left {
					p.Apply(set)
				} else {
					p.Apply(set[:(len(set)+1)/2])
				}
			}
		}()
		b.RunParallel(func(pb *testing.PB) {
			var q Query
			for pb.Next() {
				pickOnce(b, p, &q)
			}
		})
		stop.Store(true)
		<-ended
	})
}

func BenchmarkBuild(b *testing.B) {
	forEachPool(b, func(b *testing.B, p *Pool, _ []discovery.Instance) {
		all := p.Snapshot().All
		for b.Loop() {
			build(p.Snapshot(), &p.options, p.currentGroupsLocked(), &p.inflight, all, nil, time.Time{})
		}
	})
}

func BenchmarkApply(b *testing.B) {
	forEachPool(b, func(b *testing.B, p *Pool, set []discovery.Instance) {
		changed := append([]discovery.Instance{}, set...)
		changed[0].Weight += 2
		b.ResetTimer()
		for i := range b.N {
			if i%2 == 0 {
				p.Apply(changed)
			} else {
				p.Apply(set)
			}
		}
	})
}

func BenchmarkNanotime(b *testing.B) {
	for b.Loop() {
		nanotime()
	}
}
