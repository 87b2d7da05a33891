package proxy

import (
	"strings"
	"time"

	"sluice/balancer"
	"sluice/observe/tracing"
	"sluice/proxy/accesslog"
	"sluice/proxy/attempt"
)

// maxTried is how many tries of an exchange are remembered. There are more only if an
// exchange leaves peers again and again.
const maxTried = attempt.MaxTries + 1

// A tried is a try of an exchange, for the access log and its spans.
type tried struct {
	peer     *balancer.Peer
	start    time.Duration // from the start of the exchange to the pick
	duration time.Duration // 0: to the end of the exchange
	connect  time.Duration // 0: no connection was opened, or it is unknown
	status   int           // of the peer's response; 0: none
	class    balancer.OutcomeClass
	span     tracing.SpanID // zero: none
}

// triedPeers are the tries of an exchange, in the order in which they began. The last
// place has the last one.
type triedPeers struct {
	count int
	list  [maxTried]tried
}

// begin adds a try.
func (p *triedPeers) begin(peer *balancer.Peer, start time.Duration) *tried {
	t := &p.list[min(p.count, maxTried-1)]
	// Field by field: a composite literal would be copied.
	t.peer, t.start, t.duration, t.connect = peer, start, 0, 0
	t.status, t.class, t.span = 0, 0, tracing.SpanID{}
	p.count++
	return t
}

// of returns the latest try of the peer, or nil.
func (p *triedPeers) of(peer *balancer.Peer) *tried {
	all := p.all()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].peer == peer {
			return &all[i]
		}
	}
	return nil
}

func (p *triedPeers) all() []tried { return p.list[:min(p.count, maxTried)] }

// reset begins with another exchange. The peers of the last one stay in memory until clear.
func (p *triedPeers) reset() { p.count = 0 }

// clear forgets the peers.
func (p *triedPeers) clear() { *p = triedPeers{} }

// end records the outcome of a try of an exchange that began at start.
func (t *tried) end(o balancer.Outcome, exchangeStart time.Time) {
	if t.class = o.Class; o.Class != balancer.OutcomeOK && o.Class != balancer.OutcomeServerError {
		t.duration = time.Since(exchangeStart) - t.start
	}
}

// took returns how long the try took, in an exchange that took total.
func (t *tried) took(total time.Duration) time.Duration {
	if t.duration == 0 {
		return total - t.start
	}
	return t.duration
}

// outcomeLabels are the names of outcomes in metrics and logs.
var outcomeLabels = func() (labels [balancer.NumOutcomes]string) {
	for class := range labels {
		labels[class] = strings.ReplaceAll(balancer.OutcomeClass(class).String(), " ", "_")
	}
	return labels
}()

// appendTries appends what the access log says of the tries of an exchange that took total.
func (p *triedPeers) appendTries(to []accesslog.Try, total time.Duration) []accesslog.Try {
	all := p.all()
	for i := range all {
		t := &all[i]
		to = append(to, accesslog.Try{
			Peer: t.peer.Address(), Outcome: outcomeLabels[t.class], Status: t.status, Start: t.start, Duration: t.took(total),
		})
	}
	return to
}
