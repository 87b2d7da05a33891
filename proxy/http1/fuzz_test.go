package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"sluice/test/verify"
)

// The oracles are net/http and fasthttp: what http1 accepts is sent on byte for
// byte, so that every server behind must read it the way http1 did. That they
// refuse some of it is harmless; why they do is named below, so that any other
// reason shows as a difference.

// maxFuzzedHead keeps inputs in the size of a connection's buffer.
const maxFuzzedHead = 16 << 10

// division returns a random way in which n bytes may arrive.
func division(n int, seed uint64) []int {
	random := rand.New(rand.NewPCG(seed, 0))
	var feeding []int
	for at := 0; at < n && len(feeding) < 200; {
		step := 1
		if seed%4 != 0 { // otherwise byte by byte
			step += random.IntN(1 + n/(1+random.IntN(8)))
		}
		if at = min(n, at+step); at < n {
			feeding = append(feeding, at)
		}
	}
	return append(feeding, n)
}

func FuzzRequestHead(f *testing.F) {
	for i, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\nPOST /a?b HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 3\r\n\r\nabc",
		"PUT http://a:80/b HTTP/1.1\r\nhost:c\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\nConnection: keep-alive, x-a\r\nX-A:\t b \r\nx_b: \xff\r\nCookie: a=b\r\ncookie: c\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\nTE: trailers\r\nPragma: no-cache\r\nUser-Agent: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\nTransfer Encoding: chunked\r\n b\r\nX: \x00\n\r\r\n\n",
		"GET /\t#a HTTP/1.2\r\nHost: u@a\r\nContent-Length: +1\r\nTransfer-Encoding: xchunked, identity\r\n\r\n",
	} {
		f.Add([]byte(seed), uint64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = b[:min(len(b), maxFuzzedHead)]
		whole := readRequest(b, len(b))
		feeding := division(len(b), seed)
		verify.Require(t, readRequest(b, feeding...) == whole, "arriving as %v: got %+v, want %+v", feeding, readRequest(b, feeding...), whole)
		if whole.length == 0 {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
			verify.Require(t, whole.err != nil || err != nil, "incomplete, but net/http reads %+v", r)
			return
		}
		var head RequestHead
		head.Reset(testTargetBytes, UsualFields)
		head.Scan(b)
		end := bytes.Index(bytes.TrimPrefix(b, []byte("\r\n")), []byte("\r\n\r\n")) + 4
		verify.Require(t, whole.length == end || whole.length == end+2, "length %d, but the first empty line ends at %d", whole.length, end)
		// net/http knows no empty line before the request line.
		compareWithNetHTTP(t, &head, b, bytes.TrimPrefix(b, []byte("\r\n")))
		compareWithFasthttp(t, &head, b)
	})
}

func compareWithNetHTTP(t *testing.T, head *RequestHead, b, stripped []byte) {
	reader := bufio.NewReaderSize(bytes.NewReader(stripped), 2*maxFuzzedHead)
	r, err := http.ReadRequest(reader)
	if err != nil {
		_, targetErr := url.ParseRequestURI(string(head.Target(b)))
		switch {
		case targetErr != nil: // sluice leaves it to the peer what a path may be made of
		case head.Chunked && strings.Contains(err.Error(), "bad trailer key"): // an announcement, nothing more
		default:
			t.Fatalf("net/http refuses: %v", err)
		}
		return
	}
	rest, _ := io.ReadAll(reader)
	verify.That(t, len(rest) == len(b)-headLength(b, head), "net/http sees %d bytes after the head, not %d", len(rest), len(b)-headLength(b, head))
	verify.That(t, r.Method == string(head.MethodName(b)) && r.RequestURI == string(head.Target(b)) && r.Host == string(head.Authority(b)), "net/http reads %q %q for %q", r.Method, r.RequestURI, r.Host)
	verify.That(t, r.ProtoMajor == 1 && (r.ProtoMinor == 0) == head.HTTP10 && r.ProtoMinor <= 1, "net/http reads version %s", r.Proto)
	length := head.ContentLength
	switch {
	case head.Chunked:
		length = -1
	case length < 0:
		length = 0
	}
	chunked := slices.Equal(r.TransferEncoding, []string{"chunked"})
	verify.That(t, r.ContentLength == length && chunked == head.Chunked && len(r.TransferEncoding) <= 1, "net/http reads length %d, codings %q; want %d, chunked %v", r.ContentLength, r.TransferEncoding, length, head.Chunked)
	verify.That(t, r.Close != head.Persistent(), "net/http reads close %v", r.Close)
	want := fieldsAsInNetHTTP(&head.Head, b)
	delete(want, "Host")
	if want.Get("Pragma") == "no-cache" && want.Values("Cache-Control") == nil {
		want.Set("Cache-Control", "no-cache") // net/http's addition
	}
	compareFields(t, r.Header, want, head.Chunked)
}

