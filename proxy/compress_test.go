package proxy

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/molecule-man/go-brrr"

	"sluice/route"
	"sluice/route/compression"
	"sluice/test/verify"
)

// compressing returns the settings of a route that compresses text from minBytes on.
func compressing(t testing.TB, minBytes int64) *route.Actions {
	t.Helper()
	types, ok := compression.ParseType("text/*")
	verify.Require(t, ok, "no types")
	return &route.Actions{Compress: &compression.Settings{Encodings: compression.Encodings, Types: types, MinBytes: minBytes, Level: compression.Default}}
}

// compressionMemory suffices for the tests.
var compressionMemory = Limits{CompressionBytes: 1 << 30}

// startCompressing starts a proxy to a peer that answers by handler, with HTTP/1 or HTTP/2.
func startCompressing(t *testing.T, http2 bool, a *route.Actions, handler http.HandlerFunc) *testProxy {
	t.Helper()
	p := startProxyTo(t, http2, Options{Limits: compressionMemory}, handler)
	p.setActions(a)
	t.Cleanup(func() {
		eventually(t, "the encoders are released", func() bool { return p.Compression().InUseBytes == 0 })
	})
	return p
}

// peerProtocols are the protocols of peers, by whether that is HTTP/2.
var peerProtocols = map[string]bool{"peer with HTTP/1": false, "peer with HTTP/2": true}

func decode(t testing.TB, encoding string, from io.Reader) io.Reader {
	t.Helper()
	switch encoding {
	case "zstd":
		d := verify.Result(zstd.NewReader(from)).Must(t)
		t.Cleanup(d.Close)
		return d
	case "br":
		return brrr.NewReader(from)
	case "gzip":
		return verify.Result(gzip.NewReader(from)).Must(t)
	}
	return from
}

// words returns text of that length, which compresses to less than a half.
func words(length int) string {
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for b.Len() < length {
		fmt.Fprintf(&b, "word-%d ", r.IntN(5000))
	}
	return b.String()[:length]
}

func TestCompresses(t *testing.T) {
	t.Parallel()
	eachCase(t, peerProtocols, func(t *testing.T, http2 bool) {
		content := words(200_000)
		p := startCompressing(t, http2, compressing(t, 1000), func(w http.ResponseWriter, r *http.Request) {
			length := len(content)
			if r.URL.Path == "/short" {
				length = 3000
			}
			h := w.Header()
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("ETag", `"v1"`)
			h.Set("Accept-Ranges", "bytes")
			h.Set("Repr-Digest", "sha-256=:AAAA:")
			h.Set("X-Accepts", r.Header.Get("Accept-Encoding"))
			if r.URL.Path == "/chunks" {
				h.Set("Trailer", "X-Sum")
				w.(http.Flusher).Flush()
				for part := range slices.Chunk([]byte(content), 30_000) {
					w.Write(part)
				}
				h.Set("X-Sum", "sum")
				for _, name := range []string{"ETag", "Content-Digest", "Repr-Digest", "Digest"} { // of the content as the peer has it
					h.Set(http.TrailerPrefix+name, "x")
				}
				return
			}
			h.Set("Content-Length", fmt.Sprint(length))
			io.WriteString(w, content[:length])
		})
		asked := 0
		for _, front := range p.fronts() {
			for _, accept := range []string{"zstd", "br", "gzip", "gzip;q=0.5, zstd;q=0.1"} {
				for _, path := range []string{"/short", "/long", "/chunks"} {
					name := fmt.Sprint(front.name, " ", path, " ", accept)
					asked++
					r, body := front.ask(t, "GET", path, "", "Accept-Encoding: "+accept, "TE: trailers")
					want := content
					if path == "/short" {
						want = content[:3000]
					}
					encoding, _, _ := strings.Cut(accept, ";")
					h := r.Header
					if got := h.Get("Content-Encoding"); got != encoding || r.ContentLength >= 0 || h.Get("Accept-Ranges") != "" || h.Get("Repr-Digest") != "" ||
						h.Get("ETag") != `W/"v1"` || !slices.Equal(h.Values("Vary"), []string{"Accept-Encoding"}) || h.Get("X-Accepts") != accept {
						t.Errorf("%s: length %d, %v", name, r.ContentLength, h)
					}
					verify.That(t, 2*len(body) <= len(want), "%s: %d bytes of %d", name, len(body), len(want))
					got, err := io.ReadAll(decode(t, encoding, strings.NewReader(body)))
					verify.That(t, err == nil && string(got) == want, "%s: %d bytes, %v, want %d", name, len(got), err, len(want))
					verify.That(t, path != "/chunks" && len(r.Trailer) == 0 || path == "/chunks" && len(r.Trailer) == 1 && r.Trailer.Get("X-Sum") == "sum", "%s: trailer %v", name, r.Trailer)
					head, _ := front.ask(t, "HEAD", path, "", "Accept-Encoding: "+accept)
					verify.That(t, head.Header.Get("Content-Encoding") == encoding && head.ContentLength < 0 && head.Header.Get("ETag") == `W/"v1"`, "%s: HEAD: length %d, %v", name, head.ContentLength, head.Header)
				}
			}
		}
		// A client has the end of a response before it is counted.
		var stats compression.Stats
		eventually(t, fmt.Sprintf("%d responses are counted", asked), func() bool { // those to HEAD have no content
			responses, out := 0, uint64(0)
			stats = p.Compression()
			for _, e := range stats.Encodings {
				responses, out = responses+int(e.Responses), out+e.BytesOut
			}
			return p.inflight() == 0 && responses == asked && uint64(p.pool.Requests.Snapshot().BytesOut) == out
		})
		p.expectNothingCounted()
		for _, e := range stats.Encodings {
			verify.That(t, e.Responses != 0 && e.BytesIn >= 2*e.BytesOut && e.BytesOut != 0, "%+v", e)
		}
	})
}

