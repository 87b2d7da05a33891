package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

// envPictures names the directory that TestPictures writes to, for the documents and for
// people to look at; the charts then have the samples of 8 minutes. Without it the pictures
// are only made.
const envPictures = "SLUICE_PICTURES"

// The page is shown whole with few and with many services, in light and dark, and on a
// phone.
func TestPictures(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(envPictures)
	history := 1 // samples in the charts
	if dir == "" {
		dir = t.TempDir()
	} else {
		history = 96
	}
	few := startScene(t)
	p := open(t, few.AdminURL()+"/?open=star&open=cart")
	p.await("both peers that do not serve, and the events that say so", func() bool {
		told := strings.Join(p.events(), "\n")
		return p.peer("star-9003").State == "unhealthy" && p.peer("cart-9012").State == "draining" &&
			strings.Contains(told, "star-9003") && strings.Contains(told, "cart-9012")
	})
	p.await("the configuration", func() bool { return strings.Contains(p.text("#config"), "configuration 1") })
	for samples := 1; samples <= history; samples += 5 {
		p.await("the charts", func() bool {
			return evaluate[int](p, `seriesByService.get("star")?.times.length ?? 0`) > samples
		})
	}
	few.write(t, strings.ReplaceAll(few.read(t), "search: { consul: {} }", "search: { consul: {}, balance: { policy: least_conn } }"))
	p.await("the new configuration", func() bool { return strings.Contains(p.text("#config"), "configuration 2") })
	asked := func() bool { // about the drain of a node
		return evaluate[bool](p, `byId("order").open || (askForOrder("drain", last.peers.get("star")[0]), form.scope.value = "node", form.for.value = "30m", true)`) &&
			strings.HasPrefix(p.text("#order .main"), "Drain 8 peers") && strings.Contains(p.text("#order-effect"), "for 30m")
	}
	for _, picture := range []struct {
		name, query   string
		scheme        string
		width, height int64
		ready         func() bool
	}{
		{"page", "?open=star", "light", 1280, 1000, nil},
		{"page-dark", "?open=star&consul=star", "dark", 1280, 1200, func() bool { return strings.Contains(p.text("#services"), "agree on") }},
		{"page-phone", "?open=star", "light", 390, 844, nil},
		{"page-phone-dark", "?consul=star&happened=config#star", "dark", 390, 2400, func() bool { return strings.Contains(p.text("#services"), "agree on") }},
		{"routes", "?view=routes&url=http://www.example.com/cart/7", "light", 1280, 700, func() bool { return p.visible("#verdict") }},
		{"routes-phone", "?view=routes&url=http://www.example.com/cart/7", "dark", 390, 1400, func() bool { return p.visible("#verdict") }},
		{"drain", "?open=star", "light", 1280, 800, asked},
		{"drain-phone", "?open=star", "dark", 390, 844, asked},
		{"configuration", "?view=configuration", "light", 1280, 500, func() bool { return len(p.texts("#revisions > li")) == 2 }},
	} {
		p.do(chromedp.EmulateViewport(picture.width, picture.height), chromedp.Navigate("about:blank"), chromedp.Navigate(few.AdminURL()+"/"+picture.query))
		p.await("the page", func() bool {
			return p.text("#ready") == "ready" && strings.Contains(p.text("#config"), "configuration") && (picture.ready == nil || picture.ready())
		})
		p.await("events, charts and rates", func() bool {
			return !p.visible("#services") || len(p.events()) > 0 &&
				evaluate[bool](p, `[...document.querySelectorAll(".charts path.up")].some(e => e.getAttribute("d")) && last.services.some(s => s.recent.requests)`)
		})
		p.photograph(filepath.Join(dir, picture.name+".png"), picture.scheme, picture.width, picture.height)
	}

	var text strings.Builder
	text.WriteString("services:\n")
	for n := range 1000 {
		fmt.Fprintf(&text, "  service-%03d: { peers: [\"127.0.0.1:9\", \"127.0.0.1:10\"] }\n", n)
	}
	many := open(t, startSluice(t, options{services: text.String() + "routes: [{ service: service-000 }]\n"}).AdminURL()+"/?open=service-002")
	many.await("all services, and the charts of one", func() bool {
		return len(many.services()) == 1000 && len(many.events()) > 0 && strings.Contains(many.text("#config"), "configuration 1") &&
			evaluate[bool](many, `document.querySelector(".charts path.up")?.getAttribute("d").length > 0`)
	})
	many.photograph(filepath.Join(dir, "page-1000.png"), "light", 1280, 1000)
	many.photograph(filepath.Join(dir, "page-1000-dark.png"), "dark", 1280, 1000)
	many.photograph(filepath.Join(dir, "page-1000-phone.png"), "light", 390, 844)
}

