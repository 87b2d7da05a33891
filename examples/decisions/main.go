// Command decisions shows what people write in Lua for a proxy: tenants with services and limits of
// their own, canaries by user, and signed URLs. It needs only Go, and ends by itself after about
// ten seconds:
//
//	go run ./examples/decisions
//
// sluice has the configuration of this folder, and asks a server that decides (server.go). The
// server and the apps are parts of this program; Consul and sluice are processes.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("decisions", show) }

//go:embed sluice.yaml
var configuration string

// tour is what runs.
type tour struct {
	*stage.Stage
	questions atomic.Int64 // that the server was asked
}

// instances are the instances by their services, each with its tag.
var instances = [][2]string{{"acme", ""}, {"zoo", ""}, {"files", ""}, {"shop", "stable"}, {"shop", "canary"}}

// show shows what clients get.
func show(ctx context.Context, on *stage.Stage) error {
	t := &tour{Stage: on}
	if err := t.start(ctx); err != nil {
		return err
	}
	acme, zoo := []string{"X-Api-Key", "key-of-acme"}, []string{"X-Api-Key", "key-of-zoo"}
	file, wrong := signed("/files/report.pdf", time.Now().Add(time.Minute)), signed("/files/other.pdf", time.Now().Add(time.Minute))
	_, signature, _ := strings.Cut(wrong, "?")
	for _, look := range []struct {
		what, path string
		header     []string
		want       string
	}{
		{"a client without a key", "/api/orders", nil, "401 auth_denied: want a key in X-Api-Key"},
		{"a client of acme", "/api/orders", acme, `200: acme answers /api/orders`},
		{"a client of zoo", "/api/orders", zoo, `200: zoo answers /api/orders`},
		{"ann", "/shop", []string{"Authorization", "Basic YW5uOng="}, `200: shop stable answers /shop to ann`},
		{"bob, whom the canary is for", "/shop", []string{"Authorization", "Basic Ym9iOng="}, `200: shop canary answers /shop to bob`},
		{"a signed link", file, nil, `200: files answers /files/report.pdf`},
		{"the signature of another link", "/files/report.pdf?" + signature, nil, "403 auth_denied: the link is wrong or has ended"},
	} {
		got, err := t.ask(ctx, look.path, look.header)
		if err != nil {
			return err
		}
		if got != look.want {
			return fmt.Errorf("%s: got %q, want %q", look.what, got, look.want)
		}
		t.Line("%-30s %s", look.what, got)
	}
	return t.exhaust(ctx, acme, zoo)
}

// exhaust has acme exhaust its limit, of which it has used one request before.
func (t *tour) exhaust(ctx context.Context, acme, zoo []string) error {
	before, answers := t.questions.Load(), make(map[string]int)
	for range 10 {
		got, err := t.ask(ctx, "/api/orders", acme)
		if err != nil {
			return err
		}
		answers[got[:3]]++
	}
	got, err := t.ask(ctx, "/api/orders", zoo)
	if err != nil {
		return err
	}
	questions := t.questions.Load() - before
	t.Line("10 more of acme: %d answered, %d over its limit; of zoo: %s; %d questions", answers["200"], answers["429"], got, questions)
	if answers["200"] != 4 || answers["429"] != 6 || !strings.HasPrefix(got, "200") || questions > 0 {
		return fmt.Errorf("want 4 and 6, an answer for zoo, and no question")
	}
	return nil
}

func (t *tour) start(ctx context.Context) error {
	t.Line("Building sluice, and starting Consul, four services, a server that decides, and sluice.")
	if err := t.StartConsul(ctx); err != nil {
		return err
	}
	for i, instance := range instances {
		name := strings.TrimSpace(strings.Join(instance[:], " "))
		err := t.StartApp(instance[0], fmt.Sprint(instance[0], "-", i), instance[1:], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s answers %s", name, r.RequestURI)
			if user := r.Header.Get("X-User"); user != "" {
				fmt.Fprintf(w, " to %s", user)
			}
		}))
		if err != nil {
			return err
		}
	}
	decide := newServer()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.questions.Add(1)
		decide.ServeHTTP(w, r)
	}))
	t.End(func() error { server.Close(); return nil })
	here := strings.NewReplacer("127.0.0.1:8080", sluicetest.Any, "http://127.0.0.1:8500", t.Consul.URL(), "http://127.0.0.1:9090", server.URL)
	if err := t.Serve(ctx, here.Replace(configuration)); err != nil {
		return err
	}
	return t.AwaitUp(ctx, len(instances))
}

// ask sends a request, and returns what the client gets.
func (t *tour) ask(ctx context.Context, path string, header []string) (string, error) {
	answer, err := sluicetest.Ask(ctx, http.DefaultClient, http.MethodGet, t.URL()+path, header...)
	return answer.String() + ": " + answer.Text, err
}
