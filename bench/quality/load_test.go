//go:build linux

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/bench/quality/scenario"
	"sluice/test/verify"
)

// A latency begins at the intended time of sending, however late the request is sent. What is no
// right answer counts as the slowest, and says why.
func TestWhatALoadMeasures(t *testing.T) {
	t.Parallel()
	const late = 2 * time.Second
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get(numberField) {
		case "0":
			io.WriteString(w, rightBody(0))
		case "1":
			io.WriteString(w, rightBody(0))
		case "2":
			w.Header().Set("X-Sluice-Reason", "overload")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, rightBody(2))
		case "3":
			io.WriteString(w, rightBody(3)) // and more would follow
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	p := &play{Scenario: scenario.Scenario{Routes: []scenario.Route{{Name: "all"}}}, requests: make([]scenario.Request, 4)}
	samples := newLoad(p, time.Now().Add(-late), []string{strings.TrimPrefix(server.URL, "http://")}).run(t.Context())
	for n, failure := range []failure{answered, misled, "503 overload", broken} {
		s := samples[n]
		verify.Equal(t, s.failure, failure, "request %d", n)
		verify.That(t, s.late >= late && s.end >= late, "request %d: sent %v late, its end at %v", n, s.late, s.end)
		verify.That(t, s.latency >= late && (failure == answered || s.latency == patience), "request %d: latency %v", n, s.latency)
	}
}

// A proxy that cannot be had is left out, and the report has its name and the reason; the others
// are measured.
func TestAProxyThatCannotBeHadIsLeftOut(t *testing.T) {
	t.Parallel()
	b := &bench{progress: io.Discard, length: scenario.Short}
	wanted := []proxy{{name: "other-least", program: "other"}, {name: "mine", program: "sluice", path: "/mine"}}
	r := verify.Result(b.measure(t.Context(), nil, wanted)).Must(t)
	verify.Slices(t, r.Proxies, []string{"mine"}, "measured")
	verify.Require(t, len(r.LeftOut) == 1 && r.LeftOut[0].Proxy == "other-least", "left out: %v", r.LeftOut)
	verify.That(t, strings.Contains(r.summary(), "\n**Left out: other-least.** "+r.LeftOut[0].Why), "the report does not say so:\n%s", r.summary())
}
