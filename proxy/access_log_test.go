package proxy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/test/tracetest"
	"sluice/test/verify"
)

// A loggedProxy is a testProxy with an access log.
type loggedProxy struct {
	*testProxy
	path string
	log  *accesslog.Logger
}

// startLogged is startProxy with an access log of all requests.
func startLogged(t *testing.T, o Options, addresses ...string) *loggedProxy {
	t.Helper()
	return startProxy(t, o, addresses...).logged(accesslog.Options{Sample: 1})
}

// logged has p write an access log from now on.
func (p *testProxy) logged(o accesslog.Options) *loggedProxy {
	p.t.Helper()
	o.Path = filepath.Join(p.t.TempDir(), "access.log")
	log := verify.Result(accesslog.New(o)).Must(p.t)
	p.t.Cleanup(func() { log.Close() })
	p.change(func(o *Options) { o.AccessLog = log })
	return &loggedProxy{p, o.Path, log}
}

// logLine is what these tests read of a line.
type logLine struct {
	RequestID      string   `json:"request_id"`
	TraceID        string   `json:"trace_id"`
	Client         string   `json:"client"`
	Proxy          string   `json:"proxy"`
	Target         string   `json:"target"`
	TLSVersion     string   `json:"tls_version"`
	TLSCipher      string   `json:"tls_cipher"`
	TLSServerName  string   `json:"tls_server_name"`
	Status         int      `json:"status"`
	UpstreamStatus int      `json:"upstream_status"`
	DurationMS     float64  `json:"duration_ms"`
	Route          string   `json:"route"`
	Peer           string   `json:"peer"`
	Group          string   `json:"group"`
	Attempts       int      `json:"attempts"`
	Tries          []logTry `json:"tries"`
	UpstreamMS     float64  `json:"upstream_ms"`
	Reason         string   `json:"reason"`
}

type logTry struct {
	Peer       string  `json:"peer"`
	Outcome    string  `json:"outcome"`
	Status     int     `json:"status"`
	StartMS    float64 `json:"start_ms"`
	DurationMS float64 `json:"duration_ms"`
}

