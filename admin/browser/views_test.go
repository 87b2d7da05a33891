package browser

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// texts returns the texts of all elements that match, as they are seen.
func (p *page) texts(selector string) []string {
	p.t.Helper()
	return evaluate[[]string](p, `[...document.querySelectorAll(`+quote(selector)+`)].map(e => e.innerText)`)
}

// fillIn writes a value into a field.
func (p *page) fillIn(selector, value string) {
	p.t.Helper()
	evaluate[bool](p, `(e => { e.value = `+quote(value)+`; return e.dispatchEvent(new Event("input", { bubbles: true })) })(document.querySelector(`+quote(selector)+`))`)
}

// The charts of a service in the window show its samples, as a picture and in numbers. A page
// that is opened later has them all.
func TestCharts(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: fmt.Sprintf(`
services:
  drawn: { peers: ["127.0.0.1:%d"] }
  failing: { peers: ["127.0.0.1:%d"], health: { passive: { consecutive_failures: 0 } } }
routes: [{ path: /failing, service: failing }, { service: drawn }]
`, startApp(t, "ok"), startStatus(t, http.StatusInternalServerError))})
	g.send(t, 20)
	for range 5 {
		status, _, err := fetch(g.URL() + "/failing")
		verify.Require(t, err == nil && status == http.StatusInternalServerError, "%d, %v", status, err)
	}
	p := open(t, g.AdminURL()+"/?sort=service")
	caption := func(service, chart int) string {
		texts := p.texts(fmt.Sprintf("#services .service:nth-of-type(%d) figure:nth-child(%d) figcaption", service, chart))
		return strings.Join(texts, "")
	}
	drawn := func() bool {
		return strings.HasPrefix(caption(1, 1), "Requests ") && strings.Contains(caption(1, 1), "/s, most ") && caption(1, 2) == "Errors none" &&
			strings.HasPrefix(caption(1, 3), "Latency p50 ") && caption(1, 4) == "Peers 1 up" &&
			strings.HasSuffix(caption(2, 2), "100% of 5 requests")
	}
	p.await("the charts", drawn)
	verify.Equal(t, len(p.texts("#services .charts svg")), 8, "pictures")
	line := evaluate[bool](p, `document.querySelector("#services .charts path.busy").getAttribute("d").startsWith("M")`)
	verify.That(t, line, "nothing is drawn")
	p.click("#services .service:nth-of-type(2) .panels summary")
	p.await("the numbers", func() bool {
		return strings.Contains(strings.Join(p.texts("#services .service:nth-of-type(2) .panels tbody td"), "|"), "|5|5|0|")
	})

	p.do(chromedp.Reload())
	p.await("the same after a reload", drawn)
	for _, path := range p.paths() {
		all := path == "/api/series" || strings.HasPrefix(path, "/api/series?") && !strings.Contains(path, "service=")
		verify.That(t, !all, "the page asks for all services: %s", path)
	}
	p.fitsIn(1280, 400)
}

// Consul's own view of a service is beside the pool's, and a difference is marked. That it is
// open is in the address.
func TestConsulBesideThePool(t *testing.T) {
	t.Parallel()
	register(t, api.AgentServiceRegistration{Name: "beside", ID: "beside-1", Port: startApp(t, "beside-1"), Tags: []string{"v1"}})
	g := startSluice(t, options{services: `
discovery: { debounce: { quiet: 1m, max_wait: 5m } }
services:
  beside: { consul: { service: beside } }
  fixed: { peers: ["127.0.0.1:9"] }
routes: [{ service: beside }]
`})
	p := open(t, g.AdminURL())
	p.await("the peer", func() bool { return p.peer("beside-1").State == "up" })
	got := p.texts("#services .service:last-child summary")
	verify.That(t, len(got) == 2, "a static service has %q", got)
	p.click("#services .service:nth-of-type(1) summary")
	says := "#services .panels [role=status]"
	p.await("they agree", func() bool { return strings.HasPrefix(p.text(says), "Consul and the pool agree on 1 instance; ") })
	verify.Equal(t, evaluate[string](p, "location.search"), "?consul=beside", "the query of the address")
	// An addition that soon follows another one is not applied for a minute.
	for _, id := range []string{"beside-2", "beside-3"} {
		register(t, api.AgentServiceRegistration{Name: "beside", ID: id, Port: startApp(t, id)})
	}
	p.do(chromedp.Reload())
	p.await("the difference", func() bool { return strings.Contains(p.text(says), " among 3 instances (marked with ≠); ") })
	different := 0
	for n := range 2 {
		row := strings.Join(p.texts(fmt.Sprintf("#services .panels table[aria-label^=Consul] tbody:nth-of-type(%d) td", n+1)), "|")
		if strings.HasPrefix(row, "beside-3|127.0.0.1:") && strings.HasSuffix(row, "|passing|1|||not there|||only in Consul") {
			different++
		}
	}
	verify.That(t, different == 1,
		"%d rows say that beside-3 is only in Consul: %q", different, p.text("#services .panels table"))
	p.fitsIn(1280, 400)
}

