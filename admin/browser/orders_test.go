package browser

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/consul/api"

	"sluice/test/verify"
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
		return p.text("#order-title") == "Drain drained-1 of drained?" && !p.visible("#order-last")
	})
	p.typeKeys(kb.Escape)
	p.await("Escape closes the dialog", func() bool { return !p.visible("#order") })
	verify.Equal(t, p.peer("drained-1").State, "up", "the peer, whose question was not answered")

	p.click(p.order("drained-1"))
	p.typeKeys(`new disk, "fast" & <big>` + kb.Enter)
	p.await("it is drained, and why", func() bool {
		got := p.peer("drained-1")
		return got.State == "draining" && got.Why == `drain: new disk, "fast" & <big>` && got.Order == "Enable" && !p.visible("#order")
	})
	got := g.send(t, 10)
	verify.That(t, !slices.Contains(got, "drained-1"), "it still gets requests: %q", got)

	p.click(p.order("drained-2"))
	p.await("the warning about the last peer", func() bool { return p.visible("#order-last") })
	p.click("#order-cancel")

	deregister(t, "drained-1")
	p.await("the drain of an absent instance", func() bool {
		return strings.Contains(p.text("#services .notes"), "Drained, not registered: drained-1 at 127.0.0.1:")
	})
	p.click("#services .notes button")
	p.await("the end of the drain", func() bool { return p.text("#services .notes") == "" })

	p.click(p.order("drained-2"))
	p.typeKeys(kb.Enter)
	p.await("the last one is drained", func() bool { return strings.Contains(p.text("#services .service"), "No eligible peer") })
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
	p.await("the reason is in the dialog", func() bool { return p.text("#order-problem") == `service "fleeting" has no peer "fleeting-1"` })
	p.typeKeys(kb.Escape)
	p.await("the page continues", func() bool { return p.peer("fleeting-2").State == "up" && !p.visible("#order") })
}

// An operator drains a whole node for a while, and ends that, on the page.
func TestDrainOfANode(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"rack-1", "rack-2"} {
		register(t, api.AgentServiceRegistration{Name: "rack", ID: id, Port: startApp(t, id)})
	}
	register(t, api.AgentServiceRegistration{Name: "shelf", ID: "shelf-1", Port: startApp(t, "shelf-1")})
	g := startSluice(t, options{services: `
services: { rack: { consul: {} }, shelf: { consul: {} }, fixed: { peers: ["127.0.0.1:9"] } }
routes: [{ path: /, service: rack }]
`})
	p := open(t, g.AdminURL(), "the server responded with a status of 400")
	p.await("all peers", func() bool { return len(p.peers()) == 4 && !p.visible("#orders") })
	p.click(p.order("127.0.0.1:9"))
	p.await("a peer without a node", func() bool { return p.visible("#order") && !p.visible("#order-scope") && p.visible("#order-last") })
	p.typeKeys(kb.Escape)

	node, _, _ := strings.Cut(p.peer("rack-1").Node, " ")
	p.click(p.order("rack-1"))
	p.await("the number of peers", func() bool {
		return p.text("#order-node") == "all peers of the node "+node+": 3 peers of 2 services" && p.text("#order .main") == "Drain" && !p.visible("#order-last")
	})
	evaluate[bool](p, `form.scope[0].focus(), true`)
	p.typeKeys(kb.ArrowDown)
	p.await("what it does", func() bool {
		return strings.HasPrefix(p.text("#order-effect"), "No new requests go from this replica to the node "+node+" until that is ended: 3 peers, of rack (2), shelf (1), and ") &&
			p.text("#order-last") == "No other peer serves rack, shelf: requests will be answered with 503." && p.text("#order .main") == "Drain 3 peers"
	})
	for _, width := range []int64{1280, 400} {
		p.do(chromedp.EmulateViewport(width, 800))
		fits := evaluate[bool](p, `(e => e.scrollWidth <= e.clientWidth && e.getBoundingClientRect().right <= innerWidth)(byId("order"))`)
		verify.That(t, fits, "in a window of %d pixels the dialog is too wide", width)
	}
	p.retype(`#order input[name="for"]`, "soon"+kb.Enter)
	p.await("the reason of the API", func() bool { return strings.HasPrefix(p.text("#order-problem"), "for: want a duration from 1s to ") })
	p.retype(`#order input[name="for"]`, "30m")
	p.await("the expiry", func() bool {
		return strings.Contains(p.text("#order-effect"), " to the node "+node+" for 30m: ")
	})
	p.retype(`#order input[name="why"]`, "new disks"+kb.Enter)
	p.await("all its peers are drained", func() bool {
		for _, id := range []string{"rack-1", "rack-2", "shelf-1"} {
			if got := p.peer(id); got.State != "draining" || got.Order != "Enable" || !strings.HasPrefix(got.Why, "drain: node "+node+": new disks, until 20") {
				return false
			}
		}
		return p.peer("127.0.0.1:9").State == "up" && !p.visible("#order")
	})
	p.await("the order that stands", func() bool {
		text := p.text("#orders")
		return strings.Contains(text, "node "+node+" (dc1)") && strings.Contains(text, "drain of all its peers") && strings.Contains(text, "new disks") &&
			regexp.MustCompile(`\b(30|2\d) min`).MatchString(text) && strings.Contains(text, "A restart ends them")
	})
	p.fits(400)

	p.click(`#orders button[aria-label^="End the drain of node"]`)
	p.await("the question", func() bool {
		return strings.HasPrefix(p.text("#order-effect"), "Requests may go to the node "+node+" again: 3 peers, of rack (2), shelf (1).") && p.text("#order .main") == "Enable 3 peers"
	})
	p.click("#order .main")
	p.await("the end of the drain", func() bool { return p.peer("shelf-1").State == "up" && !p.visible("#orders") && !p.visible("#order") })
}