// lines returns what was logged, once no connection is open. There are no more requests.
func (p *loggedProxy) lines() (lines []logLine) {
	p.t.Helper()
	eventually(p.t, "no connection is open", func() bool { return p.Connections() == 0 })
	verify.NoError(p.t, p.log.Close())
	text := verify.Result(os.ReadFile(p.path)).Must(p.t)
	for line := range strings.Lines(string(text)) {
		var l logLine
		err := json.Unmarshal([]byte(line), &l)
		verify.Require(p.t, err == nil, "%v: %s", err, line)
		lines = append(lines, l)
	}
	return lines
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// The client's address is the same in the log, for the peer, and for limits: clients behind one
// proxy do not share a rate limit, and nobody else can choose its own.
// TestClientAddressBehindProxies has more ways to tell it.
func TestRealClientAddress(t *testing.T) {
	type test struct {
		fields, want string
		trusted      []netip.Prefix
	}
	eachCase(t, map[string]test{
		"nobody is trusted": {"X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n", "127.0.0.1", nil},
		"without a field":   {"", "127.0.0.1", loopback},
		"X-Forwarded-For":   {"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9", loopback},
		"nonsense":          {"X-Forwarded-For: unknown\r\nX-Real-IP: 203.0.113.9\r\n", "unknown", loopback},
		"X-Real-IP alone":   {"X-Real-IP: 203.0.113.9\r\n", "203.0.113.9", loopback},
	}, func(t *testing.T, test test) {
		origin := startOrigin(t, answering(okResponse))
		p := startLogged(t, Options{TrustedProxies: test.trusted}, origin.address())
		request := "GET / HTTP/1.1\r\nHost: a\r\n" + test.fields + "Connection: close\r\n\r\n"
		p.expect(request, "200")
		address, _ := netip.ParseAddr(test.want) // zero: unknown
		p.setActions(&route.Actions{RateLimit: exhausted(route.RateLimit{}, string(appendClientNetwork(nil, address)))})
		p.expect(request, "429")
		got := origin.got()
		verify.That(t, strings.Count(got, "X-Real-IP") == 1 && strings.Contains(got, "\r\nX-Real-IP: "+test.want+"\r\n"), "the peer got %q, want one X-Real-IP: %s", got, test.want)
		lines, proxy := p.lines(), ""
		if test.trusted != nil {
			proxy = "127.0.0.1"
		}
		verify.That(t, len(lines) == 2 && lines[0].Client == test.want && lines[0].Proxy == proxy, "logged %+v, want the client %s and the proxy %q", lines, test.want, proxy)
	})
}

func TestAccessLogNamesTheTries(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startLogged(t, Options{}, nowhere[0], nowhere[1], origin.address())
	for range 3 { // after the peer that answers comes one that does not
		p.raw(closingRequest)
	}
	several := 0
	for _, l := range p.lines() {
		if l.Attempts == 1 {
			verify.That(t, l.Tries == nil && l.UpstreamStatus == 200 && l.Peer == origin.address(), "got %+v", l)
			continue
		}
		several++
		verify.Require(t, len(l.Tries) == l.Attempts && l.Peer == origin.address() && l.UpstreamStatus == 200, "got %+v", l)
		end := 0.0
		for i, try := range l.Tries {
			want := logTry{Peer: try.Peer, Outcome: "connect_failure"}
			if i == len(l.Tries)-1 {
				want = logTry{Peer: origin.address(), Outcome: "ok", Status: 200}
			}
			verify.That(t, try.Outcome == want.Outcome && try.Peer == want.Peer && try.Status == want.Status && !(try.StartMS < end-1e-9), "try %d of %+v: want %+v", i, l, want)
			end = try.StartMS + try.DurationMS
		}
		verify.That(t, end <= l.DurationMS+0.002 && l.UpstreamMS <= l.Tries[len(l.Tries)-1].DurationMS, "times of %+v", l) // each is rounded
	}
	verify.That(t, several != 0, "no request was tried on several peers")
}

// A response that is not passed on has a status in the log besides that of the answer.
func TestAccessLogHasTheUpstreamStatus(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering("HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"))
	p := startLogged(t, Options{}, origin.address())
	p.raw("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	p.raw("GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\nBad Field: 1\r\n\r\n")
	lines := p.lines()
	verify.Require(t, len(lines) == 2, "got %+v", lines)
	verify.That(t, lines[0].Status == 502 && lines[0].UpstreamStatus == 503 && lines[0].Reason == "bad_response", "got %+v", lines[0])
	verify.That(t, lines[1].Status == 400 && lines[1].UpstreamStatus == 0, "got %+v", lines[1])
}

// A request whose peer fails its health checks goes to another one. The log, the spans and the
// counters say so, and the peer that was left has not failed.
func TestLeftPeer(t *testing.T) {
	t.Parallel()
	tracer, collector := startTracer(t, 1)
	held, other := startHeldOrigin(t), answersOK(t)
	p := startLogged(t, Options{Tracer: tracer}, held.address())
	p.setService(route.Service{Retry: route.Retry{Attempts: 2}})
	conn := p.send(heldRequest)
	<-held.arrived
	p.setPeers(held.address(), other)
	p.suspect()
	expectResponse(t, conn, 200)
	conn.Close()
	lines := p.lines()
	verify.Require(t, len(lines) == 1 && len(lines[0].Tries) == 2, "got %+v", lines)
	tries := lines[0].Tries
	verify.That(t, lines[0].Peer == other && tries[0].Peer == held.address() && tries[0].Outcome == "superseded" && tries[0].Status == 0 && tries[1].Outcome == "ok", "got %+v", lines[0])
	attempts := awaitSpans(t, collector, 1)[0].attempts
	verify.Require(t, len(attempts) == 2, "got %v", attempts)
	verify.That(t, tracetest.Attributes(attempts[0])["sluice.attempt.outcome"] == "superseded" && tracetest.Attributes(attempts[1])["sluice.attempt.cause"] == "superseded", "got %v", attempts)
	for _, peer := range p.pool.Snapshot().All {
		superseded := peer.Outcomes()[balancer.OutcomeSuperseded]
		verify.That(t, peer.Failures() == 0 && (superseded == 1) == (peer.Address() == held.address()), "%s: outcomes %v", peer.Address(), peer.Outcomes())
	}
}

func TestOverTLSAccessLog(t *testing.T) {
	t.Parallel()
	p := startLogged(t, Options{}, answersOK(t))
	p.raw(closingRequest)
	lines := p.lines()
	verify.That(t, len(lines) == 1 && lines[0].TLSVersion == "TLSv1.3" && strings.HasPrefix(lines[0].TLSCipher, "TLS_"), "got %+v", lines)
}

// A tunnel is not slow because it is open for long.
func TestTunnelIsNotSlow(t *testing.T) {
	var x exchange
	x.tries.upstreamTime = time.Second
	verify.Equal(t, x.waited(time.Hour), time.Hour, "a request")
	x.answer.counted = true
	verify.Equal(t, x.waited(time.Hour), time.Second, "a tunnel")
}

// Each answer counts once by its status and reason, and for its route if that has a name.
func TestAnswersCountByReasonAndRoute(t *testing.T) {
	t.Parallel()
	p := startLogged(t, Options{}, answersOK(t))
	named := metrics.NewRequests()
	none := p.newService("none", balancer.Options{NewTransport: p.NewTransport(transportOf(t))})
	p.setRoutes(
		route.Route{Path: "/named", Service: p.service, Name: "checkout", Requests: named},
		route.Route{Path: "/plain", Service: p.service},
		route.Route{Path: "/none", Service: none, Name: "empty"}, // it has no counters
	)
	for _, path := range []string{"/named", "/plain", "/none", "/nothing", "/named"} {
		p.raw("GET " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	p.raw("TRACE /named HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	var logged []string
	for _, l := range p.lines() {
		logged = append(logged, l.Route)
	}
	verify.Slices(t, logged, []string{"checkout", "", "empty", "", "checkout", ""}, "routes in the log")
	verify.Slices(t, p.pool.Requests.Responses(), []metrics.Response{{Status: "200", Count: 3}}, "answers of peers")
	verify.Slices(t, p.Stats().UnroutedResponses, []metrics.Response{
		{Status: "404", Reason: "no_route", Count: 1}, {Status: "405", Reason: "method_refused", Count: 1},
	}, "answers without a service")
	of := named.Snapshot()
	verify.Equal(t, of.Class(metrics.Class2xx), 2, "requests of the route")
}

// ends returns the statuses and reasons of the access log, in their order.
func (p *loggedProxy) ends() (all []string) {
	for _, line := range p.lines() {
		all = append(all, fmt.Sprint(line.Status, " ", line.Reason))
	}
	slices.Sort(all)
	return all
}
