package tracing

import (
	"encoding/hex"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"sluice/config/units"
	"sluice/test/tracetest"
	"sluice/test/verify"
)

// start starts a Tracer for the collector, which is closed after the test.
func start(t *testing.T, o Options) *Tracer {
	t.Helper()
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	if o.Notify == nil {
		o.Notify = func(error) {}
	}
	tracer := verify.Result(New(o)).Must(t)
	t.Cleanup(tracer.Close)
	return tracer
}

// await waits until condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); <-time.After(time.Millisecond) {
		verify.Require(t, !time.Now().After(deadline), "waited in vain for %s", what)
	}
}

// The client's decision counts if it is trusted; else the share.
func TestBegin(t *testing.T) {
	parent, _ := ParseTraceparent([]byte("00-" + traceText + "-" + spanText + "-01"))
	unsampled := parent
	unsampled.Sampled = false
	for _, test := range []struct {
		name           string
		sample         float64
		parent         Parent
		known, trusted bool
		sampled, span  bool
	}{
		{"new, all", 1, Parent{}, false, false, true, true},
		{"new, none", 0, Parent{}, false, false, false, true},
		{"new, of a trusted client", 1, Parent{}, false, true, true, true},
		{"trusted, sampled", 0, parent, true, true, true, true},
		{"trusted, not sampled", 1, unsampled, true, true, false, false},
		{"not trusted, all", 1, unsampled, true, false, true, true},
		{"not trusted, none", 0, parent, true, false, false, false},
	} {
		tracer := start(t, Options{Endpoint: units.NewLocation("http://127.0.0.1:1"), Sample: test.sample})
		s := tracer.Begin(test.parent, test.known, test.trusted)
		verify.That(t, s.Sampled == test.sampled && s.ID.IsZero() != test.span && !s.Trace.IsZero(), "%s: got %+v", test.name, s)
		verify.That(t, !test.known || s.Trace == test.parent.Trace, "%s: got the trace %x", test.name, s.Trace)
		want := test.parent.Span
		verify.That(t, !test.span || s.Parent == want, "%s: got the parent %x", test.name, s.Parent)
	}
	tracer, sampled := start(t, Options{Endpoint: units.NewLocation("http://127.0.0.1:1"), Sample: 0.5}), 0
	const requests = 10_000 // a share beyond 45 % to 55 % has a chance of 10^-22
	for range requests {
		if tracer.Begin(Parent{}, false, false).Sampled {
			sampled++
		}
	}
	verify.That(t, sampled >= requests*45/100 && sampled <= requests*55/100, "%d of %d are sampled, want half", sampled, requests)
}

