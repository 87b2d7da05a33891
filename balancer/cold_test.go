package balancer

import (
	"testing"
	"time"

	"sluice/test/verify"
)

// A first answer is no sample, nor is an answer to a request that was sent before it: they may
// have waited for the same. A failure is one at once.
func TestAFirstAnswerIsNoSample(t *testing.T) {
	for _, c := range []struct {
		class OutcomeClass
		want  time.Duration
	}{{OutcomeOK, 0}, {OutcomeSuperseded, 0}, {OutcomeServerError, time.Second}, {OutcomeReset, time.Second}} {
		p := Peer{pool: new(Pool)}
		p.measure(Outcome{Class: c.class, Latency: 300 * ms}, begin)
		verify.Equal(t, p.Latency(), c.want, "%v: latency after the first outcome", c.class)
		p.measure(Outcome{Class: OutcomeOK, Latency: 301 * ms}, begin+int64(200*ms))
		if c.want == 0 {
			verify.Equal(t, p.Latency(), 0, "%v: latency after an answer to an earlier request", c.class)
			p.measure(Outcome{Class: OutcomeOK, Latency: 2 * ms}, begin+int64(600*ms))
			verify.Equal(t, p.Latency(), 2*ms, "%v: latency after a later answer", c.class)
		}
	}
	p := Peer{pool: new(Pool)}
	p.measure(Outcome{Class: OutcomeOK, Latency: 20 * ms}, begin)
	for i := range 3 { // errors at once
		p.measure(Outcome{Class: OutcomeServerError, Latency: ms}, begin+int64(time.Second)*int64(i+1))
	}
	verify.Equal(t, p.Latency(), 0, "latency after quick errors of a peer with one answer")
}
