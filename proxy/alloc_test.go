//go:build !race

package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/proxy/accesslog"
	"sluice/proxy/http2"
	"sluice/route"
	"sluice/route/ratelimit"
	"sluice/test/verify"
)

// A request in steady state allocates nothing in the whole process: not in the
// proxy, not in the pool, not in the access log, whatever the route does with it. The origin
// and the client of this test do not allocate either.
func TestRequestDoesNotAllocate(t *testing.T) {
	open := func(format string) *accesslog.Logger {
		parsed := verify.Result(accesslog.ParseFormat(format)).Must(t)
		log := verify.Result(accesslog.New(accesslog.Options{Path: filepath.Join(t.TempDir(), "log"), Sample: 1, Format: parsed})).Must(t)
		t.Cleanup(func() { log.Close() })
		return log
	}
	tracer, _ := startTracer(t, 0)
	plain := Options{AccessLog: open("json"), TrustedProxies: loopback, Limits: compressionMemory}
	named := Options{AccessLog: open("$client $request_id $trace_id $http_x_a $tries"), Tracer: tracer, TrustedProxies: loopback, Switches: Switches{RequestID: true}}
	set := func(do func(t *testing.T, p *testProxy)) func(*testing.T, string) *testProxy {
		return func(t *testing.T, origin string) *testProxy {
			p := startProxy(t, plain, origin)
			do(t, p)
			return p
		}
	}
	ordinary := set(func(*testing.T, *testProxy) {})
	edited := set(func(t *testing.T, p *testProxy) {
		p.setActions(&route.Actions{
			Path:            pathEdits(t, route.PathOptions{Strip: "/api", Add: "/v1"}),
			Host:            "app.internal",
			RequestHeaders:  headerEdits(t, map[string]string{"X-A": "$host $path"}, nil, "Cookie"),
			ResponseHeaders: headerEdits(t, nil, nil, "Server"),
		})
	})
	withName := set(func(_ *testing.T, p *testProxy) {
		p.setRoutes(route.Route{Path: "/", Service: p.service, Name: "all", Requests: metrics.NewRequests()})
	})
	compressed := set(func(t *testing.T, p *testProxy) { p.setActions(compressing(t, 1000)) })
	mirrored := set(func(t *testing.T, p *testProxy) { // costs nothing where the mirror does not get a copy
		mt := startMirror(t, p, route.Mirror{Share: 1e-12}, nil, false)
		t.Cleanup(func() { mt.expectDropped() })
	})
	limited := set(func(_ *testing.T, p *testProxy) {
		limits := balancer.Limits{Adaptive: true, AdaptiveMin: 4, Requests: 1000, PeerRequests: 1000, PeerConnections: 100, Retries: 10}
		p.reconfigure(balancer.Options{Limits: limits})
		p.setService(route.Service{Retry: route.Retry{Attempts: 2}})
	})
	metered := set(func(t *testing.T, p *testProxy) {
		p.setActions(&route.Actions{RateLimit: &route.RateLimit{Limiter: ratelimit.New(1_000_000, time.Millisecond, 1_000_000)}})
	})
	traced := func(t *testing.T, origin string) *testProxy { return startProxy(t, named, origin) }
	split := func(t *testing.T, origin string) *testProxy {
		p, _ := startSplit(t, route.Split{}, 1)
		p.setPeers(origin)
		p.setSplit(route.Split{Fallback: p.pool.Group("rest")}, 1)
		return p
	}
	weighted := func(t *testing.T, origin string) *testProxy {
		return startWeighted(t, route.SplitKey{}, func(string) string { return origin })
	}
	chain := set(func(t *testing.T, p *testProxy) {
		own := &route.Actions{Path: pathEdits(t, route.PathOptions{Strip: "/api"}), RequestHeaders: headerEdits(t, nil, nil, "Cookie")}
		header := route.Conditions{Headers: []route.Value{{Name: "x-a", Kind: route.ValueMatches, Text: "^1"}}}
		router := chained(t, []route.Branch{
			{Route: route.Route{Path: "/none"}},
			{Route: route.Route{Path: "/x", Conditions: header}, Rewrite: pathEdits(t, route.PathOptions{Strip: "/x", Replacement: "/y"})},
		}, route.Route{}, route.Route{Service: p.service, Actions: own})
		p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: own, Router: router})
	})
	text := strings.Repeat("a text that is compressed, ", 1000)
	long := func(contentType string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%sok", contentType, len(text)+2, text)
	}
	const get = "GET / HTTP/1.1\r\nHost: a\r\n"
	type test struct {
		name          string
		start         func(t *testing.T, origin string) *testProxy
		request       string
		response, end string // what comes after a "|" is sent separately
	}
	tests := []test{
		{"GET", ordinary, "GET /some/path?q=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\n\r\n", okResponse, "ok"},
		{"upgrade declined, through other proxies", ordinary, get + "Connection: upgrade\r\nUpgrade: a, h2c, b\r\nVia: 1.1 x, 1.1 sluice\r\n" +
			"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n", okResponse, "ok"},
		{"POST", ordinary, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000), okResponse, "ok"},
		{"head and body apart", ordinary, get + "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n|ok", "ok"},
		{"chunked response", ordinary, get + "\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "\r\n0\r\n\r\n"},
		{"100 kB response", ordinary, get + "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 99_998) + "ok", "ok"},
		{"a route with a name", withName, get + "\r\n", okResponse, "ok"},
		{"edits", edited, "GET /api/x?q HTTP/1.1\r\nHost: a\r\nCookie: a\r\n\r\n", okResponse, "ok"},
		{"compressed", compressed, get + "Accept-Encoding: gzip\r\n\r\n", long("text/plain"), "\r\n0\r\n\r\n"},
		{"another type is not compressed", compressed, get + "Accept-Encoding: gzip\r\n\r\n", long("image/png"), "ok"},
		{"compression is not accepted", compressed, get + "Accept-Encoding: deflate\r\n\r\n", long("text/plain"), "ok"},
		{"mirror", mirrored, get + "\r\n", okResponse, "ok"},
		{"new id and trace", traced, get + "X-A: 1\r\n\r\n", okResponse, "ok"},
		{"id and trace that are taken over", traced, get + "X-Request-Id: 01234567-89ab-7abc-bfff-000012345678\r\ntraceparent: " + notSampled +
			"\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n", okResponse, "ok"},
		{"split, new client", split, get + "\r\n", okResponse, "ok"},
		{"split, with the cookie", split, get + "Cookie: sluice_client=3w5e11264sgsf\r\n\r\n", okResponse, "ok"},
		{"limits of the service", limited, get + "\r\n", okResponse, "ok"},
		{"limit of the rate", metered, get + "\r\n", okResponse, "ok"},
		{"discovery chain", chain, "GET /api/x/z?q HTTP/1.1\r\nHost: a\r\nX-A: 12\r\nCookie: a\r\n\r\n", okResponse, "ok"},
		{"split of services", weighted, get + "Cookie: sluice_client=3w5e11264sgsf\r\n\r\n", okResponse, "ok"},
	}
	for _, key := range []string{"", "client_address", "path", "header X-User", "cookie sid", "query u"} {
		a := &route.Affinity{Cookie: "peer"}
		if key != "" {
			a = &route.Affinity{Keys: []route.HashKey{verify.Result(route.ParseHashKey(key)).Must(t)}}
		}
		affine := set(func(_ *testing.T, p *testProxy) {
			p.setService(route.Service{Retry: route.Retry{Attempts: 2}, Affinity: a})
		})
		tests = append(tests, test{"affinity by " + key, affine, "GET /path?a=1&u=2 HTTP/1.1\r\nHost: a\r\nCookie: a=b; sid=1; peer=zzzz\r\nX-User: 7\r\n" +
			"X-Forwarded-For: 192.0.2.1, 10.0.0.2\r\n\r\n", okResponse, "ok"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn := test.start(t, startRawOrigin(t, bytes.Split([]byte(test.response), []byte("|"))...)).dial()
			request, response, end := []byte(test.request), make([]byte, 256<<10), []byte(test.end)
			wantNoAllocations(t, conn, func() {
				verify.Result(conn.Write(request)).Must(t)
				for n := 0; !bytes.HasSuffix(response[:n], end); {
					n += verify.Result(conn.Read(response[n:])).Must(t)
				}
			})
		})
	}
}

