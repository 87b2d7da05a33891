package balancer

import "time"

// failureLatency is what a failed attempt counts as at least in a peer's
// latency: a peer that refuses at once must not look fast.
const failureLatency = time.Second

// Token is a request's hold on the peer that was picked for it. It is a value
// and may be copied; Done must be called exactly once for all copies.
type Token struct {
	// Peer is the peer to use.
	Peer *Peer

	start int64 // time of the pick, by nanotime
	holds holds
}

// Picked returns when the peer was picked. It is used no more if it began to
// fail before that.
func (t Token) Picked() time.Time { return epoch.Add(time.Duration(t.start)) }

// Done reports how the attempt went and ends the request's hold on the peer,
// whose transport may be closed from then on. It is called when the whole
// exchange has ended, for a stream when it ends. It reads no clock, allocates
// nothing and takes no lock, unless it ends the last request of a peer that
// gets none any more or the use of one on probation, or Options.OnFailure does.
func (t Token) Done(o Outcome) {
	p := t.Peer
	// What is read here is on the line that release writes; read before the
	// additions, which are barriers, it costs next to nothing.
	if o.Class != OutcomeOK {
		p.fail(t.start, o)
	} else if p.streak.Load() != 0 {
		p.endStreak(t.start)
	}
	if counters := p.latencies.Load(); counters != nil {
		counters.count(o)
	}
	if t.start >= p.measured.Load() {
		p.measure(o, t.start+int64(o.Latency))
	}
	p.outcomes[o.Class].Add(1)
	if t.holds != 0 {
		p.pool.dismiss(t.holds)
	}
	p.release()
}

// forgetLatency forgets how fast the peer was, and what becomes of attempts that
// have started: they say nothing about what it is now.
func (p *Peer) forgetLatency() {
	p.measured.Store(nanotime())
	p.latency.forget()
}

// measure takes the outcome of an attempt that ended at end into the peer's
// latency.
func (p *Peer) measure(o Outcome, end int64) {
	switch o.Class {
	case OutcomeOK:
		if o.Latency > 0 {
			p.latency.observe(o.Latency, end)
		}
	case OutcomeSuperseded:
		p.latency.confirm(o.Latency, end)
	case OutcomeServerError:
		// Errors are often quick, which is no merit, and some are to be expected
		// of a peer that works. One that has yet to show that it does is in doubt.
		if p.latency.average() > 0 {
			p.latency.confirm(o.Latency, end)
			return
		}
		fallthrough
	case OutcomeConnectFailure, OutcomeTimeout, OutcomeReset:
		p.latency.penalize(max(o.Latency, failureLatency), end)
	}
}
