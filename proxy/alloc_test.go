//go:build !race

package proxy

import (
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"sluice/accesslog"
)

// A request in steady state allocates nothing in the whole process: not in the
// proxy, not in the pool, not in the access log. The origin and the client of
// this test do not allocate either.
func TestRequestDoesNotAllocate(t *testing.T) {
	log, err := accesslog.New(accesslog.Options{Path: filepath.Join(t.TempDir(), "log"), Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
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
			roundTrip := func() {
				if _, err := conn.Write(request); err != nil {
					t.Fatal(err)
				}
				for got := 0; got < want; {
					n, err := conn.Read(response[got:])
					if err != nil {
						t.Fatal(err)
					}
					got += n
				}
			}
			for range 100 {
				roundTrip()
			}
			runtime.GC()
			const requests = 1000
			if n := allocations(requests, roundTrip); n != 0 {
				t.Errorf("%d allocations in %d requests, want none", n, requests)
			}
		})
	}
}

// allocations counts what runs calls of f allocate in the whole process. The
// runtime allocates now and then by itself, such as for a thread that it starts;
// so the least of several counts is taken.
func allocations(runs int, f func()) uint64 {
	// A collection would empty the pools.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	least := uint64(math.MaxUint64)
	for range 5 {
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
