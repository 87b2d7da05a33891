package browser

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/consul/api"
)

// An operator drains and enables a peer on the page.
func TestDrainAndEnable(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"drained-1", "drained-2"} {
		register(t, api.AgentServiceRegistration{Name: "drained", ID: id, Port: startApp(t, id)})
	}
	g := startSluice(t, options{services: `
services: { drained: { consul: { service: drained }, balance: { policy: round_robin } } }
routes: [{ path: /, service: drained }]
`})
	p := open(t, g.AdminURL())
	p.await("both peers", func() bool { return len(p.peers()) == 2 })

	p.click(p.order("drained-1"))
	p.await("the dialog", func() bool {
		return p.text("#drain-title") == "Drain drained-1 of drained?" && !p.visible("#drain-last")
	})
	p.typeKeys(kb.Escape)
	p.await("Escape closes the dialog", func() bool { return !p.visible("#drain") })
	if got := p.peer("drained-1").State; got != "up" {
		t.Errorf("the peer is %s, and the question was not answered", got)
	}

	p.click(p.order("drained-1"))
	p.typeKeys(`new disk, "fast" & <big>` + kb.Enter)
	p.await("it is drained, and why", func() bool {
		got := p.peer("drained-1")
		return got.State == "draining" && got.Why == `drain: new disk, "fast" & <big>` && got.Order == "Enable" && !p.visible("#drain")
	})
	if got := g.send(t, 10); slices.Contains(got, "drained-1") {
		t.Errorf("it still gets requests: %q", got)
	}

	p.click(p.order("drained-2"))
	p.await("the warning about the last peer", func() bool { return p.visible("#drain-last") })
	p.click("#drain-cancel")

	deregister(t, "drained-1")
	p.await("the drain of an absent instance", func() bool {
		return strings.Contains(p.text("#services .notes"), "Drained, not registered: drained-1 at 127.0.0.1:")
	})
	p.click("#services .notes button")
	p.await("the end of the drain", func() bool { return p.text("#services .notes") == "" })

	p.click(p.order("drained-2"))
	p.typeKeys(kb.Enter)
	p.await("the last one is drained", func() bool { return strings.Contains(p.text("#services section"), "No eligible peer") })
	p.click(p.order("drained-2"))
	p.await("it is enabled", func() bool { got := p.peer("drained-2"); return got.State == "up" && got.Order == "Drain" })
	g.send(t, 2)
}

// The page shows the error of a failed order.
func TestFailedOrder(t *testing.T) {
	t.Parallel()
	register(t, api.AgentServiceRegistration{Name: "fleeting", ID: "fleeting-1", Port: startApp(t, "fleeting-1")})
	register(t, api.AgentServiceRegistration{Name: "fleeting", ID: "fleeting-2", Port: startApp(t, "fleeting-2")})
	g := startSluice(t, options{services: "services: { fleeting: { consul: { service: fleeting } } }\nroutes: [{ path: /, service: fleeting }]\n"})
	p := open(t, g.AdminURL(), "the server responded with a status of 404")
	p.await("both peers", func() bool { return len(p.peers()) == 2 })
	p.click(p.order("fleeting-1"))
	deregister(t, "fleeting-1")
	p.await("the peer is removed", func() bool { return p.peer("fleeting-1") == peer{} })
	p.typeKeys(kb.Enter)
	p.await("the reason is in the dialog", func() bool { return p.text("#drain-problem") == `service "fleeting" has no peer "fleeting-1"` })
	p.typeKeys(kb.Escape)
	p.await("the page continues", func() bool { return p.peer("fleeting-2").State == "up" && !p.visible("#drain") })
}