func TestDoesNotCompress(t *testing.T) {
	t.Parallel()
	const fine = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	length := func(body string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body) }
	long := words(2000)
	edited := compressing(t, 1000)
	edited.ResponseHeaders = headerEdits(t, map[string]string{"Cache-Control": "no-transform"}, nil)
	typed := compressing(t, 1000)
	typed.ResponseHeaders = headerEdits(t, map[string]string{"Content-Type": "text/css"}, nil, "ETag")
	for _, test := range []struct {
		name     string
		actions  *route.Actions // nil: compressing(1000)
		request  string
		response string
		want     []string // is in the answer
		not      []string // is not in it
	}{
		{"it does otherwise", nil, "", fine + length(long), []string{"Content-Encoding: gzip\r\n", "Vary: Accept-Encoding\r\n", "Transfer-Encoding: chunked\r\n"}, []string{"Content-Length"}},
		{"not accepted", nil, "Accept-Encoding: deflate", fine + length(long), []string{"Vary: Accept-Encoding\r\n", "Content-Length: 2000\r\n", long}, []string{"Content-Encoding"}},
		{"without Accept-Encoding", nil, "X: y", fine + "ETag: \"a\"\r\n" + length(long), []string{"Vary: Accept-Encoding\r\n", "ETag: \"a\"\r\n", long}, []string{"Content-Encoding"}},
		{"too short", nil, "", fine + length(long[:999]), []string{long[:999], "Content-Length: 999"}, []string{"Vary", "Content-Encoding"}},
		{"long enough", nil, "", fine + length(long[:1000]), []string{"Content-Encoding: gzip\r\n"}, nil},
		{"empty", compressing(t, 0), "", fine + length(""), []string{"Content-Length: 0\r\n"}, []string{"Vary", "Content-Encoding"}},
		{"until the end of the connection", nil, "", fine + "Connection: close\r\n\r\n" + long, []string{"Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n"}, nil},
		{"another type", nil, "", "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n" + length(long), []string{long}, []string{"Vary", "Content-Encoding"}},
		{"encoded", nil, "", fine + "Content-Encoding: br\r\nETag: \"a\"\r\n" + length(long), []string{long, "Content-Encoding: br\r\n", "ETag: \"a\"\r\n"}, []string{"Vary", "gzip"}},
		{"a part without its range", nil, "", "HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\n" + length(long), []string{long}, []string{"Vary", "Content-Encoding"}},
		{"a range that is not", nil, "", "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Type: text/plain\r\nContent-Range: bytes */5000\r\n" + length(long), []string{long}, []string{"Content-Encoding"}},
		{"an error", nil, "", "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n" + length(long), []string{"Content-Encoding: gzip\r\n"}, nil},
		{"no-transform", nil, "", fine + "Cache-Control: public, No-Transform\r\n" + length(long), []string{long}, []string{"Vary", "Content-Encoding"}},
		{"no-transform of the client", nil, "Accept-Encoding: gzip\r\nCache-Control: no-transform", fine + length(long), []string{long, "Vary: Accept-Encoding\r\n"}, []string{"Content-Encoding"}},
		{"no-transform by the route", edited, "", fine + length(long), []string{long}, []string{"Vary", "Content-Encoding"}},
		{"type by the route", typed, "", "HTTP/1.1 200 OK\r\nETag: \"a\"\r\n" + length(long), []string{"Content-Type: text/css\r\n", "Content-Encoding: gzip\r\n"}, []string{"ETag"}},
		{"no content", nil, "", "HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n\r\n", []string{"204 No Content"}, []string{"Vary", "Content-Encoding"}},
		{"it varies", nil, "", fine + "Vary: Origin, accept-encoding\r\n" + length(long), []string{"Content-Encoding: gzip\r\n", "Vary: Origin, accept-encoding\r\n"}, []string{"Vary: Accept-Encoding"}},
		{"it varies otherwise", nil, "", fine + "Vary: Origin\r\n" + length(long), []string{"Content-Encoding: gzip\r\n", "Vary: Origin\r\n", "Vary: Accept-Encoding\r\n"}, nil},
		{"it varies always", nil, "", fine + "Vary: *\r\n" + length(long), []string{"Content-Encoding: gzip\r\n", "Vary: *\r\n"}, []string{"Vary: Accept-Encoding"}},
		{"weak ETag", nil, "", fine + "ETag: W/\"a\"\r\n" + length(long), []string{"Content-Encoding: gzip\r\n", "ETag: W/\"a\"\r\n"}, nil},
		{"malformed ETag", nil, "", fine + "ETag: abc\r\n" + length(long), []string{"Content-Encoding: gzip\r\n"}, []string{"ETag"}},
		{"not modified", nil, "Accept-Encoding: gzip\r\nIf-None-Match: \"b\", W/\"a\"", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", []string{"ETag: W/\"a\"\r\n", "Vary: Accept-Encoding\r\n"}, []string{"Content-Encoding"}},
		{"not modified, not compressed", nil, "Accept-Encoding: gzip\r\nIf-None-Match: \"a\"", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", []string{"ETag: \"a\"\r\n", "Vary: Accept-Encoding\r\n"}, []string{"Content-Encoding"}},
		{"not modified, digests of what is compressed", nil, "Accept-Encoding: gzip\r\nIf-None-Match: W/\"a\"", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nRepr-Digest: x\r\nAccept-Ranges: bytes\r\n\r\n", []string{"ETag: W/\"a\"\r\n"}, []string{"Digest", "Ranges"}},
		{"not modified, digests", nil, "Accept-Encoding: gzip\r\nIf-None-Match: \"a\"", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nRepr-Digest: x\r\n\r\n", []string{"Repr-Digest: x\r\n"}, nil},
		{"not modified, by time", nil, "If-Modified-Since: x", "HTTP/1.1 304 Not Modified\r\nVary: Origin\r\n\r\n", []string{"Vary: Origin\r\nVary: Accept-Encoding\r\n"}, nil},
		{"not modified, another type", nil, "If-Modified-Since: x", "HTTP/1.1 304 Not Modified\r\nContent-Type: image/png\r\n\r\n", []string{"304 Not Modified"}, []string{"Vary"}},
		{"not modified, no-transform", nil, "If-None-Match: W/\"a\"", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: no-transform\r\n\r\n", []string{"ETag: \"a\"\r\n"}, []string{"Vary"}},
		{"interim responses", nil, "", "HTTP/1.1 103 Early Hints\r\nContent-Type: text/plain\r\n\r\n" + fine + length(long), []string{"103 Early Hints\r\nContent-Type: text/plain\r\n\r\n", "Content-Encoding: gzip\r\n"}, nil},
		{"many fields", nil, "", fine + strings.Repeat("X: y\r\n", 97) + length(long), []string{long}, []string{"Content-Encoding"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			origin := startOrigin(t, afterRequest(func(c *originConn) bool {
				io.WriteString(c.Conn, test.response)
				return !strings.Contains(test.response, "Connection: close")
			}))
			p := startProxy(t, Options{Limits: compressionMemory}, origin.address())
			if test.actions == nil {
				test.actions = compressing(t, 1000)
			}
			p.setActions(test.actions)
			if test.request == "" {
				test.request = "Accept-Encoding: gzip"
			}
			got := p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + test.request + "\r\n\r\n")
			for _, want := range test.want {
				verify.That(t, strings.Contains(got, want), "no %q in %q", want, got)
			}
			for _, not := range test.not {
				verify.That(t, !strings.Contains(got, not), "%q in %q", not, got)
			}
			verify.Equal(t, p.Compression().InUseBytes, 0, "bytes of encoders are in use")
		})
	}
}