// startScene starts sluice with five services: in one a check fails, in one a peer is drained.
// They get requests until t ends.
func startScene(t *testing.T) *gateway {
	t.Helper()
	for _, i := range []struct {
		service string
		ports   []int
		tag     string
	}{{"star", []int{9001, 9002, 9003}, "v2"}, {"star", []int{9004}, "v3"}, {"cart", []int{9011, 9012}, "v1"}, {"search", []int{9021}, "v7"}, {"login", []int{9031}, "v3"}} {
		for _, port := range i.ports {
			id := fmt.Sprint(i.service, "-", port)
			register(t, api.AgentServiceRegistration{Name: i.service, ID: id, Port: startApp(t, id), Tags: []string{i.tag}, Meta: map[string]string{"zone": "b"}})
		}
	}
	g := startSluice(t, options{services: fmt.Sprintf(`
config: { history: %q }
services:
  star: { consul: {}, groups: { canary: { tags: [v3] } }, split: { canary: 10%% } }
  cart: { consul: {} }
  search: { consul: {} }
  login: { consul: {} }
  legacy: { peers: ["127.0.0.1:%d", "127.0.0.1:%d weight=2"], health: { passive: { consecutive_failures: 0 } } }
routes:
  - { path: /cart, service: cart }
  - { path: /search, service: search, when: { header: { X-Search: v7 } } }
  - { path: /login, service: login }
  - { host: legacy.example.com, path: /, service: legacy }
  - { service: star }
`, t.TempDir(), startApp(t, "legacy-1"), startStatus(t, http.StatusInternalServerError))})
	load, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { stop(); <-done })
	go func() {
		defer close(done)
		sendAround(load, g.URL())
	}()
	// The page shows the latest 5 events: what follows must not be mixed with the peers'
	// joining.
	consultest.Await(t, "all peers are up", func() bool {
		peers := verify.Result(g.Peers(t.Context())).Must(t)
		return len(peers) == 10 && !slices.ContainsFunc(peers, func(p sluicetest.Peer) bool { return p.State != "up" })
	})
	check(t, "star-9003", api.HealthCritical, "Get \"http://127.0.0.1:9003/health\": connect: connection refused")
	post(t, g.AdminURL()+"/api/peers/cart/cart-9012/drain")
	return g
}

// sendAround sends requests until ctx ends, sometimes more and sometimes fewer.
func sendAround(ctx context.Context, url string) {
	random := rand.New(rand.NewPCG(1, 2)) // the pictures differ anyway: the numbers are the machine's
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range int(1.5 + math.Sin(float64(n)/300) + random.Float64()) {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+[]string{"/", "/", "/", "/cart", "/search", "/login"}[random.IntN(6)], nil)
			if err != nil {
				return
			}
			r.Header.Set("X-Search", "v7")
			if random.IntN(8) == 0 {
				r.Host = "legacy.example.com"
			}
			if answer, err := http.DefaultClient.Do(r); err == nil {
				answer.Body.Close()
			}
		}
	}
}

// photograph writes a picture of what a window of that size shows.
func (p *page) photograph(file, scheme string, width, height int64) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	p.check(err)
	p.do(chromedp.EmulateViewport(width, height))
	p.fits(width)
	// The file of a test has a name of no use to readers.
	evaluate[bool](p, `((texts, at) => { while (at = texts.nextNode()) at.data = at.data.replace(/[^\s(]*\/sluice\.yaml/g, "sluice.yaml"); return true })(
		document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT))`)
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	p.check(err)
	decoded, err := png.Decode(bytes.NewReader(picture))
	p.check(err)
	size := decoded.Bounds().Size()
	verify.That(p.t, int64(size.X) == width && int64(size.Y) == height, "%s: a picture of %v", filepath.Base(file), size)
	p.check(os.WriteFile(file, picture, 0o644))
}
