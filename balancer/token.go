package balancer

import (
	"time"

	"sluice/balancer/typical"
)

// epoch is where nanotime counts from.
var epoch = time.Now()

// nanotime returns the nanoseconds of the monotonic clock since epoch.
func nanotime() int64 { return int64(time.Since(epoch)) }

// failureLatency is the least latency that a failed attempt counts as: a peer that
// refuses at once must not look fast.
const failureLatency = time.Second

// Token is an attempt on a picked peer. It may be copied; Done must be called exactly
// once for all copies.
type Token struct {
	// Peer is the peer to use.
	Peer *Peer

	start int64  // time of the pick, by nanotime
	group *Group // whose attempts in flight include this one; nil: none
	marks        // Token has four words in four fields, so that it stays in registers
}

// marks are what the pick has noted.
type marks struct {
	held     heldCounts
	limiter  uint8   // which limiter of the pool counts the attempt, from 1; 0: none
	assigned GroupID // Query.Group
	client   uint32  // Query.Client, if the peer is of the group that the split chose
}

// Picked returns the time of the pick.
func (t Token) Picked() time.Time { return epoch.Add(time.Duration(t.start)) }

// Done reports the outcome and releases the peer. It is called when the whole exchange
// has ended, for a stream when it ends. It allocates nothing, and after a success it
// reads no clock. It takes no lock, unless the peer is quiesced or on probation, requests
// wait for a connection, or Options.OnFailure takes one.
func (t Token) Done(o Outcome) {
	p := t.Peer
	// Reads come before the atomic additions, which are barriers.
	if o.Class != OutcomeOK {
		p.fail(t.start, o)
	} else if p.streak.Load() != 0 {
		p.endStreak(t.start, t.start+int64(o.Latency), o.Endpoint)
	}
	if tally := p.tally.Load(); tally != nil {
		tally.count(o, t)
		if t.client != 0 {
			tally.group.done(t, o)
		}
	}
	p.measure(o, t.start)
	if t.limiter != 0 && !o.Answered {
		t.leave(o)
	}
	p.outcomes[o.Class].Add(1)
	if t.group != nil { // also if the options at the pick did not count in held yet
		t.group.inflight.Add(-1)
	}
	switch t.held {
	case 0:
		p.release()
	case countsCopy:
		p.releaseCopy()
	default:
		if t.held&countsRecord != 0 {
			p.record.Done(t.held.attempt(t.start))
		}
		if t.held&countsCopy != 0 {
			p.releaseCopy()
			break
		}
		p.pool.Admission.dismiss(t.held)
		p.release()
	}
	p.pool.queue.released()
}

// Connected reports that the peer works, long before Done: it has accepted a stream,
// after this latency. Done must then have no latency, and Outcome.Answered.
func (t Token) Connected(latency time.Duration) {
	p := t.Peer
	if p.streak.Load() != 0 {
		p.endStreak(t.start, t.start+int64(latency), 0)
	}
	o := Outcome{Class: OutcomeOK, Latency: latency}
	if tally := p.tally.Load(); tally != nil {
		tally.count(o, t)
	}
	p.measure(o, t.start)
	t.Answered(o)
}

// Answered reports that the answer has begun, long before Done: what follows is no work that other
// requests wait for. Outcome.Answered must then be set in Done.
func (t Token) Answered(o Outcome) {
	if t.limiter != 0 {
		t.leave(o)
	}
}

// leave tells the limiter that the attempt does not wait for its answer any more.
func (t Token) leave(o Outcome) {
	t.Peer.pool.Admission.adaptive.Load().leave(t.limiter, o, t.start+int64(o.Latency))
}

// resetLatency removes all samples, and ignores attempts that have started.
func (p *Peer) resetLatency() {
	p.measured.Store(nanotime())
	p.latency.reset()
}

// measure adds the outcome of an attempt that started at this time to the peer's latency.
func (p *Peer) measure(o Outcome, start int64) {
	if start < p.measured.Load() {
		return
	}
	typical := &p.pool.typical
	end, usual := start+int64(o.Latency), typical.all.Get()
	switch o.Class {
	case OutcomeOK:
		if o.Latency > 0 && !p.begins(end) {
			p.latency.observe(typical.normal(o, end), typical.all.Get(), end)
		}
	case OutcomeSuperseded:
		if !p.begins(end) {
			p.latency.confirm(typical.normal(o, end), usual, end)
		}
	case OutcomeServerError:
		// A quick error does not make a peer fast, and a working peer has some. A
		// peer without a success counts as failing.
		if p.latency.stamp.Load() != 0 {
			p.latency.confirm(typical.normal(o, end), usual, end)
			return
		}
		fallthrough
	case OutcomeConnectFailure, OutcomeTimeout, OutcomeReset:
		if o.Shared {
			return
		}
		p.latency.penalize(max(o.Latency, failureLatency), end)
	}
}

// begins takes the first answer of the peer, at the time end, and reports whether this is one.
// Attempts that have started before have waited for the same process, so they do not count either.
func (p *Peer) begins(end int64) bool {
	first := p.latency.begin(end)
	if first {
		p.measured.Store(end)
	}
	return first
}

// clientErrors sets answers with a 4xx status apart: an endpoint has not done its work for them,
// and any client can ask for what is not there.
const clientErrors = 0x5bd1e995

// typicalLatencies are what the latencies of a pool's answers are compared with.
type typicalLatencies struct {
	all       typical.Median // of all requests
	_         [128 - 8]byte
	endpoints typical.Endpoints
}

// normal returns the latency of an answer at the time end, as if the request were a typical one of
// the pool: a peer is not slow because it has got requests that take long.
func (l *typicalLatencies) normal(o Outcome, end int64) time.Duration {
	endpoint, typical := o.Endpoint, float32(0)
	if o.Status/100 == 4 {
		endpoint ^= clientErrors
	}
	usual := float32(l.all.Get())
	if o.Class == OutcomeOK {
		usual = l.all.Add(o.Latency)
	}
	switch {
	case o.Endpoint == 0:
	case o.Class == OutcomeOK:
		typical = l.endpoints.Add(endpoint, o.Latency, end)
	default:
		typical = l.endpoints.Median(endpoint)
	}
	if typical == 0 {
		return o.Latency
	}
	return max(time.Duration(float64(o.Latency)*float64(usual)/float64(typical)), 1)
}
