package browser

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/consul/api"

	"sluice/test/verify"
)

// The names of instances are text, not HTML.
func TestStrangeNames(t *testing.T) {
	t.Parallel()
	const markup = `<script>window.broken = 1</script><img src=x onerror="window.broken = 1">`
	ids := []string{markup, `"quoted' & ‹odd› \ 100%/a?b#c`, strings.Repeat("long", 100)}
	for _, id := range ids {
		register(t, api.AgentServiceRegistration{
			Name: "strange", ID: id, Port: startApp(t, id),
			Tags: []string{markup, strings.Repeat("x", 3000)}, Meta: map[string]string{"note": markup},
		})
	}
	register(t, api.AgentServiceRegistration{Name: "strange", ID: "plain", Port: startApp(t, "plain")})
	check(t, "plain", api.HealthCritical, markup)
	g := startSluice(t, options{services: "services: { strange: { consul: { service: strange } } }\nroutes: [{ path: /, service: strange }]\n"})
	p := open(t, g.AdminURL())
	p.await("all peers", func() bool { return len(p.peers()) == 4 })
	for _, id := range ids[:2] {
		got := p.peer(id)
		verify.That(t, got.State == "up" && strings.HasPrefix(got.Tags, markup+", xxx"), "%q is shown as %+v", id, got)
	}
	verify.Contains(t, p.peer("plain").Why, markup, "the check's output")
	p.fitsIn(1280, 1000, 400)
	p.click(p.order(ids[1]))
	p.typeKeys(kb.Enter)
	p.await("an id with every special character can be drained", func() bool { return p.peer(ids[1]).State == "draining" })
	broken := evaluate[bool](p, `"broken" in window || document.querySelectorAll("#services script, #services img").length > 0`)
	verify.That(t, !broken, "a name was read as HTML")
}

// The filter finds services and peers by any text of theirs.
func TestFilter(t *testing.T) {
	t.Parallel()
	register(t, api.AgentServiceRegistration{Name: "found", ID: "found-1", Port: startApp(t, "found-1"), Tags: []string{"needle"}})
	register(t, api.AgentServiceRegistration{Name: "found", ID: "found-2", Port: startApp(t, "found-2"), Meta: map[string]string{"rack": "R7"}})
	check(t, "found-2", api.HealthCritical, "haystack on fire")
	var services strings.Builder
	services.WriteString("services:\n  found: { consul: { service: found } }\n")
	for i := range 100 {
		fmt.Fprintf(&services, "  other-%02d: { peers: ['127.0.0.1:%d', '127.0.0.1:%d', '127.0.0.1:%d'] }\n", i, 1000+i, 2000+i, 3000+i)
	}
	g := startSluice(t, options{services: services.String() + "routes: [{ path: /, service: found }]\n"})
	p := open(t, g.AdminURL())
	p.await("all services, the one with problems first", func() bool {
		return len(p.services()) == 101 && p.services()[0] == "found" && len(p.peers()) == 0
	})
	got := p.text("#summary")
	verify.That(t, strings.HasPrefix(got, "101 services, 1 with problems; "), "the summary is %q", got)

	for _, test := range []struct {
		filter          string
		services, peers []string
	}{
		{"found", []string{"found"}, []string{"found-2", "found-1"}},
		{"NEEDLE", []string{"found"}, []string{"found-1"}},
		{"rack=r7", []string{"found"}, []string{"found-2"}},
		{"on fire", []string{"found"}, []string{"found-2"}},
		{"unhealthy", []string{"found"}, []string{"found-2"}},
		{":2042", []string{"other-42"}, []string{"127.0.0.1:2042"}},
		{"other-07 127", []string{"other-07"}, []string{"127.0.0.1:1007", "127.0.0.1:2007", "127.0.0.1:3007"}},
		{"no such thing", nil, nil},
	} {
		p.typeKeys("/") // goes to the filter
		got := evaluate[string](p, "document.activeElement.id")
		verify.Require(t, got == "filter", "/ goes to %q", got)
		p.retype("#filter", test.filter)
		p.await(fmt.Sprintf("%q finds %q", test.filter, test.peers), func() bool {
			var ids []string
			for _, row := range p.peers() {
				ids = append(ids, row.Peer)
			}
			return slices.Equal(p.services(), test.services) && slices.Equal(ids, test.peers)
		})
		evaluate[bool](p, "document.activeElement.blur(), true")
	}

	p.do(chromedp.Navigate(g.AdminURL()+"/#needle"), chromedp.Reload())
	p.await("the filter is taken from the address", func() bool { return len(p.peers()) == 1 && p.peers()[0].Peer == "found-1" })
	p.do(chromedp.Navigate(g.AdminURL()+"/#50%"), chromedp.Reload())
	p.await("a text that is not encoded is the filter too, and the page works", func() bool {
		return evaluate[string](p, `document.getElementById("filter").value`) == "50%" && strings.HasPrefix(p.text("#summary"), "0 of 101 services")
	})
	p.do(chromedp.Navigate(g.AdminURL()+"/#"), chromedp.Reload())
	p.await("all services", func() bool { return len(p.services()) == 101 })
	p.click("#wrong")
	p.await("only problems", func() bool { return slices.Equal(p.services(), []string{"found"}) })
}

