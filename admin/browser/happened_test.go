package browser

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
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
	verify.That(t, strings.HasSuffix(address, "/?all&happened=config"),
		"the address is %s", address)
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

// The feed goes on when sluice has restarted, also in a page that was in the background.
func TestFeedContinuesAfterARestart(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: "services: { fixed: { peers: ['127.0.0.1:9'] } }\nroutes: [{ path: /, service: fixed }]\n"})
	p := open(t, g.AdminURL(), "net::ERR_")
	p.await("the start", func() bool { return len(p.events()) == 4 && evaluate[bool](p, "live") })
	verify.NoError(t, g.Stop())
	p.await("the feed is interrupted", func() bool { return strings.Contains(p.text("#happened-count"), "the feed is interrupted") })
	got := p.latest()
	verify.That(t, strings.HasPrefix(got, "sluice stops"), "the last event is %q", got)
	g.start(t)
	p.await("the events of the new process", func() bool {
		return evaluate[bool](p, "live") && p.latest() == "sluice is ready" && strings.HasPrefix(p.text("#happened-count"), "10 events")
	})
}

// A killed app changes the row at once: the page does not ask again by itself in this test. It
// takes at most 1 s longer than Consul takes to know, and less than Consul's interval of checks
// and 1 s, in one of several attempts at least, because the machine may be busy.
func TestRowFollowsAKilledAppAtOnce(t *testing.T) {
	t.Parallel()
	const interval, slack = time.Second, time.Second
	port := consultest.ReservePort(t) // for the app when it comes back, too
	address := fmt.Sprint("127.0.0.1:", port)
	kill := serve(t, address)
	verify.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "prompt", ID: "prompt-1", Address: "127.0.0.1", Port: port,
		Check: &api.AgentServiceCheck{HTTP: "http://" + address, Interval: interval.String(), Status: api.HealthPassing},
	}))
	t.Cleanup(func() { deregister(t, "prompt-1") })
	g := startSluice(t, options{services: "services: { prompt: { consul: { service: prompt } } }\nroutes: [{ path: /, service: prompt }]\n"})
	p := open(t, g.AdminURL())
	p.await("the peer, and the feed", func() bool { return p.peer("prompt-1").State == "up" && evaluate[bool](p, "live") })
	evaluate[bool](p, `roundEvery = () => 1e9, wake(), true`)
	evaluate[bool](p, `window.rows = {}, new MutationObserver(() => {
		const state = document.querySelector('#services .peers td[data-title="state"]')?.textContent;
		if (state) rows[state] ??= Date.now();
	}).observe(document.querySelector("#services"), { subtree: true, childList: true, characterData: true }), true`)

	for begin := time.Now(); ; {
		evaluate[bool](p, `rows = {}, true`)
		kill()
		killed := time.Now()
		known := awaitVerdict(t, "prompt", api.HealthCritical).Sub(killed)
		p.await("the row", func() bool { return p.peer("prompt-1").State == "unhealthy" })
		shown := time.UnixMilli(evaluate[int64](p, `rows.unhealthy`)).Sub(killed)
		t.Logf("from killing the app: Consul knows after %s, the row shows it after %s", known, shown)
		kill = serve(t, address)
		p.await("the row is back", func() bool { return p.peer("prompt-1").State == "up" })
		if shown < known+slack && shown < interval+slack {
			return
		}
		verify.Require(t, time.Since(begin) <= patience,
			"the row never changed within Consul's interval of checks and %s", slack)
	}
}

// serve runs an app until kill is called, which closes its listener and its connections, or t
// ends.
func serve(t *testing.T, address string) (kill func()) {
	t.Helper()
	listener := verify.Result(net.Listen("tcp", address)).Must(t)
	server := http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // it always ends with an error
	}()
	kill = sync.OnceFunc(func() {
		_ = server.Close()
		<-done
	})
	t.Cleanup(kill)
	return kill
}

// awaitVerdict waits until Consul's check of a service has a status, and returns when.
func awaitVerdict(t *testing.T, service, status string) time.Time {
	t.Helper()
	for index := uint64(0); ; {
		checks, meta, err := consul.Client().Health().Checks(service, &api.QueryOptions{WaitIndex: index, WaitTime: patience})
		verify.NoError(t, err)
		if len(checks) == 1 && checks[0].Status == status {
			return time.Now()
		}
		index = meta.LastIndex
	}
}
