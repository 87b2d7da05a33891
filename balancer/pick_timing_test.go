package balancer

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkPick measures a pick and its end, by policy and number of peers, with equal and with
// different weights.
func BenchmarkPick(b *testing.B) {
	for _, policy := range Policies() {
		for _, n := range []int{1, 10, 100, 1000} {
			for _, weights := range []int{1, 7} {
				b.Run(fmt.Sprintf("%s/%d/%d", policy, weights, n), func(b *testing.B) {
					p := newTestPool(b, Options{Policy: policy})
					set := instances(n)
					for i := range set {
						set[i].Weight = 1 + i%weights
					}
					p.Apply(set)
					for i, peer := range p.Snapshot().All { // as after some traffic
						peer.latency.observe(time.Duration(i+1)*time.Millisecond, time.Millisecond, nanotime())
					}
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							token, _ := p.Pick(nil)
							token.Done(Outcome{Class: OutcomeOK, Status: 200, Latency: time.Millisecond})
						}
					})
				})
			}
		}
	}
}
