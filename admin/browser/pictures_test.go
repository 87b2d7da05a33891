package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/hashicorp/consul/api"
)

// envPictures names the directory that TestPictures writes to, for the documents and for
// people to look at. Without it the pictures are only made.
const envPictures = "SLUICE_PICTURES"

// The page is shown whole with few and with many services, in light and dark, and on a
// phone.
func TestPictures(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(envPictures)
	if dir == "" {
		dir = t.TempDir()
	}
	few := startScene(t)
	p := open(t, few.AdminURL())
	p.await("both peers that do not serve, and the events that say so", func() bool {
		told := strings.Join(p.events(), "\n")
		return p.peer("star-9003").State == "unhealthy" && p.peer("cart-9012").State == "draining" &&
			strings.Contains(told, "star-9003") && strings.Contains(told, "cart-9012")
	})
	p.await("the configuration", func() bool { return strings.Contains(p.text("#config"), "configuration 1") })
	// The file of a test has a name of no use to readers.
	evaluate[bool](p, `document.querySelector("#config").textContent = "configuration 1 from sluice.yaml", true`)
	for _, picture := range []struct {
		name          string
		scheme        string
		width, height int64
	}{{"page", "light", 1280, 1000}, {"page-dark", "dark", 1280, 1000}, {"page-phone", "light", 390, 844}} {
		p.photograph(filepath.Join(dir, picture.name+".png"), picture.scheme, picture.width, picture.height)
	}

	var text strings.Builder
	text.WriteString("services:\n")
	for n := range 1000 {
		fmt.Fprintf(&text, "  service-%03d: { peers: [\"127.0.0.1:9\", \"127.0.0.1:10\"] }\n", n)
	}
	many := open(t, startSluice(t, options{services: text.String() + "routes: [{ service: service-000 }]\n"}).AdminURL())
	many.await("all services", func() bool { return len(many.services()) == 1000 && len(many.events()) > 0 })
	many.photograph(filepath.Join(dir, "page-1000.png"), "light", 1280, 1000)
}

// startScene starts sluice with five services: in one a check fails, in one a peer is drained.
func startScene(t *testing.T) *gateway {
	t.Helper()
	for _, i := range []struct {
		service string
		ports   []int
		tag     string
	}{{"star", []int{9001, 9002, 9003}, "v2"}, {"cart", []int{9011, 9012}, "v1"}, {"search", []int{9021}, "v7"}, {"login", []int{9031}, "v3"}} {
		for _, port := range i.ports {
			id := fmt.Sprint(i.service, "-", port)
			register(t, api.AgentServiceRegistration{Name: i.service, ID: id, Port: startApp(t, id), Tags: []string{i.tag}, Meta: map[string]string{"zone": "b"}})
		}
	}
	g := startSluice(t, options{services: fmt.Sprintf(`
services:
  star: { consul: {} }
  cart: { consul: {} }
  search: { consul: {} }
  login: { consul: {} }
  legacy: { peers: ["127.0.0.1:%d", "127.0.0.1:%d weight=2"] }
routes:
  - { path: /cart, service: cart }
  - { path: /search, service: search }
  - { path: /login, service: login }
  - { path: /legacy, service: legacy }
  - { service: star }
`, startApp(t, "legacy-1"), startApp(t, "legacy-2"))})
	g.send(t, 40)
	for _, path := range []string{"/cart", "/search", "/legacy", "/login"} {
		for range 10 {
			if _, _, err := fetch(g.URL() + path); err != nil {
				t.Fatal(err)
			}
		}
	}
	check(t, "star-9003", api.HealthCritical, "Get \"http://127.0.0.1:9003/health\": connect: connection refused")
	answer, err := http.Post(g.AdminURL()+"/api/peers/cart/cart-9012/drain", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("drain: %s", answer.Status)
	}
	return g
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
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	p.check(err)
	decoded, err := png.Decode(bytes.NewReader(picture))
	p.check(err)
	if size := decoded.Bounds().Size(); int64(size.X) != width || int64(size.Y) != height {
		p.t.Errorf("%s: a picture of %v", filepath.Base(file), size)
	}
	p.check(os.WriteFile(file, picture, 0o644))
}