// An operator gives a peer another weight for a while, and ends that, on the page.
func TestWeightOfAPeer(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: `
services: { weighed: { peers: ["127.0.0.1:9", "127.0.0.1:10 weight=3"] } }
routes: [{ path: /, service: weighed }]
`})
	p := open(t, g.AdminURL())
	p.await("the peers", func() bool { return len(p.peers()) == 2 })
	weight := `#services button[aria-label="Weight 3 of 127.0.0.1:10"]`
	p.click(weight)
	p.await("the dialog", func() bool {
		return p.text("#order-title") == "Weight of 127.0.0.1:10 of weighed" && evaluate[string](p, `document.activeElement.value`) == "3" && !p.visible("#order-release")
	})
	p.retype(`#order input[name="weight"]`, "70000"+kb.Enter) // the browser says what is allowed
	p.retype(`#order input[name="weight"]`, "7")
	p.retype(`#order input[name="for"]`, "1h")
	p.await("what it does", func() bool {
		return p.text("#order-effect") == "127.0.0.1:10 has the weight 7 in place of the registry's at this replica for 1h."
	})
	p.retype(`#order input[name="why"]`, "bigger"+kb.Enter)
	p.await("the weight, and why", func() bool {
		got := p.peer("127.0.0.1:10")
		return got.Weight == "7" && got.State == "up" && regexp.MustCompile(`^weight 7 by an operator: bigger, ends in (1 h|5\d min)$`).MatchString(got.Why) && p.peer("127.0.0.1:9").Weight == "1"
	})
	p.await("the order that stands", func() bool { return strings.Contains(p.text("#orders"), "weight 7") })

	p.click(`#services button[aria-label="Weight 7 of 127.0.0.1:10"]`)
	p.await("its end is offered", func() bool { return p.visible("#order-release") })
	p.click("#order-release")
	p.await("the weight of the registry", func() bool {
		got := p.peer("127.0.0.1:10")
		return got.Weight == "3" && got.Why == "" && !p.visible("#orders") && !p.visible("#order")
	})
}
