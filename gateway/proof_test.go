package gateway

import (
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/observe/events"
	"sluice/test/verify"
)

// A reload switches the proof of a service on and off. What it finds is counted, logged and in the feed.
func TestProofIsSwitchedByAReload(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	configured := func(balance string) string {
		return "services: { a: { peers: [" + a + "]" + balance + " } }\nroutes: [{ service: a }]"
	}
	r := start(t, configured(""))
	r.awaitReady()
	r.gets("/", "a")
	pool := r.services.pool("a")
	doneTwice := func() {
		token := verify.Result(pool.Pick(nil)).Must(t)
		second := verify.Result(pool.Pick(nil)).Must(t) // is never done: so the pool's count is right in the end
		token.Done(balancer.Outcome{})
		token.Done(balancer.Outcome{})
		verify.Equal(t, second.Peer, token.Peer, "peer")
	}
	counted := func() string {
		_, n, _ := strings.Cut(r.metrics(), `sluice_violations_total{kind="token"} `)
		n, _, _ = strings.Cut(n, "\n")
		return n
	}
	doneTwice()
	verify.Equal(t, counted(), "0", "without the proof")
	r.replace(configured(", balance: { proof: true }"))
	r.gets("/", "a", "with the proof")
	doneTwice()
	verify.Equal(t, counted(), "1", "with the proof")
	r.awaitLog("a rule of the balancer was not kept")
	list := fetch[[]events.Event](r, "/api/events?format=json&kind="+string(events.KindBroken))
	verify.Require(t, len(list) == 1, "events %+v", list)
	e := list[0]
	verify.That(t, e.Service == "a" && e.Address == a && strings.Contains(e.Text, "a token of the peer was done twice"), "event %+v", e)
	r.replace(configured(""))
	doneTwice()
	verify.Equal(t, counted(), "1", "without it again")
}