// The connection of a client with HTTP/1.0 would end with a compressed response.
func TestDoesNotCompressForHTTP10(t *testing.T) {
	t.Parallel()
	long := words(2000)
	origin := startOrigin(t, answering(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(long), long)))
	p := startProxy(t, Options{Limits: compressionMemory}, origin.address())
	p.setActions(compressing(t, 0))
	got := p.expect("GET / HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n", "200", "\r\nVary: Accept-Encoding\r\n")
	verify.That(t, strings.HasSuffix(got, long), "got %q", got)
}

// What a peer has sent reaches the client although the peer does not send more.
func TestCompressedStreamIsNotHeldBack(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"text/event-stream", "text/plain"} {
		eachCase(t, peerProtocols, func(t *testing.T, http2 bool) {
			texts := make(chan chan string, 1) // of the next answer
			p := startCompressing(t, http2, compressing(t, 1000), func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", contentType)
				w.(http.Flusher).Flush()
				for text := range <-texts {
					io.WriteString(w, text)
					w.(http.Flusher).Flush()
				}
			})
			for _, front := range p.fronts() {
				next := make(chan string)
				texts <- next
				r := verify.Result(http.NewRequest("GET", front.url, nil)).Must(t)
				r.Header.Set("Accept-Encoding", "zstd")
				response := verify.Result(front.client.Do(r)).Must(t)
				verify.Equal(t, response.Header.Get("Content-Encoding"), "zstd", "%s: %v", front.name, response.Header)
				lines := bufio.NewReader(decode(t, "zstd", response.Body))
				for i := range 3 {
					text := fmt.Sprintf("data: %d\n", i)
					next <- text
					got, err := lines.ReadString('\n')
					verify.Require(t, got == text, "%s: %q, %v, want %q", front.name, got, err, text)
				}
				close(next)
				rest, err := io.ReadAll(lines)
				verify.That(t, len(rest) == 0 && err == nil, "%s: at the end: %q, %v", front.name, rest, err)
				response.Body.Close()
			}
		})
	}
}

