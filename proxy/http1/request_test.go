package http1

import (
	"fmt"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestRefusedRequestHeads(t *testing.T) {
	const host = "Host: a\r\n"
	const get = "GET / HTTP/1.1\r\n" + host
	const post = "POST / HTTP/1.1\r\n" + host
	for _, test := range []struct {
		name, head string
		want       *Error
	}{
		// The request line.
		{"LF before", "\n" + get + "\r\n", ErrLineEnd},
		{"no method", " / HTTP/1.1\r\n" + host + "\r\n", ErrMethod},
		{"one word", "GET\r\n" + host + "\r\n", ErrMethod},
		{"method no token", "G@T / HTTP/1.1\r\n" + host + "\r\n", ErrMethod},
		{"CONNECT", "CONNECT a:80 HTTP/1.1\r\n" + host + "\r\n", ErrMethodRefused},
		{"TRACE", "TRACE / HTTP/1.1\r\n" + host + "\r\n", ErrMethodRefused},
		{"PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrMethodRefused},
		{"HTTP/0.9", "GET /\r\n", ErrVersion},
		{"HTTP/1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", ErrVersionRefused},
		{"HTTP/0.9 by name", "GET / HTTP/0.9\r\n" + host + "\r\n", ErrVersionRefused},
		{"http/1.1", "GET / http/1.1\r\n" + host + "\r\n", ErrVersion},
		{"HTTP/1.1 and space", "GET / HTTP/1.1 \r\n" + host + "\r\n", ErrVersion},
		{"HTTP/1.10", "GET / HTTP/1.10\r\n" + host + "\r\n", ErrVersion},
		{"two spaces after target", "GET /  HTTP/1.1\r\n" + host + "\r\n", ErrVersion},
		{"space in target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", ErrVersion},
		{"empty target", "GET  HTTP/1.1\r\n" + host + "\r\n", ErrTarget},
		{"fragment", "GET /a#f HTTP/1.1\r\n" + host + "\r\n", ErrTarget},
		{"GET *", "GET * HTTP/1.1\r\n" + host + "\r\n", ErrTarget},
		{"scheme alone", "GET http:// HTTP/1.1\r\n" + host + "\r\n", ErrTarget},
		{"unknown scheme", "GET ftp://a/ HTTP/1.1\r\n" + host + "\r\n", ErrTarget},
		{"scheme and no host", "GET http:///a HTTP/1.1\r\n" + host + "\r\n", ErrHost},
		{"scheme and query", "GET http://?a HTTP/1.1\r\n" + host + "\r\n", ErrHost},
		{"user in absolute target", "GET http://u@a/ HTTP/1.1\r\n" + host + "\r\n", ErrHost},
		{"target too long", "GET /" + strings.Repeat("a", testTargetBytes) + " HTTP/1.1\r\n" + host + "\r\n", ErrTargetTooLong},
		{"target much too long", "GET /" + strings.Repeat("a", 2*testTargetBytes), ErrTargetTooLong},
		{"method too long", strings.Repeat("a", testTargetBytes+64) + " / HTTP/1.1\r\n" + host + "\r\n", ErrTargetTooLong},
		{"long garbage, then LF", strings.Repeat("a", testTargetBytes+65) + "\n", ErrTargetTooLong},
		{"less long garbage, then LF", strings.Repeat("a", testTargetBytes+64) + "\n", ErrLineEnd},

		// Lines.
		{"LF after request line", "GET / HTTP/1.1\n" + host + "\r\n", ErrLineEnd},
		{"LF after field", get + "X: a\nY: b\r\n\r\n", ErrLineEnd},
		{"LF as last line", get + "\n", ErrLineEnd},
		{"CR in value", get + "X: a\rb\r\n\r\n", ErrLineEnd},
		{"CR in name", get + "X\r: a\r\n\r\n", ErrFieldName},
		{"folded", get + "X: a\r\n b\r\n\r\n", ErrFolded},
		{"folded with tab", get + "X: a\r\n\tb\r\n\r\n", ErrFolded},

		// Fields.
		{"no colon", get + "XYZ\r\n\r\n", ErrFieldName},
		{"empty name", get + ": a\r\n\r\n", ErrFieldName},
		{"space before colon", get + "X : a\r\n\r\n", ErrFieldName},
		{"NUL in value", get + "X: a\x00b\r\n\r\n", ErrFieldValue},
		{"101 fields", get + strings.Repeat("X: a\r\n", UsualFields) + "\r\n", ErrTooManyFields},

		// Host.
		{"no Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", ErrHost},
		{"no Host beside absolute target", "GET http://a/ HTTP/1.1\r\n\r\n", ErrHost},
		{"two Hosts", get + "host: b\r\n\r\n", ErrHost},
		{"malformed Host beside absolute target", "GET http://a/ HTTP/1.1\r\nHost: u@b\r\n\r\n", ErrHost},

		// The length of the body.
		{"length and coding", post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", ErrLengthAndCoding},
		{"two lengths", post + "Content-Length: 3\r\ncontent-length: 4\r\n\r\n", ErrContentLength},
		{"two equal lengths", post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", ErrContentLength},
		{"list of lengths", post + "Content-Length: 3, 3\r\n\r\n", ErrContentLength},
		{"empty length", post + "Content-Length:\r\n\r\n", ErrContentLength},
		{"length beyond 2^63", post + "Content-Length: 9223372036854775808\r\n\r\n", ErrContentLength},
		{"coding chunkedx", post + "Transfer-Encoding: chunkedx\r\n\r\n", ErrTransferCoding},
		{"coding gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n", ErrTransferCoding},
		{"coding twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTransferCoding},
		{"coding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTransferCoding},

		{"another expectation", post + "Expect: 200-ok\r\n\r\n", ErrExpectation},
		{"more nominations than fields", get + "Connection: " + strings.Repeat("a,", UsualFields+1) + "\r\n\r\n", ErrTooManyFields},
	} {
		t.Run(test.name, func(t *testing.T) {
			reading{err: test.want}.expect(t, readRequest, test.head)
		})
	}
}

// What is legitimate, if at times odd, is read as it is meant. A head that is not all there is
// neither complete nor malformed.
func TestAcceptedRequestHeads(t *testing.T) {
	token := "!#$%&'*+-.^`|~09azAZ"
	long := strings.Repeat("x", 9000)
	for _, test := range []struct{ name, head, want string }{
		{"plain", "GET /a/b?c=d HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a/b?c=d path=/a/b host=a\nHost=a"},
		{"empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / host=a\nHost=a"},
		{"any token is a method", token + " / HTTP/1.1\r\nHost: a\r\n\r\n", token + " / host=a\nHost=a"},
		{"case of methods matters", "connect / HTTP/1.1\r\nHost: a\r\n\r\n", "connect / host=a\nHost=a"},
		{"odd characters in target", "GET //a/../%2e%zz|\\\"<>[]{}^`\xff??/? HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET //a/../%2e%zz|\\\"<>[]{}^`\xff??/? path=//a/../%2e%zz|\\\"<>[]{}^`\xff host=a\nHost=a"},
		{"user in path", "GET //u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET //u@b/ host=a\nHost=a"},
		{"longest target", "GET /" + long[:testTargetBytes-1] + " HTTP/1.1\r\nHost: a\r\n\r\n", "GET /" + long[:testTargetBytes-1] + " host=a\nHost=a"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * host=a\nHost=a"},
		{"absolute form rules over Host", "GET http://a:80/b?c HTTP/1.1\r\nHost: d\r\n\r\n", "GET http://a:80/b?c origin=/b?c path=/b host=a:80 absolute\nHost=d"},
		{"Host first, then absolute form all the same", "GET HTTPS://A/ HTTP/1.1\r\nHost: d\r\n\r\n", "GET HTTPS://A/ origin=/ host=A absolute\nHost=d"},
		{"absolute form without path", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS http://a origin= host=a absolute\nHost=a"},
		{"absolute form with query alone", "GET http://a?b/c HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a?b/c origin=?b/c path= host=a absolute\nHost=a"},
		{"absolute form with @ in path", "GET http://a/@b?u@c HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a/@b?u@c origin=/@b?u@c path=/@b host=a absolute\nHost=a"},
		{"IPv6", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", "GET / host=[2001:db8::1]:8080\nHost=[2001:db8::1]:8080"},

		{"HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "GET / host= 1.0 last"},
		{"HTTP/1.0 kept", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / host= 1.0 keep-alive\nConnection=Keep-Alive"},
		{"HTTP/1.0 kept and closed", "GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
			"GET / host= 1.0 last close keep-alive\nConnection=keep-alive\nConnection=close"},

		{"white space around values", "GET / HTTP/1.1\r\nHost: \t a \t \r\nA:\r\nB: \t \r\nC:c\r\nD: d  d \r\n\r\n", "GET / host=a\nHost=a\nA=\nB=\nC=c\nD=d  d"},
		{"repeated, ordered, any case", "GET / HTTP/1.1\r\nzZ: 1\r\nHOST: a\r\nZz: 2\r\nzz: 3\r\n\r\n", "GET / host=a\nzZ=1\nHOST=a\nZz=2\nzz=3"},
		{"any token is a name", "GET / HTTP/1.1\r\nHost: a\r\n" + token + "_: 1\r\n\r\n", "GET / host=a\nHost=a\n" + token + "_=1"},
		{"any octet but controls in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: !\t\"#:;<=>?@[\\]{|}~\x80\xa0\xff\r\n\r\n",
			"GET / host=a\nHost=a\nX=!\t\"#:;<=>?@[\\]{|}~\x80\xa0\xff"},
		{"100 fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", UsualFields-1) + "\r\n",
			"GET / host=a\nHost=a" + strings.Repeat("\nX=a", UsualFields-1)},
		{"long value", "GET / HTTP/1.1\r\nHost: a\r\nX: " + long + "\r\n\r\n", "GET / host=a\nHost=a\nX=" + long},

		{"length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "POST / host=a body length=3\nHost=a\nContent-Length=3"},
		{"length 0", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST / host=a length=0\nHost=a\nContent-Length=0"},
		{"length with zeros and spaces", "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:\t007 \r\n\r\n", "POST / host=a body length=7\nHost=a\ncontent-length=007"},
		{"greatest length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n",
			"POST / host=a body length=999999999999999999\nHost=a\nContent-Length=999999999999999999"},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tCHUNKED \r\n\r\n", "POST / host=a body chunked\nHost=a\nTransfer-Encoding=CHUNKED"},
		{"names that are nearly something", "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\nTransfer-Encodin: x\r\nContent-Lengthy: x\r\nX-Host: u@b\r\n\r\n",
			"POST / host=a\nHost=a\nContent_Length=3\nTransfer-Encodin=x\nContent-Lengthy=x\nX-Host=u@b"},

		{"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: a, CLOSE\r\n\r\n", "GET / host=a last close\nHost=a\nConnection=a, CLOSE"},
		{"close is not undone", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
			"GET / host=a last close keep-alive\nHost=a\nConnection=close\nConnection=keep-alive"},
		{"closed is not close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: closed, \"close\"\r\n\r\n", "GET / host=a\nHost=a\nConnection=closed, \"close\""},
		{"nominated fields", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nConnection: ,x-b,, X-A\t,host,via,x-forwarded-for,te\r\nX-B: 2\r\nConnection: x-c\r\nx-C: 3\r\nX-D: 4\r\nX-A: 5\r\n\r\n",
			"GET / host=a\nHost=a\nX-A=1 nominated\nConnection=,x-b,, X-A\t,host,via,x-forwarded-for,te\nX-B=2 nominated\nConnection=x-c\nx-C=3 nominated\nX-D=4\nX-A=5 nominated"},
		{"names are nominated in ASCII", "GET / HTTP/1.1\r\nHost: a\r\nConnection: \u212a\r\nK: 1\r\n\r\n", "GET / host=a\nHost=a\nConnection=\u212a\nK=1"},
		{"as many nominations as fields", "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("a,", UsualFields) + "\r\nA: 1\r\n\r\n",
			"GET / host=a\nHost=a\nConnection=" + strings.Repeat("a,", UsualFields) + "\nA=1 nominated"},
		{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n",
			"GET / host=a keep-alive upgrade\nHost=a\nUpgrade=websocket\nConnection=keep-alive, Upgrade"},
		{"upgrade to nothing", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade:\r\nConnection: upgrade\r\n\r\n", "GET / host=a\nHost=a\nUpgrade=\nConnection=upgrade"},
		{"upgrade without option", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET / host=a\nHost=a\nUpgrade=websocket"},
		{"trailers", "GET / HTTP/1.1\r\nHost: a\r\nTE: deflate;q=0.5, Trailers\r\n\r\n", "GET / host=a trailers\nHost=a\nTE=deflate;q=0.5, Trailers"},

		{"expectation", "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n",
			"PUT / host=a expects body length=3\nHost=a\nExpect=100-Continue\nContent-Length=3"},
		{"expectation without body", "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
			"PUT / host=a length=0\nHost=a\nExpect=100-continue\nContent-Length=0"},
		{"expectation in HTTP/1.0", "PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
			"PUT / host= 1.0 body last length=3\nExpect=100-continue\nContent-Length=3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			length := strings.LastIndex(test.head, "\r\n\r\n") + 4
			want := reading{length, nil, test.want}
			// More than the head may have arrived.
			for _, more := range []string{"", "\n", "\x00", "GET / HTTP/1.1\r\n\r\n"} {
				b := []byte(test.head[:length] + more)
				verify.Equal(t, readRequest(b, len(b)), want, "before %q", more)
			}
			want.expect(t, readRequest, test.head)
		})
	}
}

// A head is ready for another request after Reset, whatever it was used for.
func TestRequestHeadReset(t *testing.T) {
	heads := []string{
		"GET http://a/ HTTP/1.0\r\nConnection: close, keep-alive, upgrade, x\r\nUpgrade: x\r\nTE: trailers\r\nX: nominated\r\nContent-Length: 3\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
		"HEAD /x HTTP/1.1\r\nHost: b\r\nX: not nominated\r\n\r\n",
		"BREW / HTTP/1.1\r\nHost: c\r\nContent-Length: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHo",
		"GET / HTTP/1.0\r\n\r\n",
	}
	var used RequestHead
	for _, first := range heads {
		for _, second := range heads {
			used.Reset(testTargetBytes, UsualFields)
			used.Scan([]byte(first))
			used.Reset(testTargetBytes, UsualFields)
			b := []byte(second)
			length, err := used.Scan(b)
			got := reading{length, err, ""}
			if length > 0 {
				got.text = requestText(&used, b)
			}
			verify.Equal(t, got, readRequest(b, len(b)), "%q after %q", second, first)
		}
	}
}

func TestMethods(t *testing.T) {
	for _, test := range []struct {
		name       string
		method     Method
		idempotent bool
	}{
		{"GET", MethodGet, true}, {"HEAD", MethodHead, true}, {"POST", MethodPost, false}, {"PUT", MethodPut, true},
		{"DELETE", MethodDelete, true}, {"OPTIONS", MethodOptions, true}, {"PATCH", MethodPatch, false},
		{"get", MethodOther, false}, {"GETS", MethodOther, false}, {"BREW", MethodOther, false},
	} {
		var head RequestHead
		head.Reset(testTargetBytes, UsualFields)
		head.Scan(fmt.Appendf(nil, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", test.name))
		verify.That(t, head.Method == test.method && head.Method.Idempotent() == test.idempotent, "%s: got %d, idempotent %v", test.name, head.Method, head.Method.Idempotent())
	}
}

// More fields than usual are found like others, in their order, and a copy of the head has them.
func TestManyFields(t *testing.T) {
	for _, n := range []int{UsualFields, UsualFields + 1, 2*UsualFields + 1, 1000} {
		var b strings.Builder
		b.WriteString("GET / HTTP/1.1\r\nConnection: x-1, x-998\r\n")
		for i := 1; i < n-2; i++ {
			fmt.Fprintf(&b, "X-%d: %d\r\n", i, i)
		}
		b.WriteString("User-Agent: me\r\nHost: a\r\n\r\n")
		text := []byte(b.String())
		var head RequestHead
		head.Reset(testTargetBytes, n)
		for end := 1; ; end += 100 { // in parts
			got, err := head.Scan(text[:min(end, len(text))])
			verify.Require(t, err == nil, "%d fields: %v", n, err)
			if got == len(text) {
				break
			}
		}
		first := head
		head.Reset(testTargetBytes, n)
		verify.Result(head.Scan([]byte("GET / HTTP/1.1\r\nHost: other\r\n" + strings.Repeat("Y: y\r\n", n-1) + "\r\n"))).Must(t)
		fields := first.Fields()
		verify.Require(t, len(fields) == n && string(first.Find(text, NameUserAgent)) == "me" && string(first.Authority(text)) == "a", "%d fields: got %d", n, len(fields))
		for i := 1; i < n-2; i++ {
			f := &fields[i]
			if name := fmt.Sprint("X-", i); string(f.FieldName(text)) != name || string(f.Value(text)) != fmt.Sprint(i) || f.Nominated != (i == 1 || i == 998) {
				t.Fatalf("field %d of %d: %s: %s, nominated %v", i, n, f.FieldName(text), f.Value(text), f.Nominated)
			}
		}
		if n > 3 {
			last := fmt.Sprint("x-", n-3)
			verify.That(t, string(first.FindOther(text, last)) == fmt.Sprint(n-3), "%d fields: no %s", n, last)
		}
		head.Reset(testTargetBytes, n-1)
		_, err := head.Scan(text)
		verify.That(t, err == ErrTooManyFields, "%d fields, %d are allowed: %v", n, n-1, err)
	}
}

func TestFindField(t *testing.T) {
	b := []byte("GET / HTTP/1.1\r\nX-One: 1\r\nHost: a\r\nx-one: 2\r\nUser-Agent: me\r\nEmpty:\r\n\r\n")
	var head RequestHead
	head.Reset(testTargetBytes, UsualFields)
	verify.Result(head.Scan(b)).Must(t)
	for _, test := range []struct {
		got  []byte
		want string
		is   bool
	}{
		{head.Find(b, NameUserAgent), "me", true}, {head.Find(b, NameVia), "", false},
		{head.FindOther(b, "x-one"), "1", true}, {head.FindOther(b, "empty"), "", true}, {head.FindOther(b, "x-two"), "", false},
	} {
		verify.That(t, string(test.got) == test.want && (test.got != nil) == test.is, "got %q, want %q, found %v", test.got, test.want, test.is)
	}
}

func TestValidHost(t *testing.T) {
	for host, want := range map[string]bool{
		"a": true, "A.example.com": true, "a.": true, "a:80": true, "a:": true, "a:65535": true, "a_b": true, "xn--bcher-kva.example": true,
		"127.0.0.1": true, "127.0.0.1:1": true, "0": true, "a%20b": true, "a;b=c": true, "-": true, "a*b": true,
		"[::1]": true, "[::1]:80": true, "[::1]:": true, "[::ffff:1.2.3.4]": true, "[2001:DB8::]": true,
		strings.Repeat("a", 255): true,

		"": false, ":80": false, ":": false, "a:b": false, "a:80:80": false, "a:-1": false, "a:+1": false, "a:8 0": false, "a:123456": false,
		"u@a": false, "u:p@a": false, "@": false, "a,b": false, "a b": false, "a\tb": false, "a/b": false, "/": false, "a?b": false, "a#b": false, `a\b`: false,
		"a\x00": false, "a\x7f": false, "\xc3\xa9": false, `"a"`: false, "<a>": false, "a|b": false, "a^b": false, "a`b": false, "{a}": false,
		"[": false, "]": false, "[]": false, "[]:80": false, "[::1": false, "::1]": false, "::1": false, "a[::1]": false, "[::1]a": false, "[::1]80": false,
		"[::1]]": false, "[[::1]]": false, "[g::]": false, "[::1%25eth0]": false, "[::1]:a": false, "[::1]:80:80": false, "[v1.a]": false, "[1.2.3.4]": false, "[1]": false,
		strings.Repeat("a", 300): false,
	} {
		verify.Equal(t, validHost([]byte(host)), want, "%q", host)
	}
}
