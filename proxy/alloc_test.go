//go:build !race

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/accesslog"
	"sluice/proxy/http2"
	"sluice/route"
	"sluice/test/verify"
)

// A request in steady state allocates nothing in the whole process: not in the
// proxy, not in the pool, not in the access log. The origin and the client of
// this test do not allocate either.
func TestRequestDoesNotAllocate(t *testing.T) {
	log := verify.Result(accesslog.New(accesslog.Options{Path: filepath.Join(t.TempDir(), "log"), Sample: 1})).Must(t)
	defer log.Close()
	for _, test := range []struct {
		name, request string
		response      string // what comes after a "|" is sent separately
	}{
		{"GET", "GET /some/path?q=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\n\r\n", okResponse},
		{"upgrade declined, through other proxies", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a, h2c, b\r\nVia: 1.1 x, 1.1 sluice\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n", okResponse},
		{"POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000), okResponse},
		{"head and body apart", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n|ok"},
		{"chunked response", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{"100 kB response", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			parts := strings.Split(test.response, "|")
			origin := startRawOrigin(t, parts)
			p := startProxy(t, Options{AccessLog: log, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, origin)
			conn := p.dial()
			request, response := []byte(test.request), make([]byte, 256<<10)
			want := len(strings.Join(parts, ""))
			roundTrip := func() { sendAndReceive(t, conn, request, response[:want]) }
			wantNoAllocations(t, conn, roundTrip)
		})
	}
}

// That holds for a split too, whose clients get a cookie or have one.
func TestSplitRequestDoesNotAllocate(t *testing.T) {
	for name, field := range map[string]string{"new client": "", "with the cookie": "Cookie: sluice_client=3w5e11264sgsf\r\n"} {
		t.Run(name, func(t *testing.T) {
			p, _ := startSplit(t, route.Split{}, 1)
			p.setPeers(startRawOrigin(t, []string{okResponse}))
			p.setSplit(route.Split{Fallback: p.pool.Group("rest")}, 1)
			conn := p.dial()
			request, response := []byte("GET / HTTP/1.1\r\nHost: a\r\n"+field+"\r\n"), make([]byte, 1024)
			wantNoAllocations(t, conn, func() {
				verify.Result(conn.Write(request)).Must(t)
				for end := 0; !bytes.HasSuffix(response[:end], []byte("ok")); {
					n := verify.Result(conn.Read(response[end:])).Must(t)
					end += n
				}
			})
		})
	}
}

// Edits of paths and fields do not allocate either.
func TestEditsDoNotAllocate(t *testing.T) {
	p := startProxy(t, Options{}, startRawOrigin(t, []string{okResponse}))
	p.setActions(&route.Actions{
		Path:            pathEdits(t, route.PathOptions{Strip: "/api", Add: "/v1"}),
		Host:            "app.internal",
		RequestHeaders:  headerEdits(t, map[string]string{"X-A": "$host $path"}, nil, "Cookie"),
		ResponseHeaders: headerEdits(t, nil, nil, "Server"),
	})
	conn := p.dial()
	request, response := []byte("GET /api/x?q HTTP/1.1\r\nHost: a\r\nCookie: a\r\n\r\n"), make([]byte, len(okResponse))
	wantNoAllocations(t, conn, func() { sendAndReceive(t, conn, request, response) })
}

// Neither does a route that compresses: responses that stay as they are, and compressed ones.
func TestCompressionDoesNotAllocate(t *testing.T) {
	content := strings.Repeat("a text that is compressed, ", 1000)
	for name, test := range map[string]struct{ fields, head, end string }{
		"another type":    {"Accept-Encoding: gzip\r\n", "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n", "compressed, "},
		"not accepted":    {"Accept-Encoding: deflate\r\n", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n", "compressed, "},
		"compressed text": {"Accept-Encoding: gzip\r\n", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n", "0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, Options{Limits: compressionMemory}, startRawOrigin(t, []string{fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", test.head, len(content), content)}))
			p.setActions(compressing(t, 1000))
			conn := p.dial()
			request, response := []byte("GET / HTTP/1.1\r\nHost: a\r\n"+test.fields+"\r\n"), make([]byte, 64<<10)
			end := []byte(test.end)
			wantNoAllocations(t, conn, func() {
				verify.Result(conn.Write(request)).Must(t)
				for n := 0; !bytes.HasSuffix(response[:n], end); {
					read := verify.Result(conn.Read(response[n:])).Must(t)
					n += read
				}
			})
		})
	}
}

// That holds for HTTP/2 too. The client sends the same frames again, with another id.
func TestHTTP2RequestDoesNotAllocate(t *testing.T) {
	log := verify.Result(accesslog.New(accesslog.Options{Path: filepath.Join(t.TempDir(), "log"), Sample: 1})).Must(t)
	defer log.Close()
	for _, test := range []struct {
		name, fields, body, response string
	}{
		{"GET", http2Get + "|user-agent=x", "", okResponse},
		{"POST", http2Post + "|content-length=1000", strings.Repeat("x", 1000), okResponse},
		{"100 kB response", http2Get, "", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			origin := startRawOrigin(t, []string{test.response})
			p := startProxy(t, Options{AccessLog: log}, origin)
			c := p.dialFrames(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: http2.MaxWindow})
			c.WriteWindowUpdate(0, 1<<20)
			c.request(1, test.fields, test.body == "")
			if test.body != "" {
				c.WriteData(1, true, []byte(test.body))
			}
			c.response(1)
			block := bytes.Clone(c.encode(test.fields)) // indexed, for all later requests
			var request []byte
			body := 0 // bytes of the last response
			id, received := uint32(1), make([]byte, 1<<20)
			roundTrip := func() {
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
				if body > 0 {
					request = http2.AppendWindowUpdate(request, 0, body)
				}
				body = 0
				verify.Result(c.conn.Write(request)).Must(t)
				for start, end := 0, 0; ; {
					n := verify.Result(c.conn.Read(received[end:])).Must(t)
					for end += n; end-start >= http2.FrameHeaderBytes; {
						frame := http2.ParseFrameHeader(received[start:])
						next := start + http2.FrameHeaderBytes + frame.Length
						if next > end {
							break
						}
						if frame.Type == http2.FrameData {
							body += frame.Length
						}
						if start = next; frame.StreamID == id && frame.Has(http2.FlagEndStream) {
							return
						}
					}
				}
			}
			wantNoAllocations(t, c.conn, roundTrip)
		})
	}
}

// Nor do bytes that a stream forwards, copied or moved within the kernel.
func TestStreamDoesNotAllocate(t *testing.T) {
	for _, size := range []int{10, 100_000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			p := startStreams(t, Options{}, startRawOrigin(t, []string{strings.Repeat("x", size)}))
			conn := p.stream()
			defer func() { // the origin does not close
				conn.SetLinger(0)
				conn.Close()
			}()
			request, response := []byte("question"), make([]byte, size)
			roundTrip := func() { sendAndReceive(t, conn, request, response[:size]) }
			wantNoAllocations(t, conn, roundTrip)
		})
	}
}

// sendAndReceive sends the request and reads the whole response.
func sendAndReceive(t *testing.T, conn net.Conn, request, response []byte) {
	verify.Result(conn.Write(request)).Must(t)
	_, err := io.ReadFull(conn, response)
	verify.NoError(t, err)
}

// wantNoAllocations checks that calls of f, which uses conn, do not allocate once the pools
// are filled.
func wantNoAllocations(t *testing.T, conn net.Conn, f func()) {
	t.Helper()
	for range 100 {
		f()
	}
	runtime.GC()
	const calls = 200
	n := allocations(conn, calls, f)
	verify.That(t, n == 0, "%d allocations in %d calls, want none", n, calls)
}

// allocations counts what runs calls of f allocate in the whole process, and returns
// the least of up to a hundred counts: the runtime allocates now and then by itself,
// such as for a thread that it starts, and on a busy machine in one count after the
// other.
func allocations(conn net.Conn, runs int, f func()) uint64 {
	// A collection would empty the pools.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	least := uint64(math.MaxUint64)
	for range 100 {
		conn.SetDeadline(time.Now().Add(patience))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			f()
		}
		runtime.ReadMemStats(&after)
		if least = min(least, after.Mallocs-before.Mallocs); least == 0 {
			break
		}
	}
	return least
}

// startRawOrigin answers whatever arrives, without allocating: a request here
// comes in one piece that a read returns whole.
func startRawOrigin(t *testing.T, answer []string) (address string) {
	l := listen(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { <-stop; conn.Close() })
			wg.Go(func() {
				var parts [][]byte
				for _, part := range answer {
					parts = append(parts, []byte(part))
				}
				b := make([]byte, 64<<10)
				for {
					if _, err := conn.Read(b); err != nil {
						return
					}
					for _, part := range parts {
						if _, err := conn.Write(part); err != nil {
							return
						}
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(stop)
		wg.Wait()
	})
	return l.Addr().String()
}

// A mirror costs nothing where it does not get a copy.
func TestNotCopiedRequestDoesNotAllocate(t *testing.T) {
	p := startProxy(t, Options{}, startRawOrigin(t, []string{okResponse}))
	mt := startMirror(t, p, route.Mirror{Share: 1e-12}, nil, p.NewTransport(someTransport))
	conn := p.dial()
	request, response := []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), make([]byte, len(okResponse))
	wantNoAllocations(t, conn, func() { sendAndReceive(t, conn, request, response) })
	mt.expectDropped()
}

// Neither do an id, a trace that is not sampled, and a log by a template.
func TestRequestIDAndTraceDoNotAllocate(t *testing.T) {
	format := verify.Result(accesslog.ParseFormat("$client $request_id $trace_id $http_x_a $tries")).Must(t)
	log := verify.Result(accesslog.New(accesslog.Options{Path: filepath.Join(t.TempDir(), "log"), Sample: 1, Format: format})).Must(t)
	defer log.Close()
	for name, fields := range map[string]string{
		"new": "X-A: 1\r\n", "taken over": "X-Request-Id: 01234567-89ab-7abc-bfff-000012345678\r\ntraceparent: " + notSampled + "\r\nX-Forwarded-For: 203.0.113.9\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			tracer, _ := startTracer(t, 0)
			p := startProxy(t, Options{AccessLog: log, Tracer: tracer, RequestID: true, TrustedProxies: loopback}, startRawOrigin(t, []string{okResponse}))
			conn := p.dial()
			request := []byte("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
			response := make([]byte, len(okResponse)+len("X-Request-Id: \r\n")+requestIDBytes)
			wantNoAllocations(t, conn, func() { sendAndReceive(t, conn, request, response) })
		})
	}
}

func TestWeightedRequestDoesNotAllocate(t *testing.T) {
	p := startWeighted(t, route.SplitKey{}, func(string) string { return startRawOrigin(t, []string{okResponse}) })
	conn := p.dial()
	request := []byte("GET / HTTP/1.1\r\nHost: a\r\nCookie: sluice_client=3w5e11264sgsf\r\n\r\n")
	response := make([]byte, len(okResponse))
	wantNoAllocations(t, conn, func() { sendAndReceive(t, conn, request, response) })
}