// A compressed response without its end is not taken for a complete one, and its encoder is
// released, whoever ends it.
func TestCompressedResponseIsCut(t *testing.T) {
	t.Parallel()
	eachCase(t, peerProtocols, func(t *testing.T, http2 bool) {
		content := words(200_000)
		waits := make(chan struct{})
		p := startCompressing(t, http2, compressing(t, 1000), func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, content)
			w.(http.Flusher).Flush()
			if r.URL.Path == "/peer" {
				<-waits
				panic(http.ErrAbortHandler)
			}
			<-r.Context().Done()
		})
		for _, front := range p.fronts() {
			for _, path := range []string{"/peer", "/client"} {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				r := verify.Result(http.NewRequestWithContext(ctx, "GET", front.url+path, nil)).Must(t)
				r.Header.Set("Accept-Encoding", "gzip")
				response := verify.Result(front.client.Do(r)).Must(t)
				decoder := decode(t, "gzip", response.Body)
				got := make([]byte, len(content))
				_, err := io.ReadFull(decoder, got)
				verify.Require(t, err == nil && string(got) == content, "%s %s: %v", front.name, path, err)
				verify.That(t, p.Compression().InUseBytes != 0, "%s %s: no encoder is in use", front.name, path)
				if path == "/client" {
					cancel()
				} else {
					waits <- struct{}{}
				}
				rest, err := io.ReadAll(decoder)
				verify.That(t, err != nil, "%s %s: %d bytes and no error", front.name, path, len(rest))
				response.Body.Close()
				eventually(t, "the encoder is released", func() bool { return p.Compression().InUseBytes == 0 })
				eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
			}
		}
	})
}

// A client that leaves compressed answers unread takes its share of the memory for them, and no
// other client's.
func TestUnreadAnswersLeaveEncodersToOthers(t *testing.T) {
	t.Parallel()
	p := startProxyTo(t, false, Options{Limits: Limits{CompressionBytes: 64 << 20}}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, words(1000))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	p.setActions(compressing(t, 100))
	compressed := func(address string) bool {
		conn := p.sendFrom(address, []byte("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n"))
		head := verify.Result(http.ReadResponse(bufio.NewReader(conn), nil)).Must(t)
		return head.Header.Get("Content-Encoding") == "gzip"
	}
	const answers = 60 // all of them would take more than there is
	n := 0
	for range answers {
		if compressed(badClient) {
			n++
		}
	}
	stats := p.Compression()
	verify.That(t, n > 0 && stats.InUseBytes <= 8<<20 && stats.Skipped == answers-uint64(n), "%d answers to one client are compressed: %+v", n, stats)
	// One of two may have the counter of the first client by chance.
	verify.That(t, compressed("127.0.0.10") || compressed("127.0.0.11"), "no answer to another client is compressed")
}
