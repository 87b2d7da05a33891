package fields

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"sluice/proxy/http1"
	"sluice/test/verify"
)

// encoded returns a block of "name=value" fields that are separated by "|".
func encoded(fields string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for field := range strings.SplitSeq(fields, "|") {
		i := strings.Index(field[1:], "=") + 1
		encoder.WriteField(hpack.HeaderField{Name: field[:i], Value: field[i+1:]})
	}
	return block.Bytes()
}

func decoded(t testing.TB, list string) *Fields {
	fields := new(Fields)
	verify.NoError(t, NewHPACKDecoder(UsualListBytes).Decode(encoded(list), fields))
	return fields
}

const (
	get     = ":method=GET|:scheme=https|:authority=a|:path=/p"
	connect = ":method=CONNECT|:protocol=websocket|:scheme=https|:authority=a|:path=/p"
)

func TestRequestAsText(t *testing.T) {
	for _, test := range []struct {
		fields string
		body   bool
		want   string // of the text; empty: malformed
	}{
		{get, false, "GET /p HTTP/1.1\r\nhost: a\r\n\r\n"},
		{get + "|host=a|x=1|x=2", false, "GET /p HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 2\r\n\r\n"},
		{get + "|te=trailers", false, "GET /p HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n"},
		{get + "|cookie=a=1|x=1|cookie=b=2", false, "GET /p HTTP/1.1\r\nhost: a\r\nx: 1\r\ncookie: a=1; b=2\r\n\r\n"},
		{":method=OPTIONS|:scheme=http|:path=*|host=a", false, "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"},
		{":method=POST|:scheme=http|:path=/|:authority=a", false, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"},
		{":method=POST|:scheme=http|:path=/|:authority=a", true, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"},
		{get + "|content-length=5|content-length=5", true, "GET /p HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n"},
		{get + "|content-length=0", false, "GET /p HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"},
		// http1 refuses these with a status.
		{get + "|host=b", false, "GET /p HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"},
		{":method=GET|:scheme=http|:path=/", false, "GET / HTTP/1.1\r\n\r\n"},
		{":method=CONNECT|:authority=a:1", true, "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\ntransfer-encoding: chunked\r\n\r\n"},
		// Extended CONNECT.
		{connect + "|x=1|sec-websocket-key=k|cookie=a", true, "GET /p HTTP/1.1\r\nhost: a\r\nx: 1\r\ncookie: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"},
		{connect + "|te=trailers", true, "GET /p HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"},
		{get + "|sec-websocket-key=k", false, "GET /p HTTP/1.1\r\nhost: a\r\nsec-websocket-key: k\r\n\r\n"},
		{fields: connect + "|content-length=5", body: true}, {fields: connect + "|content-length=0", body: true},
		{fields: connect + "|upgrade=websocket", body: true}, {fields: connect + "|connection=upgrade", body: true},
		{fields: ":method=CONNECT|:protocol=websocket|:scheme=https|:authority=a", body: true},
		{fields: ":method=CONNECT|:protocol=websocket|:path=/p|:authority=a", body: true},
		{fields: ":method=CONNECT|:protocol=websocket|:authority=a", body: true},
		{fields: ":method=CONNECT|:protocol=|:scheme=https|:authority=a|:path=/p", body: true},
		{fields: ":method=CONNECT|:protocol=x\r\ny: 1|:scheme=https|:authority=a|:path=/p", body: true},
		{fields: ":method=CONNECT|:protocol=websocket|:scheme=https|:authority=a|:path=*", body: true},
		{fields: connect + "|:protocol=websocket", body: true}, {fields: "x=1|" + connect, body: true},

		{fields: get + "|content-length=5"},
		{fields: get + "|content-length=5|content-length=6", body: true},
		{fields: get + "|content-length=5, 5", body: true},
		{fields: get + "|transfer-encoding=chunked", body: true},
		{fields: get + "|connection=close"}, {fields: get + "|keep-alive=1"}, {fields: get + "|upgrade=h2c"},
		{fields: get + "|proxy-connection=close"}, {fields: get + "|te=gzip"}, {fields: get + "|te=trailers, deflate"},
		{fields: get + "|X=1"}, {fields: get + "|x y=1"}, {fields: get + "|x:=1"}, {fields: get + "|x\r\ny=1"}, {fields: get + "|=1"},
		{fields: get + "|x=1\r\nhost: b"}, {fields: get + "|x=1\n"}, {fields: get + "|x=\x00"}, {fields: get + "|x=\r"},
		{fields: get + "|x= 1"}, {fields: get + "|x=1\t"}, {fields: get + "|x=\x7f"},
		{fields: get + "|:path=/q"}, {fields: get + "|:unknown=1"}, {fields: get + "|:status=200"}, {fields: get + "|:protocol=websocket"},
		{fields: get + "|host=a|host=a"},
		{fields: ":method=GET|:scheme=https|x=1|:path=/"},
		{fields: ":method=GET|:scheme=https|:authority=a"}, {fields: ":method=GET|:path=/|:authority=a"}, {fields: ":scheme=https|:path=/|:authority=a"},
		{fields: ":method=GET|:scheme=ftp|:authority=a|:path=/"},
		{fields: ":method=GET|:scheme=http|:authority=a|:path="},
		{fields: ":method=GET|:scheme=http|:authority=a|:path=http://b/"}, {fields: ":method=GET|:scheme=http|:authority=a|:path=b"},
		{fields: ":method=GET|:scheme=http|:authority=a|:path=/ HTTP/1.1\r\nx: 1"}, {fields: ":method=GET|:scheme=http|:authority=a|:path=/ x"},
		{fields: ":method=GET|:scheme=http|:authority=a|:path=*"},
		{fields: ":method=GET /x|:scheme=http|:authority=a|:path=/"}, {fields: ":method=|:scheme=http|:authority=a|:path=/"},
		{fields: ":method=GET|:scheme=http|:authority=a\r\nx: 1|:path=/"},
		{fields: ":method=CONNECT|:authority=a|:scheme=http|:path=/"}, {fields: ":method=CONNECT"},
	} {
		text, length, tunnel, err := decoded(t, test.fields).AppendRequest(nil, !test.body)
		if test.want == "" {
			verify.Equal(t, err, ErrMalformed, "%q: got %q", test.fields, text)
			continue
		}
		announced := test.body && strings.Contains(test.want, "\r\ncontent-length: ")
		if err != nil || string(text) != test.want || (length >= 0) != announced || tunnel != strings.HasPrefix(test.fields, connect) {
			t.Errorf("%q: got %q, %d, %t, %v", test.fields, text, length, tunnel, err)
		}
	}
}

func TestTrailerAsText(t *testing.T) {
	text, err := decoded(t, "x=1|grpc-status=0").AppendTrailer(nil)
	verify.That(t, err == nil && string(text) == "x: 1\r\ngrpc-status: 0\r\n", "got %q, %v", text, err)
	for _, fields := range []string{":path=/", "x=1|:method=GET", "connection=close", "x=1\r\ny: 2", "X=1"} {
		if text, err := decoded(t, fields).AppendTrailer(nil); err != ErrMalformed {
			t.Errorf("%q: got %q, %v", fields, text, err)
		}
	}
}

// The text means to others what the fields mean, or http1 refuses it: there is no
// request smuggling.
func FuzzRequest(f *testing.F) {
	for _, fields := range []string{
		get, get + "|host=a|x=1|x=2|cookie=a|cookie=b", ":method=POST|:scheme=http|:path=/?q|:authority=a:1|content-length=3",
		":method=OPTIONS|:scheme=http|:path=*|host=a", get + "|te=trailers|x_y=1", get + "|host=b", ":method=CONNECT|:authority=a",
		get + "|x=1\r\nhost: b", ":method=GET|:scheme=http|:authority=a|:path=http://b/",
		connect + "|sec-websocket-key=k|te=trailers|cookie=a", ":method=CONNECT|:protocol=h2c, x|:scheme=http|:path=/|host=a|content-length=0",
		get + "|:protocol=websocket",
	} {
		f.Add(encoded(fields), true)
		f.Add(encoded(fields), false)
	}
	f.Fuzz(func(t *testing.T, block []byte, ended bool) {
		var fields Fields
		if NewHPACKDecoder(UsualListBytes).Decode(block, &fields) != nil {
			return
		}
		text, length, tunnel, err := fields.AppendRequest(nil, ended)
		if err != nil {
			return
		}
		verify.Require(t, len(text) <= fields.RequestBytes(), "%d bytes, bound %d", len(text), fields.RequestBytes())
		if len(text) > 60<<10 {
			return
		}
		var head http1.RequestHead
		head.Reset(8<<10, http1.UsualFields)
		n, err := head.Scan(text)
		if err != nil {
			return
		}
		verify.Require(t, n == len(text), "%q: the head ends after %d bytes", text, n)
		if head.Chunked != (!ended && !tunnel && length < 0) || ended && (head.HasBody() || length >= 0) || head.Upgrade != tunnel ||
			length >= 0 && head.ContentLength != length {
			t.Fatalf("%q: length %d, tunnel %t", text, length, tunnel)
		}
		request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			// net/http refuses some hosts, targets and lengths that http1 accepts.
			return
		}
		want := make(http.Header)
		var host, cookies []string
		for _, field := range fieldsOf(&fields) {
			switch field.Name {
			case ":authority", "host":
				if field.Value != "" {
					host = append(host, field.Value)
				}
			case ":method":
				if tunnel && field.Value == "CONNECT" {
					field.Value = "GET"
				}
				verify.Require(t, request.Method == field.Value, "%q: method %q", text, request.Method)
			case ":path":
				verify.Require(t, request.RequestURI == field.Value, "%q: target %q", text, request.RequestURI)
			case ":protocol":
				want.Set("Upgrade", field.Value)
				want.Set("Connection", "upgrade")
			case ":scheme":
			case "cookie":
				if field.Value != "" {
					cookies = append(cookies, field.Value)
				}
			case "content-length":
				want.Set("Content-Length", field.Value)
			default:
				if !tunnel || field.Name != "sec-websocket-key" {
					want.Add(field.Name, field.Value)
				}
			}
		}
		if len(cookies) > 0 {
			want.Set("Cookie", strings.Join(cookies, "; "))
		}
		for _, h := range host {
			verify.Require(t, h == request.Host, "%q: host %q, want %q", text, request.Host, host)
		}
		if ended && !tunnel && request.ContentLength == 0 && want.Get("Content-Length") == "" {
			request.Header.Del("Content-Length") // of POST
		}
		request.Header.Del("Transfer-Encoding")
		verify.Require(t, len(request.Header) == len(want), "%q: got %q, want %q", text, request.Header, want)
		for name := range want {
			verify.Require(t, strings.Join(want[name], "\n") == strings.Join(request.Header[name], "\n"), "%q: got %q, want %q", text, request.Header, want)
		}
	})
}