// The page says what would happen to a request, and why no other route and peer gets it. The
// request is in the address.
func TestRoutesOnThePage(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: `
services:
  one: { peers: ["127.0.0.1:11", "127.0.0.1:12"], balance: { policy: round_robin } }
  two: { peers: ["127.0.0.1:13"] }
routes:
  - { host: www.example.com, path: /, service: two, when: { header: { X-Canary: "1" } } }
  - { host: www.example.com, path: /, service: one }
  - { host: other.example.com, path: /, service: two }
  - { path: /, service: two }
`})
	p := open(t, g.AdminURL())
	p.await("all peers", func() bool { return len(p.peers()) == 3 })
	p.click("#views a:nth-child(2)")
	p.await("the routes", func() bool { return len(p.texts("#routes tbody")) == 4 && !p.visible("#services") })
	p.click("#request [name=url]")
	p.typeKeys("www.example.com/x" + kb.Enter)
	p.await("the answer", func() bool {
		return strings.HasPrefix(p.text("#verdict-title"), "It goes to service one, by route 2 (") &&
			strings.Contains(p.text("#verdict"), "Its peer is one of 2, chosen by round robin when the request comes: 127.0.0.1:11, 127.0.0.1:12.")
	})
	verify.Slices(t, p.texts("#routes td:last-child"), []string{
		`only if header x-canary is "1"`, "✓ chosen", "other host", "matches, but a route before it is chosen",
	}, "the routes say")
	p.fillIn("#request [name=header]", "X-Other: a\nX-Canary: 1\n")
	p.click("#request .main")
	answered := func() bool {
		return strings.HasPrefix(p.text("#verdict-title"), "It goes to service two, by route 1 (") && strings.Contains(p.text("#verdict"), "Its peer is 127.0.0.1:13 at 127.0.0.1:13.")
	}
	p.await("the answer with the header", answered)
	const query = "?view=routes&url=http%3A%2F%2Fwww.example.com%2Fx&header=X-Other%3A+a&header=X-Canary%3A+1"
	verify.Equal(t, evaluate[string](p, "location.search"), query, "the query of the address")
	p.do(chromedp.Reload())
	p.await("the same after a reload", answered)
	p.retype("#filter", "other.example")
	p.await("one route", func() bool { return len(p.texts("#routes tbody")) == 1 && p.text("#routes-count") == "1 of 4 routes" })
	p.retype("#filter", "")
	p.fitsIn(1280, 400)
	p.click("#request-clear")
	p.await("no answer", func() bool { return !p.visible("#verdict") && evaluate[string](p, "location.search") == "?view=routes" })
	p.click("#views a:nth-child(1)")
	p.await("the services", func() bool { return len(p.peers()) == 3 && !p.visible("#routes") })
	evaluate[bool](p, "history.back(), true")
	p.await("the routes again", func() bool { return p.visible("#routes") && len(p.texts("#routes tbody")) == 4 })
}

