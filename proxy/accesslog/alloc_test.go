//go:build !race

package accesslog

import (
	"os"
	"sluice/test/verify"
	"testing"
)

func TestLogDoesNotAllocate(t *testing.T) {
	for _, format := range []string{"json", "combined", "$time $client $http_x_canary $tries $duration_ms"} {
		null := verify.Result(os.OpenFile(os.DevNull, os.O_WRONLY, 0)).Must(t)
		l := start(Options{Format: formatOf(format), Sample: 0.5}, &output{file: null})
		e := typical()
		e.Target = []byte("/caf\u00e9\xff\n")
		e.Tries, e.Head = twoTries, []byte("GET / HTTP/1.1\r\nHost: a\r\nX-Canary: 1\r\n\r\n")
		l.Log(0, e)
		l.Log(0, &Entry{Status: 500}) // the shard has a buffer now
		if n := testing.AllocsPerRun(50, func() {
			own := *e // the caller's entry stays on its stack
			l.Log(0, &own)
		}); n != 0 {
			t.Errorf("%s: %v allocations", format, n)
		}
		verify.NoError(t, l.Close())
		null.Close()
	}
}
