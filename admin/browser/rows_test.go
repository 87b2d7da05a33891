package browser

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/consul/api"

	"sluice/test/testcert"
	"sluice/test/verify"
)

// slow answers later than the page finds good.
func slow(http.ResponseWriter, *http.Request) { <-time.After(1200 * time.Millisecond) }

// keepSending sends a request now and then until t ends: the page shows the last minute.
func keepSending(t *testing.T, url string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	running.Go(func() {
		for tick := time.NewTicker(time.Second); ctx.Err() == nil; {
			_, _, _ = fetch(url) // sluice may have ended
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
}

// fleet is the text of n services, of which the first get requests by a path of their name. If they
// are broken, the one before the last fails, and the last is slow.
func fleet(t *testing.T, n int, broken bool) string {
	t.Helper()
	ports := slices.Repeat([]int{startApp(t, "ok")}, n)
	if broken {
		ports[n-1] = startHandler(t, slow)
		ports[max(0, n-2)] = startStatus(t, http.StatusBadGateway)
	}
	var services, routes strings.Builder
	for i, port := range ports {
		fmt.Fprintf(&services, "  s-%03d: { peers: [\"127.0.0.1:%d\"], health: { passive: { consecutive_failures: 0 } } }\n", i, port)
		fmt.Fprintf(&routes, "  - { path: /s-%03d, service: s-%03d }\n", i, i)
	}
	return "services:\n" + services.String() + "routes:\n" + routes.String()
}

// A service is a row: those that fail come first, then slow ones, with the reason below them. Rows
// are sorted by any column. The card of a service is there on demand.
func TestServicesAsRows(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(envPictures)
	if dir == "" {
		dir = t.TempDir()
	}
	for _, test := range []struct {
		services int
		broken   bool
	}{{1, false}, {1, true}, {5, false}, {5, true}, {60, false}, {60, true}, {1000, false}, {1000, true}} {
		name := fmt.Sprintf("rows-%d-%t", test.services, test.broken)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startSluice(t, options{services: fleet(t, test.services, test.broken)})
			for i := max(0, test.services-3); i < test.services; i++ {
				keepSending(t, fmt.Sprintf("%s/s-%03d", g.URL(), i))
			}
			p := open(t, g.AdminURL())
			rows := func() []string { // name, state, and what is wrong
				return evaluate[[]string](p, `[...document.querySelectorAll("#services .service")].map(row => ["th", ".state", ".notes"].map(part => row.querySelector(part).textContent).join("|"))`)
			}
			var want []string // what the rows begin with
			slowest, failing := fmt.Sprintf("s-%03d", test.services-1), fmt.Sprintf("s-%03d", max(0, test.services-2))
			if test.broken {
				want = []string{failing + "|failing, 1 of 1 serve|Failing: ", slowest + "|slow, 1 of 1 serve|Slow: in the last minute, one of 100 requests took "}[:min(2, test.services)]
			}
			for i := range test.services - len(want) {
				want = append(want, fmt.Sprintf("s-%03d|1 of 1 serve|", i))
			}
			p.await("all services, and what they did", func() bool {
				return len(p.services()) == test.services && evaluate[bool](p, `last.services.filter(s => s.recent.requests).length === `+fmt.Sprint(min(3, test.services)))
			})
			p.await("those with problems first", func() bool { return slices.EqualFunc(rows(), want, strings.HasPrefix) })
			p.await("the picture of the last minutes", func() bool {
				return evaluate[bool](p, `[...document.querySelectorAll("#services .spark path")].some(e => e.getAttribute("d"))`) || !test.broken && test.services > 5
			})
			p.fitsIn(1280, 1000, 390)
			p.photograph(filepath.Join(dir, name+"-phone.png"), "light", 390, 844)
			p.photograph(filepath.Join(dir, name+".png"), "light", 1280, 800)
			if test.services <= fewServices {
				return
			}

			verify.Equal(t, len(p.texts("#services .card")), 0, "cards are open")
			evaluate[bool](p, `document.querySelector("#services th[scope=row] button").focus(), true`)
			p.typeKeys(kb.Enter)
			p.await("the card of the first", func() bool { return len(p.peers()) == 1 && len(p.texts("#services .card")) == 1 })
			p.fits(1280)
			p.typeKeys(kb.Enter)
			p.await("no card", func() bool { return len(p.texts("#services .card")) == 0 })

			sorted := func() string {
				return evaluate[string](p, `[...document.querySelectorAll("#services [aria-sort]")].map(e => e.textContent + " " + e.ariaSort).join() + " " + (new URLSearchParams(location.search).get("sort") ?? "")`)
			}
			verify.Equal(t, sorted(), "state descending ", "the rows are sorted by")
			for _, want := range []struct{ column, sorted, first string }{
				{"service", "service ascending service", "s-000"},
				{"service", "service descending -service", slowest},
				{"p99", "p99 descending p99", slowest},
				{"errors", "errors descending errors", failing},
			} {
				if !test.broken && want.column != "service" {
					continue
				}
				evaluate[bool](p, `[...document.querySelectorAll("#services thead button")].find(e => e.textContent === `+quote(want.column)+`).focus(), true`)
				p.typeKeys(kb.Enter)
				p.await("sorted: "+want.sorted, func() bool { return sorted() == want.sorted && p.services()[0] == want.first })
			}
			if test.services < 1000 {
				return
			}
			p.await("the feed", func() bool { return evaluate[bool](p, "live") })
			rounds, whole := 0, 0
			p.paths()
			p.await("four rounds", func() bool {
				for _, path := range p.paths() {
					switch path {
					case "/api/orders":
						rounds++
					case "/api/services":
						whole++
					case "/api/config":
						t.Error("the page asks for the whole configuration")
					}
				}
				return rounds >= 4
			})
			verify.That(t, whole <= 1, "in %d rounds the page asks %d times for all services", rounds, whole)
		})
	}
}

// fewServices is the number of services up to which their cards are open without a click.
const fewServices = 3

// The values below the pointer are shown.
func TestValuesOfCharts(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: fleet(t, 1, false)})
	p := open(t, g.AdminURL())
	for _, test := range []struct{ picture, want string }{
		{".spark svg", "0/s"},
		{".charts figure:nth-child(2) svg", "0 of 0 requests"},
		{".charts figure:nth-child(4) svg", "1 up"},
	} {
		p.await("the value of "+test.picture, func() bool {
			right := evaluate[[2]float64](p, `(box => [box.right - 1, box.top + box.height / 2])(document.querySelector("#services `+test.picture+`")?.getBoundingClientRect() ?? new DOMRect())`)
			p.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, right[0], right[1]))
			return p.visible("#value") && strings.HasSuffix(p.text("#value"), " "+test.want)
		})
	}
	p.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 1, 1))
	p.await("no value", func() bool { return !p.visible("#value") })
}

