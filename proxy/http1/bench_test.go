package http1

import "testing"

var sampleRequest = []byte("GET /api/items?page=3&sort=name HTTP/1.1\r\nHost: star.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nReferer: https://star.example.com/items\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nConnection: keep-alive\r\n\r\n")

var sampleResponse = []byte("HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 20 Nov 2026 08:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 110\r\nLast-Modified: Fri, 20 Nov 2026 07:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"6e-1234\"\r\nAccept-Ranges: bytes\r\n\r\n")

func BenchmarkScanRequest(b *testing.B) {
	b.ReportAllocs()
	var head RequestHead
	for b.Loop() {
		head.Reset(8<<10, UsualFields)
		if n, err := head.Scan(sampleRequest); n != len(sampleRequest) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkScanResponse(b *testing.B) {
	b.ReportAllocs()
	var head ResponseHead
	for b.Loop() {
		head.Reset(UsualFields)
		if n, err := head.Scan(sampleResponse); n != len(sampleResponse) || err != nil {
			b.Fatal(n, err)
		}
	}
}
