package browser

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/hashicorp/consul/api"

	"sluice/test/verify"
)

// events returns the sentences of the list of what happened, the latest first.
func (p *page) events() []string {
	p.t.Helper()
	return evaluate[[]string](p, `[...document.querySelectorAll("#happened-list .long")].map(e => e.textContent)`)
}

// latest returns the sentence of the latest event, or "".
func (p *page) latest() string {
	p.t.Helper()
	if all := p.events(); len(all) > 0 {
		return all[0]
	}
	return ""
}

// choose selects an option as a user does.
func (p *page) choose(selector, value string) {
	p.t.Helper()
	evaluate[bool](p, `(e => { e.value = `+quote(value)+`; return e.dispatchEvent(new Event("change")) })(document.querySelector(`+quote(selector)+`))`)
}

// The page lists what happens as it happens. What it shows of it is in the address.
func TestPageTellsWhatHappens(t *testing.T) {
	t.Parallel()
	register(t, api.AgentServiceRegistration{Name: "told", ID: "told-1", Port: startApp(t, "told-1")})
	g := startSluice(t, options{services: `
services:
  told: { consul: { service: told } }
  fixed: { peers: ["127.0.0.1:9", "127.0.0.1:10", "127.0.0.1:11"] }
routes: [{ path: /, service: told }, { path: /fixed, service: fixed }]
`})
	p := open(t, g.AdminURL())
	has := func(text string) func() bool {
		return func() bool { return strings.Contains(p.latest(), text) }
	}
	p.await("the start", has("sluice is ready"))
	const markup = `<img src=x onerror="window.broken = 1">`
	check(t, "told-1", api.HealthCritical, markup)
	p.await("the failed check, as text", has("told-1 is unhealthy, it was up: consul: critical: Service 'told' check: "+markup))
	for _, part := range []string{"warning", "told", "peer.unhealthy"} {
		verify.Contains(t, p.text("#happened-list li"), part, "the row")
	}
	verify.That(t, !evaluate[bool](p, `"broken" in window`), "a text was read as HTML")
	check(t, "told-1", api.HealthPassing, "")
	p.await("the recovery", has("told-1 is up, it was unhealthy"))
	verify.Equal(t, len(p.events()), 5, "events are shown")
	p.click("#happened-all")
	p.await("all events", func() bool { return len(p.events()) == 9 && p.text("#happened-all") == "Show fewer" })

	p.choose("#happened-group", "config")
	p.await("those of the configuration", func() bool { return len(p.events()) == 1 && has("Revision 1")() })
	address := evaluate[string](p, "location.href")
	verify.That(t, strings.HasSuffix(address, "/?all&happened=config"), "the address is %s", address)
	p.retype("#filter", "sluice.yaml")
	p.await("none with this text", func() bool { return len(p.events()) == 0 && strings.HasPrefix(p.text("#happened-count"), "nothing") })
	g.write(t, strings.ReplaceAll(g.read(t), "127.0.0.1:11", "127.0.0.1:12"))
	p.await("the new configuration", has("Revision 2 of the configuration was applied: changed: "))
	p.await("the head", func() bool { return strings.HasPrefix(p.text("#config"), "configuration 2 ") })
	p.do(chromedp.Reload())
	p.await("the same after a reload", func() bool { return len(p.events()) == 1 && has("Revision 2")() })
	p.retype("#filter", "")
	p.await("the address without the filter", func() bool { return evaluate[string](p, "location.href") == address })
	p.retype("#filter", "fixed")
	p.choose("#happened-group", "peer")
	p.await("the events of a service", func() bool { return len(p.events()) == 6 })
	p.click("#wrong")
	p.await("problems only", func() bool { return len(p.events()) == 0 })
	p.fitsIn(1280, 400)
}

// A failed check changes the row at once: the page does not ask again by itself in this test.
func TestRowFollowsAFailedCheckAtOnce(t *testing.T) {
	t.Parallel()
	register(t, api.AgentServiceRegistration{Name: "prompt", ID: "prompt-1", Port: startApp(t, "prompt-1")})
	g := startSluice(t, options{services: "services: { prompt: { consul: { service: prompt } } }\nroutes: [{ path: /, service: prompt }]\n"})
	p := open(t, g.AdminURL())
	p.await("the peer, and the feed", func() bool { return p.peer("prompt-1").State == "up" && evaluate[bool](p, "live") })
	evaluate[bool](p, `roundEvery = () => 1e9, wake(), true`)
	check(t, "prompt-1", api.HealthCritical, "")
	p.await("the row", func() bool { return p.peer("prompt-1").State == "unhealthy" })
	check(t, "prompt-1", api.HealthPassing, "")
	p.await("the row is back", func() bool { return p.peer("prompt-1").State == "up" })
}
