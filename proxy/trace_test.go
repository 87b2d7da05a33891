package proxy

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"

	"sluice/config/units"
	"sluice/observe/tracing"
	"sluice/route"
	"sluice/test/tracetest"
	"sluice/test/verify"
)

const (
	sentTrace   = "4bf92f3577b34da6a3ce929d0e0e4736"
	sentSpan    = "00f067aa0ba902b7"
	traceparent = "00-" + sentTrace + "-" + sentSpan + "-01"
	notSampled  = "00-" + sentTrace + "-" + sentSpan + "-00"
	tracestate  = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
)

// Without a tracer, peers get what clients send, whatever the protocols are.
func TestTraceContextPassesUnchanged(t *testing.T) {
	t.Parallel()
	throughProtocols(t, Options{}, echoRequest, func(t *testing.T, p *testProxy, front testFront) {
		for _, sent := range []string{traceparent, notSampled, "nonsense"} {
			_, echoed := front.ask(t, "GET", "/", "", "traceparent: "+sent, "tracestate: "+tracestate, "tracestate: zed=1")
			verify.Slices(t, valuesOf("Traceparent", echoed), []string{sent}, "got the traceparent for %s", sent)
			verify.Slices(t, valuesOf("Tracestate", echoed), []string{tracestate, "zed=1"}, "got the tracestate")
		}
	})
}

// startTracer returns a tracer that exports all spans, and the collector that gets them.
func startTracer(t *testing.T, sample float64) (*tracing.Tracer, *tracetest.Collector) {
	t.Helper()
	collector := tracetest.Start(t)
	tracer := verify.Result(tracing.New(tracing.Options{Endpoint: units.NewLocation(collector.URL), Sample: sample, Counters: new(tracing.Counters), Service: "test", Notify: func(error) {}})).Must(t)
	t.Cleanup(tracer.Close)
	return tracer, collector
}

// trace makes the proxy export spans.
func (p *testProxy) trace(tracer *tracing.Tracer) {
	p.change(func(o *Options) { o.Tracer = tracer })
}

// A traced is a server's span with those of its attempts, in their order.
type traced struct {
	*tracepb.Span
	attributes map[string]any
	attempts   []*tracepb.Span
}

