// Package tracetest has a collector of OpenTelemetry for tests: it takes spans by OTLP over
// HTTP, and decodes them.
package tracetest

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A Collector takes spans. It is safe for concurrent use.
type Collector struct {
	URL string // for tracing.Options.Endpoint

	t testing.TB

	mu       sync.Mutex // guards the fields below
	spans    []*tracepb.Span
	resource []*commonpb.KeyValue
	headers  http.Header
	status   int             // of answers that refuse; 0: it takes all
	block    <-chan struct{} // answers wait for it; nil: they do not
	longest  int             // message, in bytes
}

// Start starts a collector, which runs until the test ends.
func Start(t testing.TB) *Collector {
	c := &Collector{t: t}
	server := httptest.NewServer(c)
	c.URL = server.URL
	t.Cleanup(server.Close)
	return c
}

// Refuse makes later answers have that status; 0: they take the spans.
func (c *Collector) Refuse(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

// Block makes later answers wait until the channel is closed.
func (c *Collector) Block(until <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.block = until
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != "POST" || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.t.Errorf("the collector got %s %s with %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	c.mu.Lock()
	status, block := c.status, c.block
	c.mu.Unlock()
	if block != nil {
		<-block
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(body); err != nil {
			c.t.Errorf("the collector got no gzip: %v", err)
			return
		}
	}
	message, err := io.ReadAll(body)
	request := new(collectorpb.ExportTraceServiceRequest)
	if err == nil {
		err = proto.Unmarshal(message, request)
	}
	if err != nil {
		c.t.Errorf("the collector got no spans: %v", err)
		return
	}
	c.mu.Lock()
	c.headers, c.longest = r.Header, max(c.longest, len(message))
	for _, resource := range request.ResourceSpans {
		c.resource = resource.Resource.Attributes
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	c.mu.Unlock()
	answer, _ := proto.Marshal(new(collectorpb.ExportTraceServiceResponse))
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer) // the client may have left
}

// Spans returns the spans until now.
func (c *Collector) Spans() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Longest returns the length of the longest message until now, in bytes.
func (c *Collector) Longest() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.longest
}

// Header returns a header field of the last request.
func (c *Collector) Header(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers.Get(name)
}

// Resource returns the attributes of the last resource.
func (c *Collector) Resource() map[string]any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return values(c.resource)
}

// Attributes returns the attributes of a span: texts, int64 and float64.
func Attributes(s *tracepb.Span) map[string]any { return values(s.Attributes) }

func values(list []*commonpb.KeyValue) map[string]any {
	all := make(map[string]any, len(list))
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[a.Key] = v.IntValue
		case *commonpb.AnyValue_DoubleValue:
			all[a.Key] = v.DoubleValue
		}
	}
	return all
}
