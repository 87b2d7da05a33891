package accesslog

import (
	"runtime"
	"sluice/test/verify"
	"testing"
	"time"
)

// typical is an entry as a browser makes it.
func typical() *Entry {
	return &Entry{
		Time:      time.Date(2026, 1, 2, 15, 4, 5, 678_900_000, time.UTC),
		Client:    []byte("192.0.2.17"),
		Method:    []byte("GET"),
		Host:      []byte("star.example.com"),
		Target:    []byte("/api/v1/items/4711?fields=name,price&sort=-created"),
		Proto:     "HTTP/1.1",
		UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"),
		Referer:   []byte("https://star.example.com/items"),
		Status:    200,
		BytesOut:  5120,
		Duration:  12_345_678 * time.Nanosecond,
		Upstream:  11_200 * time.Microsecond,
		Service:   "star",
		Peer:      "10.0.0.7:8080",
		Attempts:  1,
	}
}

func BenchmarkLog(b *testing.B) {
	for _, format := range []string{"json", "combined"} {
		b.Run(format, func(b *testing.B) {
			l := verify.Result(New(Options{Path: "/dev/null", Format: formatOf(format), Sample: 1})).Must(b)
			defer l.Close()
			e := typical()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				l.Log(1, e)
				if i%100 == 0 {
					runtime.Gosched() // a line that is dropped costs less
				}
			}
			b.ReportMetric(float64(l.Dropped()), "dropped")
		})
	}
}