// awaitSpans waits for that many spans of requests with all their attempts, and returns them in the
// order in which the requests began: a client with HTTP/2 may have an answer before its request is
// accounted for.
func awaitSpans(t *testing.T, c *tracetest.Collector, requests int) (list []traced) {
	t.Helper()
	eventually(t, fmt.Sprint(requests, " spans of requests"), func() bool {
		list = nil
		for _, s := range c.Spans() { // each comes before its attempts
			if s.Kind == tracepb.Span_SPAN_KIND_SERVER {
				list = append(list, traced{s, tracetest.Attributes(s), nil})
				continue
			}
			of := &list[len(list)-1]
			verify.Require(t, bytes.Equal(s.ParentSpanId, of.SpanId) && bytes.Equal(s.TraceId, of.TraceId), "%v is not below %v", s, of)
			of.attempts = append(of.attempts, s)
		}
		return len(list) >= requests
	})
	verify.Require(t, len(list) == requests, "%d spans of requests, want %d", len(list), requests)
	slices.SortStableFunc(list, func(a, b traced) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	return list
}

// Each request has a span, and its peer the id of that of the attempt.
func TestSpans(t *testing.T) {
	t.Parallel()
	throughProtocols(t, Options{}, echoRequest, func(t *testing.T, p *testProxy, front testFront) {
		tracer, collector := startTracer(t, 1)
		p.trace(tracer)
		p.setRoutes(route.Route{Path: "/items", Service: p.service})
		_, first := front.ask(t, "GET", "/items/1?q=2", "")
		_, second := front.ask(t, "POST", "/items", "body", "traceparent: "+traceparent, "tracestate: a=1", "tracestate: b=2")
		front.ask(t, "GET", "/none", "")
		front.client.CloseIdleConnections()
		list := awaitSpans(t, collector, 3)
		scheme, version := "http", "1.1"
		if strings.HasPrefix(front.url, "https:") {
			scheme = "https"
		}
		if strings.Contains(front.name, "HTTP/2") {
			version = "2"
		}
		for i, echoed := range []string{first, second} {
			s := list[i]
			verify.Require(t, len(s.attempts) == 1, "%d spans of attempts, want 1", len(s.attempts))
			want := fmt.Sprintf("00-%x-%x-01", s.TraceId, s.attempts[0].SpanId)
			verify.Slices(t, valuesOf("Traceparent", echoed), []string{want}, "the peer got the traceparent")
			peer := tracetest.Attributes(s.attempts[0])
			if s.attributes["url.scheme"] != scheme || s.attributes["network.protocol.version"] != version || s.attributes["http.route"] != "/items" ||
				s.attributes["server.address"] != "shop.example" || s.attributes["client.address"] != "127.0.0.1" || s.attributes["http.response.status_code"] != int64(200) ||
				peer["http.response.status_code"] != int64(200) || peer["sluice.attempt.outcome"] != "ok" || peer["server.address"] != "127.0.0.1" {
				t.Errorf("got %v and %v", s.attributes, peer)
			}
			if a := s.attempts[0]; a.StartTimeUnixNano < s.StartTimeUnixNano || a.EndTimeUnixNano > s.EndTimeUnixNano {
				t.Errorf("the attempt from %d to %d is not within %d to %d", a.StartTimeUnixNano, a.EndTimeUnixNano, s.StartTimeUnixNano, s.EndTimeUnixNano)
			}
		}
		s := list[0]
		verify.That(t, s.Name == "GET /items" && len(s.ParentSpanId) == 0 && s.attributes["url.path"] == "/items/1" && s.attributes["url.query"] == "q=2", "got %v", s)
		s = list[1]
		verify.That(t, s.Name == "POST /items" && hex.EncodeToString(s.TraceId) == sentTrace && hex.EncodeToString(s.ParentSpanId) == sentSpan && s.TraceState == "a=1,b=2", "got %v", s)
		verify.Slices(t, valuesOf("Tracestate", second), []string{"a=1", "b=2"}, "the peer got the tracestate")
		s = list[2]
		verify.That(t, s.Name == "GET" && len(s.attempts) == 0 && s.attributes["http.response.status_code"] == int64(404) && s.attributes["sluice.reason"] == "no_route" && s.Status.GetCode() == 0, "got %v", s)
	})
}

// What is not sampled passes unchanged; a trace that begins here says so.
func TestNotSampled(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{false, true} {
		tracer, collector := startTracer(t, 0)
		o := Options{Tracer: tracer}
		if trusted {
			o.TrustedProxies = loopback
		}
		origin := startOrigin(t, answering(okResponse))
		p := startProxy(t, o, origin.address())
		for _, sent := range []string{traceparent, notSampled, ""} {
			line := ""
			if sent != "" {
				line = "TraceParent: " + sent + "\r\n"
			}
			before := len(origin.got())
			p.raw("GET / HTTP/1.1\r\nHost: a\r\n" + line + "Connection: close\r\n\r\n")
			got := origin.got()[before:]
			switch {
			case sent == "":
				_, id, _ := strings.Cut(got, "\r\ntraceparent: 00-")
				verify.That(t, len(id) >= 52 && id[49:52] == "-00", "got %q, want a trace that is not sampled", got)
			case sent == traceparent && trusted:
				verify.That(t, strings.Contains(got, "\r\ntraceparent: 00-"+sentTrace+"-") && !strings.Contains(got, sentSpan), "got %q, want the span of an attempt", got)
			case !strings.Contains(got, "\r\n"+line):
				t.Errorf("got %q, want %q", got, line)
			}
		}
		want := 0
		if trusted {
			want = 1
		}
		list := awaitSpans(t, collector, want)
		verify.That(t, want != 0 || len(collector.Spans()) == 0, "got %v", list)
	}
}

// Retries are spans of their own, which say why.
func TestSpansOfAttempts(t *testing.T) {
	t.Parallel()
	tracer, collector := startTracer(t, 1)
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{Tracer: tracer}, nowhere[0], origin.address())
	for range 2 { // each peer is the first once
		p.raw(closingRequest)
	}
	list := awaitSpans(t, collector, 2)
	slices.SortFunc(list, func(a, b traced) int { return cmp.Compare(len(a.attempts), len(b.attempts)) })
	verify.Require(t, len(list[0].attempts) == 1 && len(list[1].attempts) == 2, "got %v", list)
	first, second := tracetest.Attributes(list[1].attempts[0]), tracetest.Attributes(list[1].attempts[1])
	verify.That(t, first["error.type"] == "connect_failure" && first["http.request.resend_count"] == nil && first["sluice.attempt.cause"] == nil, "the first: %v", first)
	verify.That(t, second["error.type"] == nil && second["http.request.resend_count"] == int64(1) && second["sluice.attempt.cause"] == "connect_failure" && second["http.response.status_code"] == int64(200), "the second: %v", second)
	verify.Contains(t, origin.got(), fmt.Sprintf("\r\ntraceparent: 00-%x-%x-01\r\nX-Sluice-Attempts: 2\r\n", list[1].TraceId, list[1].attempts[1].SpanId), "the peer")
}

