package balancer

import (
	"testing"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// The state of a peer survives each change that does not create another peer.
func TestWeightOnlyChangeKeepsState(t *testing.T) {
	p := newTestPool(t, Options{NewTransport: newTestTransport}, instances(1)...)
	first := mustPick(t, p, nil)
	first.Done(Outcome{Class: OutcomeServerError, Latency: 7 * time.Millisecond})
	second := mustPick(t, p, nil)
	peer, transport, latency := second.Peer, second.Peer.Transport, second.Peer.Latency()

	changed := instance(0, 5)
	changed.Tags = []string{"v2"}
	changed.Meta = map[string]string{"zone": "b"}
	changed.Status = discovery.StatusWarning
	changes := p.Apply([]discovery.Instance{changed, instance(1, 1)})
	verify.That(t, len(changes.Updated) == 1 && len(changes.Added) == 1 && len(changes.Removed) == 0, "changes %+v, want one update and one addition", changes)
	got := peerOf(t, p, changed)
	verify.Require(t, got == peer, "the peer was replaced")
	verify.That(t, peer.Weight() == 5 && peer.Instance().Tags[0] == "v2" &&
		peer.Instance().Meta["zone"] == "b",
		"weight %d, instance %+v; want what was applied", peer.Weight(), peer.Instance())
	verify.That(t, peer.Inflight() == 1 && peer.Requests() == 1 && peer.Failures() == 1,
		"in flight %d, requests %d, failures %d; want 1, 1, 1", peer.Inflight(), peer.Requests(), peer.Failures())
	verify.That(t, peer.Latency() == latency && latency != 0,
		"latency %v, want %v", peer.Latency(), latency)
	verify.That(t, peer.Transport == transport && transportOf(peer).drains.Load() == 0 && transportOf(peer).closes.Load() == 0, "the transport was replaced, drained or closed")
	p.Reconfigure(complete(Options{Policy: PolicyRoundRobin}))
	verify.That(t, peerOf(t, p, changed) == peer && peer.Inflight() == 1 && peer.Transport == transport, "Reconfigure lost state")
	second.Done(Outcome{})
}

func TestHealthOfTheRegistry(t *testing.T) {
	f := func(status discovery.Status, weight int, detail string, want State, reasons ...string) {
		t.Helper()
		i := instance(0, weight)
		i.Status, i.Detail = status, detail
		p := newTestPool(t, Options{}, i)
		peer := peerOf(t, p, i)
		verify.Equal(t, peer.State(), want, "%v, weight %d: state", status, weight)
		verify.Slices(t, peer.Reasons(), reasons, "%v, weight %d: reasons", status, weight)
		_, err := p.Pick(nil)
		verify.That(t, (want != StateUp || err == nil) && (want == StateUp || err == ErrNoEligible), "%v, weight %d: Pick: %v", status, weight, err)
	}
	f(discovery.StatusPassing, 1, "", StateUp)
	f(discovery.StatusPassing, 1<<40, "", StateUp)
	f(discovery.StatusPassing, 0, "", StateUnhealthy, "consul: weight 0")
	f(discovery.StatusPassing, -1, "", StateUnhealthy, "consul: weight 0")
	f(discovery.StatusWarning, 1, "disk: 91 %", StateUp)
	f(discovery.StatusWarning, 0, "disk: 91 %", StateUnhealthy, "consul: warning: disk: 91 %")
	f(discovery.StatusCritical, 0, "http: refused", StateUnhealthy, "consul: critical: http: refused")
	f(discovery.StatusCritical, 1, "", StateUnhealthy, "consul: critical")
	f(discovery.StatusMaintenance, 0, "", StateUnhealthy, "consul: maintenance")
}

func TestOutcomesAreCounted(t *testing.T) {
	p := newTestPool(t, Options{}, instances(1)...)
	var peer *Peer
	for c := range NumOutcomes {
		for range c + 1 {
			token := mustPick(t, p, nil)
			peer = token.Peer
			token.Done(Outcome{Class: OutcomeClass(c)})
		}
	}
	for c, n := range peer.Outcomes() {
		verify.Equal(t, n, uint64(c+1), "%v", OutcomeClass(c))
	}
	verify.Equal(t, peer.Requests(), 66, "requests")
	verify.Equal(t, peer.Failures(), 2+3+4+5, "failures")
}
