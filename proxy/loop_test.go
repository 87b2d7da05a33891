package proxy

import (
	"strings"
	"testing"

	"sluice/proxy/refusal"
	"sluice/test/verify"
)

// A route that leads back to sluice is found out after a few hops, and what that
// comes to is not held against the peer.
func TestLoopIsRefused(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	p.setPeers(p.address)
	conn := p.send(getRequest)
	status, body := readResponse(t, conn)
	verify.That(t, status == 400 && strings.Contains(body, "the request has come through sluice 5 times"), "got %d %q", status, body)
	eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	peer := p.pool.Snapshot().All[0]
	verify.Equal(t, peer.Requests(), refusal.MaxHops, "requests to the peer")
	p.expectNothingCounted()
}

func TestWhatIsNotForwarded(t *testing.T) {
	t.Parallel()
	trusted := Options{TrustedProxies: loopback}
	for _, test := range []struct {
		name, lines string
		options     Options
		reason      string // none: forwarded
	}{
		{name: "a few hops", lines: "Via: 1.1 sluice\r\nVia: 1.0 sluice, 1.1 sluice (x), HTTP/1.1 sluice\r\n"},
		{name: "one more", lines: "Via: 1.1 sluice\r\nVia: 1.0 sluice, 1.1 sluice (x),\t1.1 SLUICE, HTTP/1.1 sluice\r\n", reason: "loop"},
		{name: "many others", lines: strings.Repeat("Via: 1.1 a.sluice, 1.1 sluice2, 1.1, sluice, sluice 1.1, 1.1  \r\n", 20)},
		{name: "as many addresses as allowed", options: trusted, lines: strings.Repeat("X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", 50)},
		{name: "one more address", options: trusted, lines: strings.Repeat("X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", 50) + "X-Forwarded-For: 192.0.2.3\r\n", reason: "too_many_addresses"},
		{name: "in one line", options: trusted, lines: "X-Forwarded-For: 192.0.2.1" + strings.Repeat(", 192.0.2.2", 100) + "\r\n", reason: "too_many_addresses"},
		{name: "from those whose word is not taken", lines: "X-Forwarded-For: 192.0.2.1" + strings.Repeat(", 192.0.2.2", 100) + "\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			origin := startOrigin(t, answering(okResponse))
			p := startProxy(t, test.options, origin.address())
			answer := p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + test.lines + "\r\n")
			if test.reason != "" {
				expectReason(t, answer, "400", test.reason)
				verify.Equal(t, origin.got(), "", "the peer")
			} else {
				verify.Contains(t, answer, "HTTP/1.1 200 ", "the answer")
			}
		})
	}
}