func TestSpansOfGRPC(t *testing.T) {
	t.Parallel()
	origin := startGRPCOrigin(t)
	p, client := startGRPC(t, origin.address)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", traceparent, "tracestate", "a=1")
	verify.Result(client.UnaryCall(ctx, unary(1, 1))).Must(t) // without a tracer
	tracer, collector := startTracer(t, 1)
	p.trace(tracer)
	_, err := client.UnaryCall(ctx, unary(1, 1))
	verify.NoError(t, err)
	p.setPeers()
	_, err = client.UnaryCall(ctx, unary(1, 1))
	verify.Require(t, err != nil, "a call without a peer succeeds")
	list := awaitSpans(t, collector, 2)
	a := list[0].attributes
	verify.That(t, a["rpc.system.name"] == "grpc" && a["rpc.response.status_code"] == "OK" && hex.EncodeToString(list[0].TraceId) == sentTrace && len(list[0].attempts) == 1, "got %v", list[0])
	a = list[1].attributes
	verify.That(t, a["rpc.response.status_code"] == "UNAVAILABLE" && a["error.type"] == "no_peers" && list[1].Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR, "got %v", list[1])
}

// A tunnel has spans of its handshake, which are there while it is open.
func TestSpansOfTunnels(t *testing.T) {
	t.Parallel()
	tracer, collector := startTracer(t, 1)
	p := startProxy(t, Options{Tracer: tracer}, startOrigin(t, agreeing("x")).address())
	conn := p.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	s := awaitSpans(t, collector, 1)[0]
	verify.Equal(t, p.Connections(), 1, "the tunnel is closed")
	verify.That(t, len(s.attempts) == 1 && s.attributes["http.response.status_code"] == int64(101) && tracetest.Attributes(s.attempts[0])["http.response.status_code"] == int64(101), "got %v", s)
	conn.Close()
	eventually(t, "the tunnel is closed", func() bool { return p.Connections() == 0 })
	tracer.Close()
	verify.Equal(t, len(collector.Spans()), 2, "spans")
}

// A trace has its id in the access log, whoever has made it.
func TestTraceInAccessLog(t *testing.T) {
	t.Parallel()
	p := startLogged(t, Options{}, answersOK(t))
	p.raw("GET /sent HTTP/1.1\r\nHost: a\r\ntraceparent: " + notSampled + "\r\nConnection: close\r\n\r\n")
	p.raw("GET /invalid HTTP/1.1\r\nHost: a\r\ntraceparent: x\r\nConnection: close\r\n\r\n")
	p.raw("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	tracer, _ := startTracer(t, 0)
	p.trace(tracer)
	p.raw("GET /new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	traces := make(map[string]string) // the lines of several connections have no order
	for _, line := range p.lines() {
		traces[line.Target] = line.TraceID
	}
	verify.That(t, len(traces) == 4 && traces["/sent"] == sentTrace && traces["/invalid"] == "" && traces["/none"] == "" && len(traces["/new"]) == 32, "got %v", traces)
}

// The state of a trace belongs to it: a new one begins without (W3C Trace Context, section 4.3),
// whoever is asked.
func TestNewTracesHaveNoState(t *testing.T) {
	t.Parallel()
	tracer, _ := startTracer(t, 1)
	throughProtocols(t, Options{}, echoRequest, func(t *testing.T, p *testProxy, front testFront) {
		p.trace(tracer)
		asked := make(chan http.Header, 1)
		p.setActions(&route.Actions{ForwardAuth: asking(t, func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header })})
		for sent, want := range map[string][]string{
			"traceparent: " + traceparent: {tracestate, "zed=1"}, "traceparent: nonsense": nil, "X: without": nil,
			"traceparent: 00-" + sentTrace + "-0000000000000000-01": nil,
		} {
			_, echoed := front.ask(t, "GET", "/", "", sent, "tracestate: "+tracestate, "TraceState: zed=1")
			verify.Slices(t, valuesOf("Tracestate", echoed), want, "%s: the peer got", sent)
			verify.Slices(t, (<-asked).Values("Tracestate"), want, "%s: the authentication server got", sent)
		}
	})
}

// isUUID7 is what sluice makes.
var isUUID7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString

func TestAppendRequestID(t *testing.T) {
	now := time.UnixMilli(0x0123456789ab)
	verify.Equal(t, string(appendRequestID([]byte("x"), now, 0xffff_ffff_ffff_fabc, 0xffff_0000_1234_5678)), "x01234567-89ab-7abc-bfff-000012345678", "result")
	got := string(appendRequestID(nil, now, 0, 0))
	verify.That(t, got == "01234567-89ab-7000-8000-000000000000" && len(got) == requestIDBytes, "got %s", got)
}

func TestIsRequestID(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "0190a1b2-c3d4-7abc-8def-0123456789ab": true, "Root=1-67891233-abc": true, "a.b_c~d:e+f/g@h": true,
		strings.Repeat("a", maxRequestIDBytes): true, strings.Repeat("a", maxRequestIDBytes+1): false,
		"": false, "a b": false, "a,b": false, "a;b": false, `a"b`: false, "a\tb": false, "é": false, "a\\b": false, "<a>": false,
	} {
		verify.Equal(t, isRequestID([]byte(id)), want, "%q", id)
	}
}

