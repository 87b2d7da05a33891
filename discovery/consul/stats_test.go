package consul

import (
	"testing"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func TestStatsMatchTheRequestsToConsul(t *testing.T) {
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(10*sec, "0s: a")
		b.Break(discoverytest.Fault{Status: 429, Only: func(r discoverytest.Request) bool { return r.Service != "" }})
		b.at(15 * sec)
		b.Heal()
		b.at(30 * sec)
		s := b.client.Stats()
		seen, probes := b.Requests(), b.Probes()
		want := uint64(len(seen) + probes)
		verify.That(t, s.Queries == want, "%d queries, Consul got %d", s.Queries, want)
		verify.Equal(t, s.Probes, uint64(probes), "probes, Consul got %d", probes)
		errors := b.status().Errors
		verify.That(t, s.Refused > 0 && s.Errors == s.Refused && s.Errors == errors, "%+v: want %d errors, one per answer 429", s, errors)
		verify.That(t, s.Opened == uint64(s.Connections) && s.Opened == 2 && s.Watches == 1 && s.OnOverview == 0,
			"%+v: want one connection for the watch and one for probes", s)
	})
}