// With many services the page requests only the peers that it shows, and does not redraw unchanged
// rows.
func TestManyServices(t *testing.T) {
	t.Parallel()
	var services strings.Builder
	services.WriteString("services:\n")
	for i := range 300 {
		fmt.Fprintf(&services, "  s-%03d: { peers: [", i)
		for j := range 5 {
			fmt.Fprintf(&services, "'127.0.0.1:%d',", 1000+5*i+j)
		}
		services.WriteString("] }\n")
	}
	g := startSluice(t, options{services: services.String() + "routes: [{ path: /, service: s-000 }]\n"})
	p := open(t, g.AdminURL())
	p.await("all services, closed", func() bool { return len(p.services()) == 300 && len(p.peers()) == 0 })
	evaluate[bool](p, `document.querySelectorAll("#services th[scope=row] button")[7].focus(), true`)
	p.typeKeys(kb.Enter)
	p.await("one is open", func() bool { return len(p.peers()) == 5 })
	verify.Equal(t, evaluate[string](p, `document.activeElement.ariaExpanded`), "true",
		"aria-expanded of the open service")

	p.paths()
	requested := func(path string) (n int) {
		for _, got := range p.paths() {
			if got == path {
				n++
				continue
			}
			verify.That(t, !strings.HasPrefix(got, "/api/peers"), "the page requests %s", got)
		}
		return n
	}
	evaluate[bool](p, `changes = 0, observer = new MutationObserver(list => {
			changes += list.filter(({ target }) => !(target.closest ? target : target.parentNode).closest(".charts, .spark")).length; // these change with each sample
		}),
		observer.observe(document.getElementById("services"), { subtree: true, childList: true, attributes: true, characterData: true }), true`)
	rounds := 0
	p.await("three rounds", func() bool { rounds += requested("/api/peers?service=s-007"); return rounds >= 3 })
	// The age of each of the 5 peers in each round, and nothing of the other 299
	// services. A round may have been under way when the count began.
	changes := evaluate[int](p, "changes")
	rounds += requested("/api/peers?service=s-007")
	verify.That(t, changes <= 5*(rounds+1), "%d changes of the page in %d rounds in which nothing happened", changes, rounds)
	p.typeKeys(kb.Enter)
	p.await("it is closed", func() bool { return len(p.peers()) == 0 })
}

// All that can be used can be reached and used by keyboard, has a name, and is
// there in a narrow window.
func TestKeyboardAndNarrowWindow(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: `
services:
  one: { peers: ["127.0.0.1:11", "127.0.0.1:12"] }
  two: { peers: ["127.0.0.1:13"] }
routes: [{ path: /, service: one }]
`})
	p := open(t, g.AdminURL())
	all := func() bool { return len(p.peers()) == 3 && p.text("#happened-all") == "Show 6" }
	p.await("all peers and events", all)

	tree, err := chromedp.Call(p.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	p.check(err)
	roles := map[string]int{}
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil {
			continue
		}
		role := strings.Trim(string(node.Role.Value), `"`)
		roles[role]++
		named := slices.Contains([]string{"button", "link", "searchbox", "checkbox", "combobox", "textbox", "table", "region", "navigation"}, role)
		verify.That(t, !named || node.Name != nil && string(node.Name.Value) != `""`,
			"a %s has no name", role)
	}
	for role, want := range map[string]int{"button": 15, "table": 3, "columnheader": 35, "rowheader": 2, "searchbox": 1, "combobox": 1, "checkbox": 1, "heading": 2, "link": 17} {
		verify.Equal(t, roles[role], want, "times the role %s of %v", role, roles)
	}

	for _, width := range []int64{1280, 400} {
		p.do(chromedp.EmulateViewport(width, 800), chromedp.Reload()) // after which Tab begins at the top
		p.await("all peers and events", all)
		p.fits(width)
		var reached []string
		for range 23 {
			p.typeKeys(kb.Tab)
			reached = append(reached, evaluate[string](p, `(e => {
				const box = e.getBoundingClientRect();
				const seen = box.left >= 0 && box.right <= innerWidth && box.width > 0 && getComputedStyle(e).outlineStyle !== "none";
				return (e.ariaLabel ?? e.textContent.slice(0, 50)) + (e.id === "wrong" ? "wrong" : "") + (seen ? "" : " (not seen)");
			})(document.activeElement)`))
		}
		want := []string{
			"Services", "Routes", "Configuration", "Filter services and peers", "wrong", "Show what happened to", "Show 6",
			"service", "state", "requests/s", "errors", "p50", "p99",
			"one", "Weight 1 of 127.0.0.1:11", "Drain 127.0.0.1:11", "Weight 1 of 127.0.0.1:12", "Drain 127.0.0.1:12", "Last 15 minutes in numbers", "Settings in use, in words",
			"two", "Weight 1 of 127.0.0.1:13", "Drain 127.0.0.1:13",
		}
		verify.Slices(t, reached, want, "in a window of %d pixels Tab goes to", width)
		p.typeKeys(kb.Enter)
		p.await("the dialog is open, and the focus in it", func() bool {
			return p.visible("#order") && evaluate[string](p, "document.activeElement.name") == "why"
		})
		p.typeKeys(kb.Escape)
		p.await("the focus is back", func() bool { return evaluate[string](p, "document.activeElement.ariaLabel") == "Drain 127.0.0.1:13" })
	}
}