// That holds for HTTP/2 too. The client sends the same frames again, with another id.
func TestHTTP2RequestDoesNotAllocate(t *testing.T) {
	log := verify.Result(accesslog.New(accesslog.Options{Path: filepath.Join(t.TempDir(), "log"), Sample: 1})).Must(t)
	defer log.Close()
	for _, test := range []struct{ name, fields, body, answer string }{
		{"GET", http2Get + "|user-agent=x", "", ""},
		{"POST", http2Post + "|content-length=1000", strings.Repeat("x", 1000), ""},
		{"100 kB response", http2Get, "", strings.Repeat("x", 100_000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			end := []byte("the end")
			answered := len(test.answer) + len(end)
			p := startProxy(t, Options{AccessLog: log}, startRawOrigin(t, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", answered, test.answer, end)))
			c := p.dialFrames(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: http2.MaxWindow})
			c.WriteWindowUpdate(0, 1<<20)
			c.request(1, test.fields, test.body == "")
			if test.body != "" {
				c.WriteData(1, true, []byte(test.body))
			}
			c.response(1)
			block := bytes.Clone(c.encode(test.fields)) // indexed, for all later requests
			var request []byte
			id, received := uint32(1), make([]byte, 1<<20)
			wantNoAllocations(t, c.conn, func() {
				id += 2
				flags := uint8(http2.FlagEndHeaders)
				if test.body == "" {
					flags |= http2.FlagEndStream
				}
				request = http2.AppendFrameHeader(request[:0], http2.FrameHeader{Length: len(block), Type: http2.FrameHeaders, Flags: flags, StreamID: id})
				request = append(request, block...)
				if test.body != "" {
					request = http2.AppendFrameHeader(request, http2.FrameHeader{Length: len(test.body), Type: http2.FrameData, Flags: http2.FlagEndStream, StreamID: id})
					request = append(request, test.body...)
				}
				request = http2.AppendWindowUpdate(request, 0, answered)
				verify.Result(c.conn.Write(request)).Must(t)
				for n := 0; !bytes.Contains(received[:n], end); {
					n += verify.Result(c.conn.Read(received[n:])).Must(t)
				}
			})
		})
	}
}

// Nor do bytes that a stream forwards, copied or moved within the kernel.
func TestStreamDoesNotAllocate(t *testing.T) {
	for _, size := range []int{10, 100_000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			p := startStreams(t, Options{}, startRawOrigin(t, bytes.Repeat([]byte("x"), size)))
			conn := p.stream()
			defer func() { // the origin does not close
				conn.SetLinger(0)
				conn.Close()
			}()
			request, response := []byte("question"), make([]byte, size)
			wantNoAllocations(t, conn, func() {
				verify.Result(conn.Write(request)).Must(t)
				verify.Result(io.ReadFull(conn, response)).Must(t)
			})
		})
	}
}

