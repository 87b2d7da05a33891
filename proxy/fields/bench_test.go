package fields

import (
	"bytes"
	"testing"

	"github.com/quic-go/qpack"
	"golang.org/x/net/http2/hpack"

	"sluice/test/verify"
)

// benchRequest is what a browser sends.
var benchRequest = []hpack.HeaderField{
	{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "www.example.com"}, {Name: ":path", Value: "/products/42?view=full"},
	{Name: "user-agent", Value: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
	{Name: "accept", Value: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
	{Name: "accept-language", Value: "en-US,en;q=0.5"}, {Name: "accept-encoding", Value: "gzip, deflate, br, zstd"},
	{Name: "cookie", Value: "session=8f14e45fceea167a5a36dedd4bea2543"}, {Name: "sec-fetch-mode", Value: "navigate"},
}

var benchResponse = [][2][]byte{
	{[]byte("Content-Type"), []byte("text/html; charset=utf-8")}, {[]byte("Content-Length"), []byte("12345")}, {[]byte("Date"), []byte("Mon, 01 Jan 2024 00:00:00 GMT")},
	{[]byte("Cache-Control"), []byte("no-cache")}, {[]byte("Set-Cookie"), []byte("session=8f14e45fceea167a; Path=/; HttpOnly")},
	{[]byte("X-Request-Id"), []byte("8f14e45fceea167a5a36dedd4bea2543")}, {[]byte("Vary"), []byte("Accept-Encoding")}, {[]byte("Server"), []byte("app")},
}

// benchSection returns benchRequest in QPACK.
func benchSection() []byte {
	var section bytes.Buffer
	encoder := qpack.NewEncoder(&section)
	for _, f := range benchRequest {
		encoder.WriteField(qpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	return section.Bytes()
}

// appendBenchResponse appends benchResponse in QPACK, without the prefix.
func appendBenchResponse(out []byte) []byte {
	out = AppendQPACKStatus(out, 200)
	for _, f := range benchResponse {
		out = AppendQPACKField(out, f[0], f[1])
	}
	return out
}

func BenchmarkDecodeHPACK(b *testing.B) {
	for _, bench := range []struct {
		name  string
		table uint32
		times int // for which the request is sent before
	}{{"literal", 0, 1}, {"indexed", InitialTableBytes, 2}} {
		b.Run(bench.name, func(b *testing.B) {
			var block bytes.Buffer
			encoder := hpack.NewEncoder(&block)
			encoder.SetMaxDynamicTableSize(bench.table)
			decoder, fields := NewHPACKDecoder(UsualListBytes), new(Fields)
			for range bench.times {
				block.Reset()
				for _, f := range benchRequest {
					encoder.WriteField(f)
				}
				verify.NoError(b, decoder.Decode(block.Bytes(), fields))
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := decoder.Decode(block.Bytes(), fields); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeQPACK(b *testing.B) {
	section, fields := benchSection(), new(Fields)
	b.ReportAllocs()
	for b.Loop() {
		if err := fields.DecodeQPACK(section, UsualListBytes); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	fields := new(Fields)
	verify.NoError(b, fields.DecodeQPACK(benchSection(), UsualListBytes))
	var text []byte
	b.ReportAllocs()
	for b.Loop() {
		text, _, _, _ = fields.AppendRequest(text[:0], true)
	}
}

func BenchmarkEncodeHPACK(b *testing.B) {
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendHPACKStatus(out[:0], 200)
		for _, f := range benchResponse {
			out = AppendHPACKField(out, f[0], f[1])
		}
	}
}

func BenchmarkEncodeQPACK(b *testing.B) {
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = appendBenchResponse(out[:0])
	}
}
