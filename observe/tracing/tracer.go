package tracing

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"sluice/config/units"
	"sluice/observe/excerpt"
	"sluice/observe/panics"
)

// Options configure a Tracer.
type Options struct {
	// Endpoint is the URL of the collector without the path of traces.
	Endpoint units.Location
	Headers  map[string]string // of the requests to it
	// Sample is the share of traces that begin here and are exported, from 0 to 1.
	Sample float64

	// The resource of the spans.

	Service  string
	Instance string // empty: unknown
	Version  string

	Counters *Counters

	// Notify is called with the error when the export begins to fail, and with nil when it works
	// again.
	Notify func(error)
}

const (
	// maxQueued bounds the requests that wait for the export.
	maxQueued = 2048
	// maxQueuedBytes bounds their texts, and the texts of the export under way. A client may send
	// long ones.
	maxQueuedBytes = 16 << 20
	// maxBatch bounds the requests of one export, and maxBatchBytes their texts, but for the last
	// request: collectors refuse long messages.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// exportEvery is how long a request waits for others at most.
	exportEvery = time.Second
	// exportTimeout bounds an export with its retries.
	exportTimeout = 10 * time.Second
	// closeTimeout bounds the last exports.
	closeTimeout = 3 * time.Second
	maxError     = 400 // bytes of the error of an export
)

// A Tracer decides which requests are traced, and exports their spans. It is safe for
// concurrent use.
type Tracer struct {
	threshold uint64 // a random 64-bit number below it selects a trace
	every     bool
	client    otlptrace.Client
	resource  *tracepb.ResourceSpans // its fields are copied
	notify    func(error)
	endpoint  units.Location

	queue  chan *Request
	queued atomic.Int64 // see maxQueuedBytes
	quit   chan struct{}
	stop   func() // closes quit
	done   chan struct{}
	ctx    context.Context // of exports
	cancel context.CancelFunc

	counts  *Counters
	failing bool // of the goroutine that exports
}

// Counts are numbers of spans.
type Counts struct {
	Exported uint64
	Dropped  uint64 // too many were waiting for the collector
	Failed   uint64 // the collector was not there, or did not take them
}

// Counters have Counts, to which several Tracers may add. The zero value is ready for use.
type Counters struct{ exported, dropped, failed atomic.Uint64 }

// Read returns the numbers of spans until now.
func (c *Counters) Read() Counts {
	return Counts{c.exported.Load(), c.dropped.Load(), c.failed.Load()}
}

// New starts a Tracer. The caller must call Close.
func New(o Options) (*Tracer, error) {
	endpoint, err := url.Parse(o.Endpoint.Reveal())
	if err != nil {
		return nil, fmt.Errorf("tracing: %s is no URL", o.Endpoint)
	}
	t := &Tracer{
		threshold: uint64(math.Ldexp(min(o.Sample, 1-1.0/(1<<53)), 64)), every: o.Sample >= 1,
		client: otlptracehttp.NewClient(
			otlptracehttp.WithEndpointURL(endpoint.JoinPath("v1/traces").String()), otlptracehttp.WithHeaders(o.Headers),
			otlptracehttp.WithCompression(otlptracehttp.GzipCompression), otlptracehttp.WithTimeout(exportTimeout),
			otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: 500 * time.Millisecond, MaxInterval: 5 * time.Second, MaxElapsedTime: exportTimeout}),
		),
		resource: newResource(o), notify: o.Notify, endpoint: o.Endpoint,
		queue: make(chan *Request, maxQueued), quit: make(chan struct{}), done: make(chan struct{}),
		counts: o.Counters,
	}
	t.stop = sync.OnceFunc(func() { close(t.quit) })
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if err := t.client.Start(t.ctx); err != nil {
		t.cancel()
		return nil, fmt.Errorf("tracing: %w", err)
	}
	go func() {
		defer close(t.done)
		defer t.client.Stop(context.Background()) // ends nothing that is needed
		panics.Repeat(t.ctx.Done(), panics.Task, time.Second, t.run)
	}()
	return t, nil
}

