package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"sluice/test/verify"
)

// patience is how long a test waits for what should happen.
const patience = time.Minute

// page is a tab with the admin page. Not safe for concurrent use.
type page struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex // guards the fields below
	requests []*url.URL
	problems []string // that the browser has reported
}

// open opens a URL in a new tab of 1280×800 pixels, until t ends. The test fails
// if the browser reports a problem, but for those about answers whose status is
// one of allowed, or if the page contacts another host.
func open(t *testing.T, address string, allowed ...string) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	p := &page{t: t, ctx: ctx}
	allowed = append(allowed, "/readyz: Failed to load resource: the server responded with a status of 503") // not ready yet
	p.check(chromedp.Listen(ctx, p.notice))
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	p.check(err)
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	p.check(err)
	_, err = chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	p.check(err)
	p.do(chromedp.EmulateViewport(1280, 800), chromedp.Navigate(address))

	home, err := url.Parse(address)
	p.check(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the page at the end:\n%s", p.text("body"))
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			known := slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(problem, a) })
			verify.That(t, known, "the browser reports: %s", problem)
		}
		for _, u := range p.requests {
			here := u.Host == home.Host || u.Scheme == "data"
			verify.That(t, here, "the page contacted another host: %s", u)
		}
	})
	return p
}

// notice takes note of an event. It runs on chromedp's goroutine.
func (p *page) notice(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil {
			p.requests = append(p.requests, u)
		}
	case *log.EventEntryAdded:
		p.problems = append(p.problems, fmt.Sprintf("%s: %s: %s", e.Entry.Level, e.Entry.URL, e.Entry.Text))
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case *runtime.EventConsoleAPICalled:
		for _, argument := range e.Args {
			p.problems = append(p.problems, fmt.Sprintf("console.%s: %s %s", e.Type, argument.Value, argument.Description))
		}
	}
}

// paths returns the requested paths and queries since the last call.
func (p *page) paths() (paths []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.requests {
		paths = append(paths, u.RequestURI())
	}
	p.requests = nil
	return paths
}

func (p *page) check(err error) {
	p.t.Helper()
	verify.NoError(p.t, err)
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	p.check(chromedp.Do(ctx, steps...))
}

// evaluate returns the value of a JavaScript expression, as JSON does.
func evaluate[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	verify.Require(p.t, err == nil, "%s: %v", expression, err)
	return v
}

// text returns the text of an element as it is seen, "" if it is not there.
func (p *page) text(selector string) string {
	p.t.Helper()
	return evaluate[string](p, `document.querySelector(`+quote(selector)+`)?.innerText ?? ""`)
}

// visible reports whether an element is there and seen.
func (p *page) visible(selector string) bool {
	p.t.Helper()
	return evaluate[bool](p, `document.querySelector(`+quote(selector)+`)?.checkVisibility({ visibilityProperty: true }) ?? false`)
}

// click clicks what a selector matches, with the mouse. The page may move it meanwhile: what
// such a click hits does not get it, and click tries again.
func (p *page) click(selector string) {
	p.t.Helper()
	p.await("a click on "+selector, func() bool {
		evaluate[bool](p, `(selector => {
			let hit = false;
			const guard = e => {
				if (e.target.closest?.(selector)) hit ||= e.type === "click";
				else { e.preventDefault(); e.stopImmediatePropagation() }
			};
			const types = ["mousedown", "mouseup", "click"];
			for (const type of types) addEventListener(type, guard, true);
			window.aim = () => { for (const type of types) removeEventListener(type, guard, true); return hit };
			return true;
		})(`+quote(selector)+`)`)
		p.do(chromedp.Click(chromedp.CSS(selector)))
		return evaluate[bool](p, "window.aim?.() ?? true") // there is none on a new page
	})
}

// typeKeys types where the focus is.
func (p *page) typeKeys(keys string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(keys))
}

// retype replaces what a field has.
func (p *page) retype(selector, keys string) {
	p.t.Helper()
	evaluate[bool](p, `(e => { e.focus(); e.select(); return true })(document.querySelector(`+quote(selector)+`))`)
	p.typeKeys(kb.Delete + keys)
}

// rest is text for elements that the page updates every 5 s. It triggers the update.
func (p *page) rest(selector string) string {
	p.t.Helper()
	evaluate[bool](p, "wakeRest(), true")
	return p.text(selector)
}

// peer is a row of the page.
type peer struct {
	Service, Peer, Address, Node, State, Weight, Requests, Tags, Why, Order string
}

// peers returns the rows as they are shown, from the top.
func (p *page) peers() []peer {
	p.t.Helper()
	return evaluate[[]peer](p, `[...document.querySelectorAll("#services .peers tbody")].map(body => {
		const cell = title => body.querySelector('td[data-title="' + title + '"]').textContent;
		return {
			Service: body.closest(".service").querySelector("th").textContent,
			Peer: body.querySelector("td").textContent,
			Address: cell("address"), Node: cell("node"), State: cell("state"), Weight: cell("weight"), Requests: cell("requests"), Tags: cell("tags, meta"),
			Why: body.querySelector(".reasons:not([hidden]) td")?.textContent ?? "",
			Order: body.querySelector(".order button:not([hidden])")?.textContent ?? "",
		};
	})`)
}

// peer returns the row of a peer, or an empty one.
func (p *page) peer(id string) peer {
	p.t.Helper()
	for _, row := range p.peers() {
		if row.Peer == id {
			return row
		}
	}
	return peer{}
}

// order returns the selector of the button in a peer's row.
func (p *page) order(id string) string {
	return `#services .order button[aria-label$=` + quote(" "+id) + `]`
}

// services returns the names of the services as they are shown, from the top.
func (p *page) services() []string {
	p.t.Helper()
	return evaluate[[]string](p, `[...document.querySelectorAll("#services .service > tr > th")].map(e => e.textContent)`)
}

// await waits until something is true of the page.
func (p *page) await(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		verify.Require(p.t, !time.Now().After(end), "waited in vain: %s", what)
	}
}

// fits checks that the page, and each table in it, fits into the window, and that words fit into
// the columns of peers.
func (p *page) fits(width int64) {
	p.t.Helper()
	got := evaluate[int64](p, `Math.max(document.documentElement.scrollWidth,
		...[...document.querySelectorAll("section, .card > td")].map(s => s.scrollWidth))`)
	verify.That(p.t, got <= width, "in a window of %d pixels something is %d pixels wide", width, got)
	got = evaluate[int64](p, `Math.min(100, ...[...document.querySelectorAll(".peers > thead th")].map(th => th.clientWidth).filter(Boolean))`)
	verify.That(p.t, width <= 1152 || got >= 50, "in a window of %d pixels a column of peers is %d pixels wide", width, got)
}

// fitsIn is fits in windows of several widths.
func (p *page) fitsIn(widths ...int64) {
	p.t.Helper()
	for _, width := range widths {
		p.do(chromedp.EmulateViewport(width, 800))
		p.fits(width)
	}
}

// quote returns s as a string of JavaScript and of CSS.
func quote(s string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // CSS has other escapes
	if err := encoder.Encode(s); err != nil {
		panic(err) // no string does that
	}
	return strings.TrimSpace(b.String())
}

// fetch gets a URL without the browser.
func fetch(address string) (status int, body string, err error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(address)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, string(b), err
}
