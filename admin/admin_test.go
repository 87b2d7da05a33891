package admin

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
)

// get asks h for path and returns the answer's status and body.
func get(t testing.TB, h http.Handler, path string, header ...string) (int, string) {
	t.Helper()
	return ask(t, h, http.MethodGet, path, header...)
}

// ask sends a request with header lines given as name and value in turns, from this
// machine if the path is no URL.
func ask(t testing.TB, h http.Handler, method, path string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if strings.HasPrefix(path, "/") {
		r.Host = "127.0.0.1:8081"
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

// getJSON decodes the answer to a request that must succeed.
func getJSON[T any](t testing.TB, h http.Handler, path string) T {
	t.Helper()
	status, body := get(t, h, path)
	if status != http.StatusOK {
		t.Fatalf("%s: status %d: %s", path, status, body)
	}
	return decode[T](t, body)
}

func decode[T any](t testing.TB, body string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

// errorOf returns the reason in the body of an error.
func errorOf(t testing.TB, body string) string {
	t.Helper()
	return decode[failure](t, body).Error
}

// instance is a passing one of weight 1 on port 80 of node n.
func instance(service, id, address string) discovery.Instance {
	return discovery.Instance{Service: service, ID: id, Node: "n", Address: address, Port: 80, Weight: 1}
}

func newPool(t testing.TB, name string, set ...discovery.Instance) *balancer.Pool {
	t.Helper()
	p, err := balancer.NewPool(name, balancer.Options{DrainTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.Apply(set)
	return p
}

// pick starts an attempt.
func pick(t testing.TB, p *balancer.Pool) balancer.Token {
	t.Helper()
	token, err := p.Pick(nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func poolsOf(pools ...*balancer.Pool) func() []*balancer.Pool {
	return func() []*balancer.Pool { return pools }
}

// history has one revision for each text of a file.
func history(t testing.TB, texts ...string) *config.History {
	t.Helper()
	h := new(config.History)
	for _, text := range texts {
		c, err := config.Parse("sluice.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		h.Applied(config.Revision{Source: "sluice.yaml", Hash: "0123", Config: c})
	}
	return h
}

func handlerOf(o Options) http.Handler {
	if o.History == nil {
		o.History = new(config.History)
	}
	return New(o)
}