// headLength returns where the body starts.
func headLength(b []byte, head *RequestHead) int {
	if fields := head.Fields(); len(fields) > 0 {
		_, end := fields[len(fields)-1].Line()
		return end + 2
	}
	return bytes.Index(b[head.start:], []byte("\r\n\r\n")) + int(head.start) + 4
}

func fieldsAsInNetHTTP(head *Head, b []byte) http.Header {
	fields := http.Header{}
	for i := range head.Fields() {
		f := &head.Fields()[i]
		fields.Add(string(f.FieldName(b)), string(f.Value(b)))
	}
	return fields
}

func compareFields(t *testing.T, got, want http.Header, chunked bool) {
	for _, fields := range []http.Header{got, want} {
		fields.Del("Content-Length") // compared as a number
		fields.Del("Transfer-Encoding")
		if chunked {
			fields.Del("Trailer") // net/http takes it out
		}
	}
	verify.DeepEqual(t, got, want, "net/http reads the fields")
}

func compareWithFasthttp(t *testing.T, head *RequestHead, b []byte) {
	var r fasthttp.RequestHeader
	reader := bufio.NewReaderSize(bytes.NewReader(b), 2*maxFuzzedHead)
	if err := r.Read(reader); err != nil {
		switch {
		case strings.Contains(err.Error(), "forbidden trailer"): // an announcement, nothing more
		default:
			t.Fatalf("fasthttp refuses: %v", err)
		}
		return
	}
	rest, _ := io.ReadAll(reader)
	verify.That(t, len(rest) == len(b)-headLength(b, head), "fasthttp sees %d bytes after the head, not %d", len(rest), len(b)-headLength(b, head))
	verify.That(t, bytes.Equal(r.Method(), head.MethodName(b)) && bytes.Equal(r.RequestURI(), head.Target(b)) && bytes.Equal(r.Host(), head.Find(b, NameHost)),
		"fasthttp reads %q %q for %q", r.Method(), r.RequestURI(), r.Host())
	verify.That(t, r.IsHTTP11() != head.HTTP10, "fasthttp reads version %s", r.Protocol())
	length := int(head.ContentLength)
	switch {
	case head.Chunked:
		length = -1
	case length < 0:
		length = -2
	}
	verify.Equal(t, r.ContentLength(), length, "fasthttp reads length")
	i := 0
	for name, value := range r.AllInOrder() {
		verify.Require(t, i != len(head.Fields()), "fasthttp reads more fields: %q", name)
		f := &head.Fields()[i]
		verify.That(t, strings.EqualFold(string(name), string(f.FieldName(b))) && bytes.Equal(value, f.Value(b)),
			"fasthttp reads field %d as %q: %q, want %q: %q", i, name, value, f.FieldName(b), f.Value(b))
		i++
	}
	verify.That(t, i >= len(head.Fields()), "fasthttp reads %d fields, want %d", i, len(head.Fields()))
}

func FuzzResponseHead(f *testing.F) {
	for i, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 404\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 204 \r\nConnection: close, x\r\nX:y\r\nSet-Cookie: a\r\nset-cookie:b\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nPragma: no-cache\r\n\r\n",
		"HTTP/1.1 101 x\r\nUpgrade: y\r\nConnection: Upgrade\r\n\r\n\x00",
		"HTTP/1.2 099 \x01\r\nContent-Length : +1\r\n b\nTransfer-Encoding: identity, chunked\r\n\r\r\n",
	} {
		f.Add([]byte(seed), uint64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = b[:min(len(b), maxFuzzedHead)]
		whole := readResponse(b, len(b))
		feeding := division(len(b), seed)
		verify.Require(t, readResponse(b, feeding...) == whole, "arriving as %v: got %+v, want %+v", feeding, readResponse(b, feeding...), whole)
		reader := bufio.NewReaderSize(bytes.NewReader(b), 2*maxFuzzedHead)
		r, err := http.ReadResponse(reader, nil)
		if whole.length == 0 {
			verify.Require(t, whole.err != nil || err != nil, "incomplete, but net/http reads %+v", r)
			return
		}
		var head ResponseHead
		head.Reset(UsualFields)
		head.Scan(b)
		end := bytes.Index(b, []byte("\r\n\r\n")) + 4
		verify.Require(t, whole.length == end, "length %d, but the first empty line ends at %d", whole.length, end)
		if err != nil {
			verify.Require(t, head.Chunked && strings.Contains(err.Error(), "bad trailer key"), "net/http refuses: %v", err) // an announcement, nothing more
			return
		}
		verify.That(t, r.StatusCode == head.Status && r.Status == strings.TrimLeft(string(head.StatusText(b)), " "), "net/http reads status %q", r.Status)
		verify.That(t, r.ProtoMajor == 1 && (r.ProtoMinor == 0) == head.HTTP10 && r.ProtoMinor <= 1, "net/http reads version %s", r.Proto)
		bodiless := head.Bodiless(false)
		length := head.ContentLength
		if bodiless {
			length = 0
		}
		chunked := slices.Equal(r.TransferEncoding, []string{"chunked"})
		verify.That(t, r.ContentLength == length && chunked == head.Chunked && len(r.TransferEncoding) <= 1, "net/http reads length %d, codings %q; want %d, chunked %v", r.ContentLength, r.TransferEncoding, length, head.Chunked)
		untilClose := !bodiless && !head.Chunked && head.ContentLength < 0
		verify.Equal(t, r.Close, (!head.Persistent() || untilClose), "net/http reads close")
		want := fieldsAsInNetHTTP(&head.Head, b)
		if want.Get("Pragma") == "no-cache" && want.Values("Cache-Control") == nil {
			want.Set("Cache-Control", "no-cache") // net/http's addition
		}
		if head.Close {
			want.Del("Connection") // net/http takes it out, but for HTTP/1.0
			r.Header.Del("Connection")
		}
		compareFields(t, r.Header, want, head.Chunked)
	})
}