// A request that cannot be described gets the API's reason, and one that sluice refuses its answer.
// Green is only what reaches a peer for certain.
func TestEndsOnThePage(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: `
services: { fixed: { peers: ['127.0.0.1:9'] } }
routes:
  - { path: /only, service: fixed }
  - { path: /office, service: fixed, allow: [10.0.0.0/8] }
  - { path: /old, redirect: { to: /new } }
`})
	p := open(t, g.AdminURL()+"/?view=routes&url=http://a/&client=here", "the server responded with a status of 400")
	p.await("the reason", func() bool { return p.text("#verdict-title") == `client "here": want an IP address` })
	for _, test := range []struct{ path, client, title, class, note string }{
		{"", "", "sluice answers 404 no_route: no route leads from this host and path to a service, by listener ", "state failed", ""},
		{"only", "", "It goes to service fixed, by route ", "state up", "Its peer is 127.0.0.1:9"},
		{"office", "192.0.2.1", "sluice answers 403 client_denied: the route is not for this client's address, by route ", "state failed", ""},
		{"office", "", "If nothing of the following ends it, it goes to service fixed, by route ", "", "It depends on 403 client_denied: "},
		{"office", "10.0.0.1", "It goes to service fixed, by route ", "state up", ""},
		{"old", "", "It is redirected (308) to /new, by route ", "", ""},
	} {
		p.fillIn("#request [name=url]", "http://a/"+test.path)
		p.fillIn("#request [name=client]", test.client)
		p.click("#request .main")
		p.await(test.path+" of "+test.client+": "+test.title, func() bool {
			return strings.HasPrefix(p.text("#verdict-title"), test.title) && strings.Contains(p.text("#verdict"), test.note) &&
				evaluate[string](p, `document.getElementById("verdict-title").className`) == test.class
		})
	}
}

// The page shows earlier configurations and their differences, and rolls back.
func TestConfigurationOnThePage(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: fmt.Sprintf("config: { history: %q }\n", t.TempDir()) + `
services: { fixed: { peers: ["127.0.0.1:11"], balance: { policy: round_robin } } }
routes: [{ service: fixed }]
`})
	p := open(t, g.AdminURL()+"/?view=configuration", "the server responded with a status of 412")
	p.await("the first revision", func() bool { return len(p.texts("#revisions > li")) == 1 && !p.visible("#search") })
	g.write(t, strings.ReplaceAll(g.read(t), "round_robin", "random"))
	p.await("the second one, and what differs", func() bool {
		return len(p.texts("#revisions > li")) == 2 && strings.Contains(p.text("#revisions > li"), "in use") &&
			p.text("#compare") == "changed services.fixed.balance.policy round_robin random"
	})
	p.click("#revisions summary")
	p.await("what has changed in the latest one", func() bool {
		return p.text("#revisions > li .changes") == "changed services.fixed.balance.policy round_robin random"
	})

	p.click(`#revisions button[aria-label="Roll back to revision 1"]`)
	p.await("the question", func() bool {
		return p.text("#rollback-title") == "Roll back to revision 1?" && p.text("#rollback-changes") == "changed services.fixed.balance.policy random round_robin"
	})
	p.typeKeys("it was better" + kb.Enter)
	p.await("a third revision, which is the first one", func() bool {
		latest := p.text("#revisions > li")
		return !p.visible("#rollback") && strings.HasPrefix(latest, "Revision 3") && strings.Contains(latest, "it was better") &&
			p.text("#compare") == "changed services.fixed.balance.policy random round_robin" && strings.Contains(p.text("#sources"), "pinned to revision 1")
	})
	p.choose("#compare-from", "1")
	p.await("no difference", func() bool {
		return p.text("#compare") == "no difference" && evaluate[string](p, "location.search") == "?view=configuration&from=1"
	})

	p.click(`#revisions button[aria-label="Roll back to revision 2"]`)
	evaluate[bool](p, `rollback.hash = "0", true`)
	p.typeKeys(kb.Enter)
	p.await("another one is in use", func() bool {
		return p.text("#rollback-problem") == "The configuration has changed meanwhile: close this and look again."
	})
	p.typeKeys(kb.Escape)
	p.fitsIn(1280, 400)
}