// throughProtocols calls f for each protocol of clients and peers. The peers answer as handler
// does.
func throughProtocols(t *testing.T, o Options, handler http.HandlerFunc, f func(t *testing.T, p *testProxy, front testFront)) {
	for _, http2 := range []bool{false, true} {
		for n := range 4 { // fronts
			t.Run(fmt.Sprintf("front %d, HTTP/2 to peers %v", n, http2), func(t *testing.T) {
				t.Parallel()
				p := startProxyTo(t, http2, o, handler)
				f(t, p, p.fronts()[n])
			})
		}
	}
}

// valuesOf returns the values of a field that a peer got, as echoRequest says.
func valuesOf(name, echoed string) (values []string) {
	for line := range strings.Lines(echoed) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// The peer and the client get the same id, which a trusted client may choose.
func TestRequestID(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "of-the-peer")
		echoRequest(w, r)
	}
	type test struct {
		options Options
		sent    []string
		want    string // "": a new one
	}
	eachCase(t, map[string]test{
		"made":                           {Options{Switches: Switches{RequestID: true}}, nil, ""},
		"of an untrusted client":         {Options{Switches: Switches{RequestID: true}}, []string{"a-1"}, ""},
		"of a trusted client":            {Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, []string{"a-1"}, "a-1"},
		"of a trusted client, malformed": {Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, []string{"a b"}, ""},
		"of a trusted client, twice":     {Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, []string{"a-1", "a-1"}, ""},
	}, func(t *testing.T, test test) {
		var mu sync.Mutex
		seen := make(map[string]bool)
		throughProtocols(t, test.options, echo, func(t *testing.T, p *testProxy, front testFront) {
			var fields []string
			for _, id := range test.sent {
				fields = append(fields, "X-Request-Id: "+id)
			}
			for range 2 {
				response, echoed := front.ask(t, "GET", "/", "", fields...)
				got := valuesOf("X-Request-Id", echoed)
				verify.Require(t, len(got) == 1 && slices.Equal(response.Header.Values("X-Request-Id"), got), "the peer got %q, the client %q", got, response.Header.Values("X-Request-Id"))
				mu.Lock()
				if test.want != "" && got[0] != test.want || test.want == "" && (!isUUID7(got[0]) || seen[got[0]]) {
					t.Errorf("got the id %s, want %q", got[0], test.want)
				}
				seen[got[0]] = true
				mu.Unlock()
				// The client can name the request that was not answered by a peer too.
				p.setRoutes()
				response, _ = front.ask(t, "GET", "/", "", fields...)
				id := response.Header.Get("X-Request-Id")
				verify.That(t, response.StatusCode == 404 && id != "" && (test.want == "" || id == test.want), "got %d with the id %q", response.StatusCode, id)
				p.setRoutes(route.Route{Path: "/", Service: p.service})
			}
		})
	})
	throughProtocols(t, Options{TrustedProxies: loopback}, echo, func(t *testing.T, _ *testProxy, front testFront) {
		response, echoed := front.ask(t, "GET", "/", "", "X-Request-Id: a b")
		if got := valuesOf("X-Request-Id", echoed); !slices.Equal(got, []string{"a b"}) || response.Header.Get("X-Request-Id") != "of-the-peer" {
			t.Errorf("off: the peer got %q, the client %q", got, response.Header.Get("X-Request-Id"))
		}
	})
}

// What is sent to other places has the id of the request.
func TestRequestIDElsewhere(t *testing.T) {
	t.Parallel()
	p := startLogged(t, Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, nowhere[0], answersOK(t))
	p.setActions(&route.Actions{ResponseHeaders: headerEdits(t, map[string]string{"X-Id": "<$request_id>"}, nil)})
	for range 2 {
		p.expect("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a-1\r\nConnection: close\r\n\r\n", "200", "\r\nX-Id: <a-1>\r\n")
	}
	for _, l := range p.lines() {
		verify.Equal(t, l.RequestID, "a-1", "logged %+v", l)
	}
}