// A tag that is not used is a problem of its service, and of the routes, where its reason is seen
// without a question about a request.
func TestTagProblemsOnThePage(t *testing.T) {
	t.Parallel()
	const markup = `sluice.route=tagged.example.com/ rank=<img/src=x/onerror="window.broken=1">`
	register(t, api.AgentServiceRegistration{Name: "tagged", ID: "tagged-1", Port: startApp(t, "tagged"), Tags: []string{"sluice.route=tagged.example.com/fine", markup}})
	g := startSluice(t, options{services: "catalog: { tags: [sluice], select: { name: tagged }, claims: [{ service: tagged, hosts: [tagged.example.com] }] }\n"})
	p := open(t, g.AdminURL())
	p.await("the problem of the service", func() bool {
		return strings.HasPrefix(p.rest("#services .notes"), "Tag "+markup+": ")
	})
	p.click(`#views a[data-view="routes"]`)
	p.await("the problem of the route", func() bool {
		return p.visible("#routes .reasons td") && strings.Contains(p.text("#routes .reasons td"), markup) && strings.HasSuffix(p.text("#routes-count"), " 1 with problems of tags")
	})
	p.fitsIn(1280, 390)
	broken := evaluate[bool](p, `"broken" in window || document.querySelector("#routes img") !== null`)
	verify.That(t, !broken, "a tag was read as HTML")
}

// Certificates are listed with their expiry, and the keys in use with what they mean and a link to
// the documentation, which sluice has.
func TestCertificatesAndSettingsOnThePage(t *testing.T) {
	t.Parallel()
	certificate := testcert.Write(t, t.TempDir(), "www.example.com")
	g := startSluice(t, options{services: fmt.Sprintf("services: { fixed: { peers: ['127.0.0.1:9'], retry: { attempts: 2 }, upstream: { tls: { ca: %q } } } }\nroutes: [{ service: fixed }]\n", certificate.Cert)})
	// The page of the documentation is plain text: Chromium asks for an icon on its own.
	p := open(t, g.AdminURL()+"/?view=configuration", "/favicon.ico: Failed to load resource")
	p.await("the certificate", func() bool {
		row := strings.Join(p.texts("#certificates tbody td"), "|")
		return strings.Contains(row, "|trusted|valid|in ") && strings.HasSuffix(row, certificate.Cert)
	})
	p.click("#view-configuration details summary")
	p.await("the keys, and what they mean", func() bool {
		return strings.Contains(p.text("#view-configuration .settings"), "log.level\tinfo\tbuilt in\t")
	})
	p.fitsIn(390, 1280)
	p.click(`#views a[data-view="services"]`)
	p.await("the card", func() bool { return len(p.peers()) == 1 })
	p.click("#services .panels details:last-child summary")
	p.await("the keys of the service", func() bool {
		return strings.Contains(p.text("#services .settings"), "services.fixed.retry.attempts\t2\t") && strings.Contains(p.text("#services .settings"), "sluice.yaml:")
	})
	p.click(`#services .settings a[href^="docs/"]`)
	p.await("the page of the documentation", func() bool {
		return strings.HasPrefix(evaluate[string](p, "location.pathname"), "/docs/") && strings.HasPrefix(p.text("body"), "# ")
	})
}