func TestExport(t *testing.T) {
	t.Parallel()
	collector := tracetest.Start(t)
	counters := new(Counters)
	tracer := start(t, Options{
		Endpoint: units.NewLocation(collector.URL + "/"), Headers: map[string]string{"Authorization": "Bearer x"}, Sample: 1,
		Service: "edge", Instance: "host-1", Version: "v1", Counters: counters,
	})
	parent, _ := ParseTraceparent([]byte("00-" + traceText + "-" + spanText + "-01"))
	r := &Request{
		Span: tracer.Begin(parent, true, true), TraceState: "a=1", Start: time.Unix(1_800_000_000, 5), Duration: 50 * time.Millisecond,
		Method: "GET", Scheme: "https", Host: "a.example:8443", Path: "/items/1", Query: "q=2", Route: "/items", Proto: "2",
		Client: "203.0.113.9", Connected: "10.0.0.1", UserAgent: "curl", RequestID: "id-1", Status: 200, Service: "star",
		Attempts: []Attempt{
			{ID: NewSpanID(), Start: time.Millisecond, Duration: 2 * time.Millisecond, Peer: "10.0.0.7:80", PeerID: "star-1", Outcome: "connect_failure"},
			{ID: NewSpanID(), Start: 4 * time.Millisecond, Duration: 46 * time.Millisecond, Connect: 1500 * time.Microsecond, Secure: true, Peer: "[2001:db8::1]:81", Status: 200, Outcome: "ok", OK: true, Cause: "connect_failure"},
		},
	}
	tracer.Record(r)
	failed := &Request{Span: tracer.Begin(Parent{}, false, false), Start: time.Unix(1_800_000_000, 0), Method: "BREW", Scheme: "http", Host: "[::1]", Path: "/\xff", Route: "/\xff", UserAgent: "\xc0\xaf", Proto: "1.1", Status: 503, Failed: true, Reason: "no_peers"}
	tracer.Record(failed)
	grpc := &Request{Span: tracer.Begin(Parent{}, false, false), Method: "POST", Status: 200, GRPC: true, GRPCStatus: "UNAVAILABLE", Failed: true,
		Attempts: []Attempt{{ID: NewSpanID(), Peer: "a:1", Status: 404, Outcome: "ok", OK: true}}}
	tracer.Record(grpc)
	await(t, "the export", func() bool { return counters.Read() == Counts{Exported: 6} }) // in one or several parts
	tracer.Close()
	verify.Equal(t, collector.Header("Authorization"), "Bearer x", "the collector got Authorization")
	got := collector.Resource()
	verify.That(t, maps.Equal(got, map[string]any{"service.name": "edge", "service.instance.id": "host-1", "service.version": "v1"}), "resource %v", got)
	spans := collector.Spans()
	verify.Require(t, len(spans) == 6, "%d spans, want 6", len(spans))
	const server, client = tracepb.Span_SPAN_KIND_SERVER, tracepb.Span_SPAN_KIND_CLIENT
	type attributes = map[string]any
	for i, want := range []struct {
		name       string
		kind       tracepb.Span_SpanKind
		parent     string
		start, end uint64
		fault      bool
		attributes attributes
	}{
		{"GET /items", server, spanText, 1_800_000_000_000_000_005, 1_800_000_000_050_000_005, false, attributes{
			"http.request.method": "GET", "url.scheme": "https", "url.path": "/items/1", "url.query": "q=2", "http.route": "/items",
			"server.address": "a.example", "server.port": int64(8443), "network.protocol.version": "2", "client.address": "203.0.113.9",
			"network.peer.address": "10.0.0.1", "user_agent.original": "curl", "http.response.status_code": int64(200),
			"sluice.service": "star", "sluice.request_id": "id-1",
		}},
		{"GET", client, hex.EncodeToString(r.ID[:]), 1_800_000_000_001_000_005, 1_800_000_000_003_000_005, true, attributes{
			"http.request.method": "GET", "url.full": "http://10.0.0.7:80/items/1?q=2", "server.address": "10.0.0.7", "server.port": int64(80),
			"network.peer.address": "10.0.0.7", "network.peer.port": int64(80), "sluice.service": "star", "sluice.peer.id": "star-1",
			"sluice.attempt.outcome": "connect_failure", "error.type": "connect_failure",
		}},
		{"GET", client, hex.EncodeToString(r.ID[:]), 1_800_000_000_004_000_005, 1_800_000_000_050_000_005, false, attributes{
			"http.request.method": "GET", "url.full": "https://[2001:db8::1]:81/items/1?q=2", "server.address": "2001:db8::1", "server.port": int64(81),
			"network.peer.address": "2001:db8::1", "network.peer.port": int64(81), "http.response.status_code": int64(200), "http.request.resend_count": int64(1),
			"sluice.service": "star", "sluice.attempt.outcome": "ok", "sluice.attempt.cause": "connect_failure", "sluice.attempt.connect_ms": 1.5,
		}},
		{"HTTP /\ufffd", server, "", 1_800_000_000_000_000_000, 1_800_000_000_000_000_000, true, attributes{
			"http.request.method": "_OTHER", "http.request.method_original": "BREW", "url.scheme": "http", "url.path": "/\ufffd", "http.route": "/\ufffd", "server.address": "::1",
			"network.protocol.version": "1.1", "user_agent.original": "\ufffd", "http.response.status_code": int64(503), "sluice.reason": "no_peers", "error.type": "no_peers",
		}},
	} {
		s := spans[i]
		if s.Name != want.name || s.Kind != want.kind || hex.EncodeToString(s.ParentSpanId) != want.parent || s.StartTimeUnixNano != want.start || s.EndTimeUnixNano != want.end ||
			(s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR) != want.fault {
			t.Errorf("span %d: got %v", i, s)
		}
		got := tracetest.Attributes(s)
		verify.That(t, maps.Equal(got, want.attributes), "span %d:\ngot  %v\nwant %v", i, got, want.attributes)
	}
	for i, s := range spans[:3] {
		verify.That(t, hex.EncodeToString(s.TraceId) == traceText && s.TraceState == "a=1" && s.Flags&flagSampled != 0, "span %d: got %v", i, s)
	}
	got = tracetest.Attributes(spans[4])
	verify.That(t, got["rpc.system.name"] == "grpc" && got["rpc.response.status_code"] == "UNAVAILABLE" && got["error.type"] == "UNAVAILABLE", "gRPC: got %v", got)
	got = tracetest.Attributes(spans[5])
	verify.That(t, got["error.type"] == "404", "an attempt with 404: got %v", got)
}

