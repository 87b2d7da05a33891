package proof_test

import (
	"testing"
	"time"

	"sluice/balancer"
	"sluice/balancer/proof"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// BenchmarkProof measures a pick and its end, without and with a proof.
func BenchmarkProof(b *testing.B) {
	with := proof.New(func(e balancer.Event) { b.Error(e.Detail) })
	for name, witness := range map[string]func(*balancer.Pool) balancer.Witness{"off": nil, "on": with.Witness} {
		b.Run(name, func(b *testing.B) {
			p := verify.Result(balancer.NewPool("star", balancertest.Complete(balancer.Options{NewWitness: witness}))).Must(b)
			defer p.Close()
			p.Apply(instances())
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					token, _ := p.Pick(nil)
					token.Done(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200, Latency: time.Millisecond})
				}
			})
		})
	}
}