// wantNoAllocations checks that calls of f, which uses conn, allocate nothing in the whole process
// once the pools are filled. It counts up to a hundred times: the runtime allocates now and then by
// itself, such as for a thread that it starts, and on a busy machine in one count after the other.
func wantNoAllocations(t *testing.T, conn net.Conn, f func()) {
	t.Helper()
	for range 100 {
		f()
	}
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty the pools
	const calls = 200
	least := uint64(math.MaxUint64)
	for range 100 {
		conn.SetDeadline(time.Now().Add(patience))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			f()
		}
		runtime.ReadMemStats(&after)
		if least = min(least, after.Mallocs-before.Mallocs); least == 0 {
			return
		}
	}
	t.Errorf("%d allocations in %d calls, want none", least, calls)
}

// startRawOrigin answers whatever arrives, without allocating: a request here
// comes in one piece that a read returns whole.
func startRawOrigin(t testing.TB, answer ...[]byte) (address string) {
	l := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		acceptAll(l, func(conn net.Conn) {
			context.AfterFunc(t.Context(), func() { conn.Close() })
			for b := make([]byte, 64<<10); ; {
				if _, err := conn.Read(b); err != nil {
					return
				}
				for _, part := range answer {
					if _, err := conn.Write(part); err != nil {
						return
					}
				}
			}
		})
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// A request by HTTP/3 allocates nothing in sluice itself. What others allocate for it is logged.
func TestHTTP3RequestDoesNotAllocate(t *testing.T) {
	if !alone(t) { // with a profile of the whole process
		return
	}
	runtime.MemProfileRate = 1
	log := verify.Result(accesslog.New(accesslog.Options{Path: filepath.Join(t.TempDir(), "log"), Sample: 1})).Must(t)
	defer log.Close()
	for _, test := range []struct{ name, fields, body string }{
		{"GET", http3Get + "|user-agent=x", ""},
		{"POST", http3Post + "|content-length=1000", strings.Repeat("x", 1000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, address := startHTTP3Proxy(t, Options{AccessLog: log}, startRawOrigin(t, []byte(okResponse)))
			c := dialHTTP3(t, address)
			request := h3Head(test.fields)
			if test.body != "" {
				request = append(request, h3Data(test.body)...)
			}
			ask := func() {
				r := c.open()
				r.Write(request)
				r.CloseWrite()
				a := r.response()
				verify.Require(t, a.status == "200", "got %+v", a)
			}
			for range 100 {
				ask()
			}
			// A collection empties the pools.
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			const calls = 2000
			before := allocated()
			for range calls {
				ask()
			}
			after := allocated()
			ours, others := int64(0), int64(0)
			for stack, n := range after {
				// What is below packets is of net, and the same without sluice. Memory
				// is given back beside requests, when the machine stands still.
				switch n -= before[stack]; {
				case strings.HasPrefix(stack, "quic-go"), strings.HasPrefix(stack, "sluice/proxy/packets."):
					others += n
				case strings.HasPrefix(stack, "sluice/proxy/socket.unmapProgram"):
				case strings.HasPrefix(stack, "sluice/"):
					ours += n
					// The collections have emptied the pools.
					verify.That(t, n < calls/20, "%d allocations in %d requests: %s", n, calls, stack)
				}
			}
			t.Logf("%s: a request makes %.2f allocations in quic-go and net, %d requests %d in sluice", test.name, float64(others)/calls, calls, ours)
		})
	}
}

// allocations are a profile: how many objects were allocated so far, by the functions of sluice or
// quic-go on the stack, from the innermost one on.
type allocations map[string]int64

func allocated() allocations {
	runtime.GC()
	runtime.GC() // what was allocated before the last but one is in the profile
	records := make([]runtime.MemProfileRecord, 100_000)
	n, _ := runtime.MemProfile(records, true)
	all := make(allocations)
	for _, r := range records[:n] {
		var stack []string
		for frames := runtime.CallersFrames(r.Stack()); ; {
			frame, more := frames.Next()
			name := strings.TrimPrefix(frame.Function, "github.com/quic-go/")
			known := name != frame.Function || strings.HasPrefix(name, "sluice/")
			if known && strings.HasSuffix(frame.File, "_test.go") && len(stack) == 0 {
				break // of the test's client
			}
			if known {
				stack = append(stack, name)
			}
			if !more {
				break
			}
		}
		all[strings.Join(stack, " < ")] += r.AllocObjects
	}
	return all
}