// Sentences above the peers tell of groups, shares, their judge, retries, refusals and ejections.
func TestSentencesAboutAService(t *testing.T) {
	t.Parallel()
	register(t, api.AgentServiceRegistration{Name: "worded", ID: "worded-1", Port: startApp(t, "worded-1"), Tags: []string{"v1"}})
	port := consultest.ReservePort(t) // nobody listens there
	register(t, api.AgentServiceRegistration{Name: "worded", ID: "worded-2", Port: port, Tags: []string{"v2"}})
	g := startSluice(t, options{services: `
services:
  worded:
    consul: {}
    groups: { canary: { tags: [v2] } }
    split: { canary: 100% }
    judge: { act: report }
    retry: { budget: 0%, min_per_second: 0 }
    health: { passive: { consecutive_failures: 3, max_ejected: 100% } }
routes: [{ service: worded }]
`})
	p := open(t, g.AdminURL())
	facts := func() string { return p.text("#services ul.more") }
	p.await("the judge", func() bool {
		return strings.Contains(facts(), " It gets 100% of the clients. Its judge has watched it for ")
	})
	for range 20 {
		_, _, err := fetch(g.URL())
		verify.NoError(t, err)
	}
	p.await("what was refused and ejected", func() bool {
		return strings.Contains(facts(), " by retry budget.") && strings.Contains(facts(), "1 ejection.") && p.peer("worded-2").State == "ejected"
	})
	post(t, g.AdminURL()+"/api/shares/worded?share=0.25&why=careful")
	p.await("the operator's share", func() bool {
		return strings.Contains(facts(), "It gets 25% of the clients, and 100% in the configuration: set by an operator ") &&
			strings.Contains(facts(), " ago: careful. Its judge is paused by an operator.")
	})
	p.fitsIn(1280, 400)
}

// With a token that only reads, everything is shown but controls, and the page says why. With the
// other token there are controls, and they work.
func TestTokenForLooking(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir+"/operate", "0perate\n")
	writeFile(t, dir+"/read", "r3ad\n")
	g := startSluice(t, options{admin: fmt.Sprintf("token_file: %q, read_token_file: %q", dir+"/operate", dir+"/read"), services: fmt.Sprintf("config: { history: %q }\n", dir+"/history") + `
services: { fixed: { peers: ["127.0.0.1:9"], balance: { policy: round_robin } } }
routes: [{ service: fixed }]
`})
	p := open(t, g.AdminURL()+"/", "the server responded with a status of 401", "the server responded with a status of 403")
	p.await("the field for the token", func() bool { return p.visible("#login") })
	p.typeKeys("r3ad" + kb.Enter)
	p.await("the peer, without controls, and why", func() bool {
		return p.peer("127.0.0.1:9").State == "up" && !p.visible("#login") && strings.Contains(p.text("#looking"), "only for looking")
	})
	weight := `#services button[aria-label^="Weight"]`
	disabled := evaluate[bool](p, `document.querySelector(`+quote(weight)+`).disabled`)
	verify.That(t, !p.visible(p.order("127.0.0.1:9")) && disabled, "there are controls")
	p.click(`#views a[data-view="configuration"]`)
	p.await("the first revision", func() bool { return len(p.texts("#revisions > li")) == 1 })
	g.write(t, strings.ReplaceAll(g.read(t), "round_robin", "random"))
	p.await("the second one", func() bool { return len(p.texts("#revisions > li")) == 2 })
	rollBack := `#revisions button[aria-label="Roll back to revision 1"]`
	verify.That(t, !p.visible(rollBack), "a rollback is offered")

	p.click("#operate")
	p.await("the question for the other token", func() bool { return p.visible("#login") && !p.visible("#looking") })
	p.typeKeys("0perate" + kb.Enter) // the field has the focus
	p.await("the token is taken", func() bool { return !p.visible("#login") && !p.visible("#problem") && p.visible(rollBack) })
	p.click(rollBack)
	p.await("the question", func() bool { return p.text("#rollback-changes") != "" })
	p.typeKeys(kb.Enter)
	p.await("the rollback", func() bool { return len(p.texts("#revisions > li")) == 3 && !p.visible("#rollback") })
	p.click(`#views a[data-view="services"]`)
	p.click(p.order("127.0.0.1:9"))
	p.await("the dialog", func() bool { return p.visible("#order") })

	// The token allows less than before.
	evaluate[bool](p, `sessionStorage.setItem("token", "r3ad"), true`)
	p.typeKeys(kb.Enter)
	p.await("the question for the other token", func() bool {
		return p.visible("#login") && !p.visible("#order") && strings.Contains(p.text("#problem"), "only for looking")
	})
}
