// Command answers shows what sluice answers itself, in front of a real Consul on this machine. It
// needs only Go, and ends by itself after about a quarter of a minute:
//
//	go run ./examples/answers
//
// sluice has the configuration and the pages of this folder. What clients see is printed: a fixed
// answer, an error page before and after a change of its file, preflights of CORS, and a
// maintenance while 100 requests a second go on. The app is a part of this program; Consul and
// sluice are processes.
package main

import (
	"context"
	"embed"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("answers", show) }

const (
	perSecond = 100
	enough    = 200 // requests that show whether a maintenance is in force
)

//go:embed sluice.yaml nothing.html soon.html
var files embed.FS

// tour is what runs.
type tour struct {
	*stage.Stage
	asked atomic.Int64 // requests that the app has got
	load  *sluicetest.Load
}

// ServeHTTP is the app.
func (t *tour) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	t.asked.Add(1)
	fmt.Fprintln(w, "Hello from star-1")
}

// show shows the answers.
func show(ctx context.Context, on *stage.Stage) error {
	t := &tour{Stage: on}
	if err := t.start(ctx); err != nil {
		return err
	}
	preflight := func(origin string) []string {
		return []string{"Origin", origin, "Access-Control-Request-Method", "PUT"}
	}
	for _, r := range []request{
		{"a fixed answer", "GET", "/robots.txt", nil, "200 direct_response", "Content-Type"},
		{"an error page", "GET", "/none", nil, "404 no_route", ""},
		{"another one, as its file is replaced", "GET", "/none", nil, "404 no_route", ""},
		{"a preflight of CORS", "OPTIONS", "/api", preflight("https://app.example.com"), "204 cors_preflight", "Access-Control-Allow-Methods"},
		{"a preflight for another origin", "OPTIONS", "/api", preflight("https://other.example"), "403 origin_denied", ""},
		{"the app", "GET", "/api", nil, "200", ""},
	} {
		if strings.HasPrefix(r.what, "another one") {
			if err := t.replacePage(ctx, r); err != nil {
				return err
			}
		}
		if err := t.look(ctx, r); err != nil {
			return err
		}
	}
	return t.maintain(ctx)
}

func (t *tour) start(ctx context.Context) error {
	t.Line("Building sluice, and starting Consul, an app and sluice.")
	if err := t.StartConsul(ctx); err != nil {
		return err
	}
	if err := t.StartApp("star", "star-1", nil, t); err != nil {
		return err
	}
	for _, page := range []string{"nothing.html", "soon.html"} {
		text, err := files.ReadFile(page)
		if err != nil {
			return err
		}
		if err := t.Replace(page, text); err != nil {
			return err
		}
	}
	configuration, err := files.ReadFile("sluice.yaml")
	if err != nil {
		return err
	}
	here := strings.NewReplacer("http://127.0.0.1:8500", t.Consul.URL(), "127.0.0.1:8080", sluicetest.Any, "/etc/sluice", t.Directory)
	if err := t.Serve(ctx, here.Replace(string(configuration))); err != nil {
		return err
	}
	return t.AwaitUp(ctx, 1)
}

// request is what a client sends.
type request struct {
	what         string
	method, path string
	header       []string // names and values
	want         string   // the status and the reason of the answer
	shows        string   // a field of the answer, beside its body
}

func (t *tour) ask(ctx context.Context, r request) (sluicetest.Answer, error) {
	return sluicetest.Ask(ctx, http.DefaultClient, r.method, t.URL()+r.path, r.header...)
}

// look prints what a client sees, which must be as r says.
func (t *tour) look(ctx context.Context, r request) error {
	answer, err := t.ask(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", r.what, err)
	}
	if answer.String() != r.want {
		return fmt.Errorf("%s: got %v, want %s: %s", r.what, answer, r.want, answer.Text)
	}
	t.Line("%-38s %s %s: %v", r.what, r.method, r.path, answer)
	if r.shows != "" {
		t.Line("    %s: %s", r.shows, answer.Header.Get(r.shows))
	}
	if answer.Text != "" {
		t.Line("    %s", answer.Text)
	}
	return nil
}

// replacePage replaces the page that r shows, and waits until clients get the new one.
func (t *tour) replacePage(ctx context.Context, r request) error {
	const page = "<p>Try /api instead."
	if err := t.Replace("nothing.html", []byte(page+"\n")); err != nil {
		return err
	}
	return t.Await(ctx, sluicetest.Patience, "the new page", func(ctx context.Context) (bool, error) {
		answer, err := t.ask(ctx, r)
		return answer.Text == page, err
	})
}

// maintain shows a maintenance while requests go on.
func (t *tour) maintain(ctx context.Context) error {
	t.Line("\n%d requests a second go to %s/api from now on.", perSecond, t.URL())
	t.load = t.StartLoad("/api", perSecond)
	if err := t.awaitRequests(ctx, false); err != nil {
		return err
	}
	if err := t.order(ctx, "on", "star", "--why", "new disks", "--for", "10m"); err != nil {
		return err
	}
	if err := t.awaitRequests(ctx, true); err != nil {
		return err
	}
	for _, r := range []request{
		{"a browser", "GET", "/api", nil, "503 maintenance", "Retry-After"},
		{"a program that accepts JSON", "GET", "/api", []string{"Accept", "application/json"}, "503 maintenance", ""},
	} {
		if err := t.look(ctx, r); err != nil {
			return err
		}
	}
	if err := t.order(ctx, "off", "star"); err != nil {
		return err
	}
	if err := t.awaitRequests(ctx, false); err != nil {
		return err
	}
	t.load.Stop()
	all := t.load.Count()
	told := all.Refused["maintenance"]
	t.Line("\n%d requests in all: %d answered by the app, %d told of the maintenance, %d failed", all.Requests, all.ByApp["star-1"], told, all.Failed-told)
	if all.Failed > told {
		return fmt.Errorf("requests failed:\n%s", strings.Join(all.Failures, "\n"))
	}
	return nil
}

// order runs a command of the operator.
func (t *tour) order(ctx context.Context, arguments ...string) error {
	output, err := t.Command(ctx, t.File("sluice"), []string{"--admin", t.Address("admin")}, append([]string{"maintenance"}, arguments...)...)
	if err == nil {
		t.Line("%s", output)
	}
	return err
}

// awaitRequests waits until all requests are answered by the app, or, in a maintenance, none comes
// there any more.
func (t *tour) awaitRequests(ctx context.Context, inMaintenance bool) error {
	begin, before, asked := time.Now(), t.load.Count(), t.asked.Load()
	now := sluicetest.Count{}
	err := t.Await(ctx, sluicetest.Patience, "requests", func(context.Context) (bool, error) {
		now = t.load.Count().Since(before)
		if inMaintenance && t.asked.Load() > asked || !inMaintenance && now.Refused["maintenance"] > 0 { // they were on the way
			begin, before, asked = time.Now(), t.load.Count(), t.asked.Load()
			return false, nil
		}
		return now.Requests >= enough, nil
	})
	t.Line("in %s: %d requests, %d answered by the app, %d told of the maintenance", time.Since(begin).Round(100*time.Millisecond), now.Requests, now.ByApp["star-1"], now.Refused["maintenance"])
	return err
}
