package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/healthcheck"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// Client A asks for what no peer answers well, again and again, and client B for what all do: B
// keeps all peers, whatever A is answered.
func TestPoisonousURLEjectsNone(t *testing.T) {
	t.Parallel()
	const status = "HTTP/1.1 200 OK\r\n"
	type test struct {
		answer  string // of the poisonous URL; then the peer closes
		class   balancer.OutcomeClass
		because string // the status that A gets
	}
	eachCase(t, map[string]test{
		"close":              {"", balancer.OutcomeReset, "502"},
		"not HTTP":           {"nonsense\r\n", balancer.OutcomeReset, "502"},
		"a wrong length":     {status + "Content-Length: 20\r\n\r\n{}", balancer.OutcomeReset, "200"},
		"two lengths":        {status + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", balancer.OutcomeRefused, "502"},
		"a malformed field":  {status + "A: \x00\r\nContent-Length: 2\r\n\r\nok", balancer.OutcomeRefused, "502"},
		"a folded line":      {status + "A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", balancer.OutcomeRefused, "502"},
		"500 head and close": {"HTTP/1.1 500 Oops\r\nContent-Length: 999\r\n\r\n", balancer.OutcomeReset, "500"},
	}, func(t *testing.T, test test) {
		const peers, rounds = 4, 40
		var addresses []string
		for range peers {
			addresses = append(addresses, startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
				if r.URL.Path != "/poison" {
					return c.write(okResponse)
				}
				io.WriteString(c.Conn, test.answer)
				return false
			})).address())
		}
		p := startProxy(t, Options{}, addresses...)
		settings := healthcheck.Settings{Passive: healthcheck.Passive{
			ConsecutiveFailures: 5, Consecutive5xx: 5, Interval: time.Hour, Ejection: time.Hour, MaxEjection: time.Hour, MaxEjected: 1,
		}}
		monitor := healthcheck.NewMonitor(healthcheck.Options{MaxChecks: 1})
		defer monitor.Close()
		checker := monitor.NewChecker()
		options := balancer.Options{Policy: balancer.PolicyRoundRobin, NewTransport: p.NewTransport(transportOf(t))}
		checker.Start(p.pool, settings)
		checker.Reconfigure(checker.Adapt(balancertest.Complete(options), settings), settings)
		for i := range rounds {
			a, _ := io.ReadAll(p.send("GET /poison HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
			verify.That(t, strings.HasPrefix(string(a), "HTTP/1.1 "+test.because+" "), "A got %q", a)
			if i%2 == 0 {
				b, _ := io.ReadAll(p.send(closingRequest))
				verify.That(t, strings.HasPrefix(string(b), "HTTP/1.1 200 "), "B got %q", b)
			}
		}
		checker.Stop() // its verdicts are in the pool
		for _, peer := range p.pool.Snapshot().All {
			verify.That(t, peer.State() == balancer.StateUp, "%s is %v: %v", peer.Address(), peer.State(), peer.Reasons())
			verify.That(t, peer.Outcomes()[test.class] > 0, "%s has no outcome %q: %v", peer.Address(), test.class, peer.Outcomes())
		}
	})
}
