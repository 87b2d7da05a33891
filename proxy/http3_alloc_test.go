//go:build !race

package proxy

import (
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"sluice/proxy/accesslog"
	"sluice/test/verify"
)

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
				// What is below packets is of net, and the same without sluice.
				switch n -= before[stack]; {
				case strings.HasPrefix(stack, "quic-go"), strings.HasPrefix(stack, "sluice/proxy/packets."):
					others += n
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
