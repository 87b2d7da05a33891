package gateway

import (
	"fmt"
	"net/http"
	"testing"

	"sluice/test/tracetest"
)

// The collector changes live, and what was recorded for the earlier one gets there.
func TestCollectorChanges(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	first, second := tracetest.Start(t), tracetest.Start(t)
	text := func(tracing string) string {
		return listening(a, "{ name: web, address: '127.0.0.1:0' }") + "tracing: { " + tracing + " }\n"
	}
	to := func(c *tracetest.Collector, service string) string {
		return text(fmt.Sprintf("otlp: %q, sample: 100%%, service_name: %s, headers: ['X-Token: t']", c.URL, service))
	}
	r := start(t, to(first, "one"))
	r.awaitStatus("/", http.StatusOK)
	r.await("spans of the first", func() bool { return len(first.Spans()) > 0 }) // a request is recorded after its answer
	r.replace(to(second, "two"))
	r.get("/")
	r.await("spans of the second", func() bool { return len(second.Spans()) > 0 })
	for want, c := range map[string]*tracetest.Collector{"one": first, "two": second} {
		if got := c.Resource(); got["service.name"] != want || got["service.version"] != "test" || c.Header("X-Token") != "t" {
			t.Errorf("got %v with the token %q, want the service %s", got, c.Header("X-Token"), want)
		}
	}
}