// A collector that does not answer costs memory for some requests, and no time, however long their
// texts are.
func TestSlowCollector(t *testing.T) {
	t.Parallel()
	const requests, long = 2*maxQueued + maxBatch, 60 << 10
	for _, test := range []struct{ path, most int }{
		{0, 2*maxBatch + maxQueued},
		{long, maxQueuedBytes / long},
	} {
		collector := tracetest.Start(t)
		goOn := make(chan struct{})
		collector.Block(goOn)
		counters := new(Counters)
		tracer := start(t, Options{Endpoint: units.NewLocation(collector.URL), Sample: 1, Counters: counters})
		path := strings.Repeat("x", test.path)
		for range requests {
			tracer.Record(&Request{Span: tracer.Begin(Parent{}, false, false), Path: path})
		}
		dropped := counters.Read().Dropped
		verify.That(t, dropped >= uint64(requests-test.most), "%d spans were dropped", dropped)
		close(goOn)
		tracer.Close()
		got := counters.Read()
		has := uint64(len(collector.Spans()))
		verify.That(t, got.Exported+got.Dropped+got.Failed == requests && got.Exported <= has, "%+v, %d collected", got, has)
		verify.That(t, collector.Longest() < maxBatchBytes+4*long, "an export has %d bytes", collector.Longest())
		verify.Equal(t, tracer.queued.Load(), 0, "bytes that wait")
		tracer.Record(&Request{Path: "x"}) // too late
		now := counters.Read().Dropped
		verify.That(t, now == got.Dropped+1 && tracer.queued.Load() == 0, "%d spans were dropped after Close, want 1", now-got.Dropped)
	}
}

// Failures are told once, and so is their end.
func TestCollectorThatRefuses(t *testing.T) {
	t.Parallel()
	collector := tracetest.Start(t)
	collector.Refuse(400) // no second try
	counters := new(Counters)
	var mu sync.Mutex
	var told []error
	tracer := start(t, Options{Endpoint: units.NewLocation(collector.URL), Sample: 1, Counters: counters, Notify: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err)
	}})
	// record records so many requests that they are exported at once, and waits for that.
	record := func() {
		before := counters.Read()
		for range maxBatch {
			tracer.Record(&Request{Span: tracer.Begin(Parent{}, false, false)})
		}
		await(t, "the export", func() bool {
			now := counters.Read()
			return now.Exported+now.Failed == before.Exported+before.Failed+maxBatch
		})
	}
	record()
	record()
	collector.Refuse(0)
	record()
	tracer.Close()
	verify.Equal(t, counters.Read(), (Counts{Exported: maxBatch, Failed: 2 * maxBatch}), "counters.Read()")
	verify.That(t, len(told) == 2 && told[0] != nil && told[1] == nil, "told %v, want a failure and its end", told)
}

// What a collector, or a proxy in front of it, writes into its answer is only a part of the line of
// the log.
func TestCollectorThatAnswersAtLength(t *testing.T) {
	t.Parallel()
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, strings.Repeat("no! ", 1<<18))
	}))
	defer collector.Close()
	told := make(chan error, 1)
	tracer := start(t, Options{Endpoint: units.NewLocation(collector.URL), Sample: 1, Notify: func(err error) { told <- err }})
	tracer.Record(&Request{Span: tracer.Begin(Parent{}, false, false)})
	tracer.Close()
	text := (<-told).Error()
	verify.That(t, len(text) <= maxError && strings.Contains(text, "400 Bad Request") && strings.Contains(text, "no! no!"), "%d bytes: %.500q", len(text), text)
}

// Without a collector, Close ends soon, and what it lost is counted.
func TestNoCollector(t *testing.T) {
	t.Parallel()
	counters := new(Counters)
	tracer := start(t, Options{Endpoint: units.NewLocation("http://127.0.0.1:1"), Sample: 1, Counters: counters})
	tracer.Record(&Request{Span: tracer.Begin(Parent{}, false, false)})
	tracer.Close()
	verify.Equal(t, counters.Read(), (Counts{Failed: 1}), "counters.Read()")
}