func FuzzChunkScanner(f *testing.F) {
	for i, seed := range []string{
		"0\r\n\r\n",
		"3\r\nabc\r\n00A;x=\"y z\"\r\n0123456789\r\n0;z\r\nX: y\r\nz:\r\n\r\nGET /",
		"5\r\nab",
		"1;\xff\r\na\r\n0\r\nX:\ty \r\n",
		"+1\r\na\r\n", "1 \r\na\n0\n\n", "ffffffffffffffff\r\n", "0\r\nX : y\r\n b\r\n\r\n",
		strings.Repeat("1;"+strings.Repeat("x", 250)+"\r\na\r\n", 70) + "0\r\n" + strings.Repeat("a:b\r\n", 17),
	} {
		f.Add([]byte(seed), uint64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = b[:min(len(b), 64<<10)]
		whole := verify.Result(readChunks(b, len(b))).Must(t)
		feeding := division(len(b), seed)
		divided, broken := readChunks(b, feeding...)
		verify.Require(t, divided == whole && broken == nil, "arriving as %v: got %+v, %v; want %+v", feeding, divided, broken, whole)

		naive := decodeChunks(b)
		switch {
		case whole.done || naive.done:
			verify.Require(t, whole == naive, "got %+v, want %+v", whole, naive)
		case naive.err != nil:
			verify.Require(t, whole.err == naive.err && whole.data == naive.data, "got %+v, want %+v", whole, naive)
		case whole.err == nil:
			verify.Require(t, whole.taken == len(b) && whole.data == naive.data, "got %+v, want %+v", whole, naive)
		default:
			// The scanner does not wait for the end of a malformed line. Nothing
			// that may follow makes it well-formed.
			for _, more := range []string{"\n", "\r\n", "0\r\n\r\n", "\r\n\r\n", "\n0\r\n\r\n", "\r\n0\r\n\r\n", ":\r\n\r\n", "1\r\na\r\n0\r\n\r\n"} {
				naive := decodeChunks(append(bytes.Clone(b), more...))
				verify.Require(t, !naive.done, "got %+v, but with %q it is %+v", whole, more, naive)
			}
		}

		reader := bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(b)))
		r := verify.Result(http.ReadResponse(reader, nil)).Must(t)
		data, err := io.ReadAll(r.Body)
		switch {
		case err == nil && !whole.done && whole.err == nil:
			t.Fatalf("incomplete, but net/http reads %q", data)
		case err == nil && whole.done:
			compareTrailers(t, r.Trailer, whole.trailer)
		case err != nil && whole.done && !refusedByNetHTTP(err):
			t.Fatalf("net/http refuses: %v", err)
		case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
			return
		}
		verify.That(t, !whole.done || string(data) == whole.data, "net/http reads %q, want %q", data, whole.data)
	})
}

// refusedByNetHTTP reports whether net/http refuses a chunked body for a reason
// that sluice has its own measure for.
func refusedByNetHTTP(err error) bool {
	return strings.Contains(err.Error(), "too much non-data")
}

func compareTrailers(t *testing.T, got http.Header, section string) {
	want := http.Header{}
	for line := range Lines([]byte(section)) {
		name, value, _ := strings.Cut(string(line), ":")
		want.Add(name, strings.Trim(value, " \t\r\n"))
	}
	verify.That(t, len(got)+len(want) == 0 || reflect.DeepEqual(got, want), "net/http reads trailers %q, want %q", got, want)
}