// Begin returns the span of a new request. parent is what the client has sent; known is false
// if it has sent nothing. The client's decision counts if it is trusted, else chance decides.
// A request that goes on with a trace and is not sampled has no span of its own.
func (t *Tracer) Begin(parent Parent, known, trusted bool) Span {
	sampled := parent.Sampled
	if !known || !trusted {
		sampled = t.every || rand.Uint64() < t.threshold
	}
	switch {
	case known && !sampled:
		return Span{Trace: parent.Trace}
	case known:
		return Span{Trace: parent.Trace, Parent: parent.Span, ID: NewSpanID(), Sampled: true}
	}
	return Span{Trace: newTraceID(), ID: NewSpanID(), Sampled: sampled}
}

// Record exports the spans of a finished request, later. It waits for nothing: if too many
// requests wait for the collector, or after Close, the spans are dropped.
func (t *Tracer) Record(r *Request) {
	bytes := r.bytes()
	if t.queued.Add(bytes) <= maxQueuedBytes {
		select {
		case <-t.quit:
		default:
			select {
			case t.queue <- r:
				return
			default:
			}
		}
	}
	t.queued.Add(-bytes)
	t.counts.dropped.Add(r.spans())
}

// spans returns the number of spans of r.
func (r *Request) spans() uint64 { return uint64(1 + len(r.Attempts)) }

// bytes returns how many bytes of the client's texts the spans of r have.
func (r *Request) bytes() int64 {
	inEach := len(r.TraceState) + len(r.Method) + len(r.Path) + len(r.Query)
	return int64(inEach*(1+len(r.Attempts)) + len(r.Host) + len(r.UserAgent) + len(r.RequestID))
}

// A batch is the requests of one export.
type batch struct {
	requests []*Request
	bytes    int64
}

// add adds a request, and reports whether the batch is full.
func (b *batch) add(r *Request) bool {
	b.requests = append(b.requests, r)
	b.bytes += r.bytes()
	return len(b.requests) >= maxBatch || b.bytes >= maxBatchBytes
}

// Close exports what waits, for a few seconds, and ends the Tracer. It may be called again.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	t.stop()
	timeout := time.AfterFunc(closeTimeout, t.cancel)
	defer timeout.Stop()
	<-t.done
	t.cancel()
	for len(t.queue) > 0 { // recorded meanwhile
		t.counts.dropped.Add((<-t.queue).spans())
	}
}

// run exports what is recorded, until Close.
func (t *Tracer) run() {
	tick := time.NewTicker(exportEvery)
	defer tick.Stop()
	var b batch
	for {
		quit := false
		select {
		case r := <-t.queue:
			if !b.add(r) {
				continue
			}
		case <-tick.C:
		case <-t.quit:
			quit = true
		}
		t.export(&b)
		for quit && len(t.queue) > 0 {
			for full := false; len(t.queue) > 0 && !full; {
				full = b.add(<-t.queue)
			}
			t.export(&b)
		}
		if quit {
			return
		}
	}
}

// export sends a batch, which is empty then.
func (t *Tracer) export(b *batch) {
	if len(b.requests) == 0 {
		return
	}
	defer t.queued.Add(-b.bytes)
	var spans []*tracepb.Span
	for _, r := range b.requests {
		spans = r.appendSpans(spans)
	}
	clear(b.requests)
	b.requests, b.bytes = b.requests[:0], 0
	ctx, cancel := context.WithTimeout(t.ctx, exportTimeout)
	defer cancel()
	err := t.client.UploadTraces(ctx, []*tracepb.ResourceSpans{{
		Resource: t.resource.Resource, SchemaUrl: t.resource.SchemaUrl,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "sluice"}, SchemaUrl: t.resource.SchemaUrl, Spans: spans}},
	}})
	count := &t.counts.exported
	if err != nil {
		count = &t.counts.failed
	}
	count.Add(uint64(len(spans)))
	if failing := err != nil; failing != t.failing {
		t.failing = failing
		if failing { // the collector's answer, of up to megabytes, is in it
			err = errors.New(excerpt.Of(t.endpoint.MaskIn(err.Error()), maxError))
		}
		t.notify(err)
	}
}
