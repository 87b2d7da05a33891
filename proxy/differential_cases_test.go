package proxy

import "strings"

// inHead makes a request with a line, or several, that must not get through.
func inHead(name, bad string) badRequest {
	return badRequest{name: name, bad: bad, request: "POST /bad HTTP/1.1\r\nHost: a\r\n" + bad + "\r\n\r\n"}
}

// inLine makes a request with a request line that must not get through.
func inLine(name, line string) badRequest {
	return badRequest{name: name, bad: line, request: line + "\r\nHost: a\r\n\r\n"}
}

// inHost makes a request with Host lines, or none, that must not get through.
func inHost(name, hosts string) badRequest {
	return badRequest{name: name, bad: "GET /bad HTTP/1.1\r\n" + hosts, request: "GET /bad HTTP/1.1\r\n" + hosts + "\r\n"}
}

// inChunks makes a request with a chunked body that must not get through.
func inChunks(name, body string) badRequest {
	return badRequest{name: name, bad: body, inBody: true, request: "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body}
}

func (r badRequest) answered(status int) badRequest {
	r.status = status
	return r
}

const chunks = "\r\n\r\n1\r\na\r\n0"

var badRequests = []badRequest{
	inHead("length and coding", "Content-Length: 3\r\nTransfer-Encoding: chunked"+chunks),
	inHead("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 3"+chunks),
	inHead("two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
	inHead("two equal lengths", "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
	inHead("list of lengths", "Content-Length: 3, 4\r\n\r\nabc"),
	inHead("length +3", "Content-Length: +3\r\n\r\nabc"),
	inHead("length -1", "Content-Length: -1"),
	inHead("length 0x3", "Content-Length: 0x3\r\n\r\nabc"),
	inHead("length 3 3", "Content-Length: 3 3\r\n\r\nabc"),
	inHead("empty length", "Content-Length:\r\n\r\nabc"),
	inHead("length beyond 2^64", "Content-Length: 18446744073709551619\r\n\r\nabc"),
	inHead("space before colon", "Content-Length : 3\r\n\r\nabc"),
	inHead("tab before colon", "Transfer-Encoding\t: chunked"+chunks),
	inHead("space in name", "Content Length: 3\r\n\r\nabc"),
	inHead("space in name of coding", "Transfer Encoding: chunked"+chunks),
	inHead("no colon", "Content-Length"),
	inHead("empty name", ": a"),
	inHead("NUL in name", "X\x00Y: a"),
	inHead("coding xchunked", "Transfer-Encoding: xchunked"+chunks),
	inHead("coding gzip, chunked", "Transfer-Encoding: gzip, chunked"+chunks),
	inHead("coding chunked, identity", "Transfer-Encoding: chunked, identity"+chunks),
	inHead("coding identity", "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc"),
	inHead("coding after vertical tab", "Transfer-Encoding: \vchunked"+chunks),
	inHead("coding twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"+chunks),
	inHead("empty coding", "Transfer-Encoding:"+chunks),
	inHead("folded coding", "Transfer-Encoding:\r\n chunked"+chunks),
	inHead("folded field", "X: a\r\n b"),
	inHead("NUL in value", "X: a\x00b"),
	inHead("control in value", "X: a\x01b"),
	inHead("DEL in value", "X: a\x7fb"),
	inHead("CR in value", "X: a\rb"),
	inHead("CR CR LF", "X: a\r"),
	inHead("LF after field", "X: a\nY: b"),
	inHead("LF LF ends the head", "X: a\n\nGET /evil HTTP/1.1\r\nHost: a"),
	inHead("Expect of something else", "Expect: something-else\r\nContent-Length: 3\r\n\r\nabc").answered(417),
	{name: "coding in HTTP/1.0", bad: "HTTP/1.0\r\nTransfer-Encoding: chunked", request: "POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked" + chunks + "\r\n\r\n"},
	inHead("101 fields", strings.Repeat("X: a\r\n", 100)).answered(431),
	inHead("head too long", strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 20)).answered(431),
	inHost("no Host", ""),
	inHost("empty Host", "Host:\r\n"),
	inHost("port no number", "Host: a:b\r\n"),
	inHost("unclosed IPv6 Host", "Host: [::1\r\n"),
	inHost("folded first field", " Host: a\r\n"),
	inHost("two Hosts", "Host: a\r\nHost: b\r\n"),
	inHost("user in Host", "Host: u@a\r\n"),
	inHost("list in Host", "Host: a, b\r\n"),
	inHost("slash in Host", "Host: a/b\r\n"),
	inHost("space in Host", "Host: a b\r\n"),
	inHost("folded Host", "X: b\r\n Host: a\r\nHost: c\r\n"),
	inLine("LF after request line", "GET /bad HTTP/1.1\nX: a"),
	inLine("LF after each line", "GET /bad HTTP/1.1\nHost: a\n"),
	inLine("target too long", "GET /bad"+strings.Repeat("a", 9000)+" HTTP/1.1").answered(414),
	inLine("unknown scheme", "GET ftp://a/bad HTTP/1.1"),
	inLine("HTTP/1.1x", "GET /bad HTTP/1.1x"),
	inLine("method no token", "G@T /bad HTTP/1.1"),
	inLine("two spaces", "GET  /bad HTTP/1.1"),
	inLine("space in target", "GET /bad bad HTTP/1.1"),
	inLine("tab in target", "GET /bad\tbad HTTP/1.1"),
	inLine("fragment in target", "GET /bad#bad HTTP/1.1"),
	inLine("NUL in target", "GET /bad\x00bad HTTP/1.1"),
	inLine("user in target", "GET http://u:p@a/bad HTTP/1.1"),
	inLine("target without slash", "GET bad HTTP/1.1"),
	inLine("GET *", "GET * HTTP/1.1"),
	inLine("HTTP/1.2", "GET /bad HTTP/1.2").answered(505),
	inLine("HTTP/2.0", "GET /bad HTTP/2.0").answered(505),
	inLine("http/1.1", "GET /bad http/1.1"),
	inLine("method with colon", "GET: /bad HTTP/1.1"),
	inLine("CONNECT", "CONNECT a:80 HTTP/1.1").answered(405),
	inLine("TRACE", "TRACE /bad HTTP/1.1").answered(405),
	{name: "PRI", status: 405, bad: "PRI * HTTP/2.0", request: "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"},
	{name: "HTTP/0.9", bad: "GET /bad\r\n", request: "GET /bad\r\n\r\n"},
	inChunks("chunk size not hex", "x\r\nabc\r\n0\r\n\r\n"),
	inChunks("chunk size too long", "00000000000000001\r\na\r\n0\r\n\r\n"),
	inChunks("LF after data and another byte", "1\r\naX\n0\r\n\r\n"),
	inChunks("chunk size +1", "+1\r\na\r\n0\r\n\r\n"),
	inChunks("chunk size 0x1", "0x1\r\na\r\n0\r\n\r\n"),
	inChunks("space before chunk size", " 1\r\na\r\n0\r\n\r\n"),
	inChunks("space after chunk size", "1 \r\na\r\n0\r\n\r\n"),
	inChunks("chunk size beyond 2^64", "10000000000000001\r\na\r\n0\r\n\r\n"),
	inChunks("LF after chunk size", "1\na\r\n0\r\n\r\n"),
	inChunks("LF after data", "1\r\na\n0\r\n\r\n"),
	inChunks("data too long", "1\r\nab\r\n0\r\n\r\n"),
	inChunks("LF in extension", "1;a\nb\r\na\r\n0\r\n\r\n"),
	inChunks("NUL in extension", "1;a\x00\r\na\r\n0\r\n\r\n"),
	inChunks("long extension", "1;"+strings.Repeat("a", 10000)+"\r\na\r\n0\r\n\r\n"),
	inChunks("malformed trailer", "1\r\na\r\n0\r\nX Y: a\r\n\r\n"),
	inChunks("long trailer section", "1\r\na\r\n0\r\nX: "+strings.Repeat("a", 10000)+"\r\n\r\n"),
	inChunks("LF as last line", "1\r\na\r\n0\r\n\n"),
}

// A goodRequest is odd, but as it should be. want is what the peer gets:
// method, target, Host, body.
type goodRequest struct {
	name, request string
	want          []string
	byteByByte    bool
}

func good(name, request string, want ...string) goodRequest {
	return goodRequest{name: name, request: request, want: want}
}

var goodRequests = []goodRequest{
	good("plain", "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b=c a "),
	good("HEAD", "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /a a "),
	good("length", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "POST /a a abc"),
	good("length 0", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST /a a "),
	good("POST without length", "POST /a HTTP/1.1\r\nHost: a\r\n\r\n", "POST /a a "),
	good("length with zeros", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc", "POST /a a abc"),
	good("length and spaces", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: \t 3 \t\r\n\r\nabc", "POST /a a abc"),
	good("chunks", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "POST /a a abcde"),
	good("no chunks", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST /a a "),
	good("coding in capitals", "POST /a HTTP/1.1\r\nHost: a\r\ntransfer-encoding:CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST /a a abc"),
	good("chunk sizes with zeros and capitals", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n000\r\n\r\n", "POST /a a 0123456789"),
	good("chunk extensions", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y z\";w\r\nabc\r\n0;last\r\n\r\n", "POST /a a abc"),
	good("trailers", "POST /a HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", "POST /a a abc"),
	good("a thousand chunks", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1\r\na\r\n", 1000)+"0\r\n\r\n", "POST /a a 1000 bytes"),
	good("long body", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("a", 1000000), "POST /a a 1000000 bytes"),
	good("long chunk", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nf4240\r\n"+strings.Repeat("a", 1000000)+"\r\n0\r\n\r\n", "POST /a a 1000000 bytes"),
	good("GET with a body", "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "GET /a a abc"),
	good("DELETE with chunks", "DELETE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "DELETE /a a abc"),
	good("expectation", "PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc", "PUT /a a abc"),
	good("expectation without body", "PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", "PUT /a a "),
	good("empty line before", "\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a a "),
	good("HTTP/1.0", "GET /a HTTP/1.0\r\nHost: a\r\n\r\n", "GET /a a "),
	good("HTTP/1.0 kept", "GET /a HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\nGET /b HTTP/1.0\r\nHost: a\r\n\r\n", "GET /a a ", "GET /b a "),
	good("HTTP/1.0 with a body", "POST /a HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "POST /a a abc"),
	good("absolute form", "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b a "),
	good("absolute form and query", "GET HTTP://a:80?b HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET /?b a:80 "),
	good("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a "),
	good("another method", "PROPFIND /a HTTP/1.1\r\nHost: a\r\n\r\n", "PROPFIND /a a "),
	good("method of all kinds of characters", "M-SEARCH.2~x /a HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH.2~x /a a "),
	good("IPv6", "GET /a HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "GET /a [::1]:8080 "),
	good("Host with capitals, underscore and dot at its end", "GET /a HTTP/1.1\r\nHost: My_Host.Example.:81\r\n\r\n", "GET /a My_Host.Example.:81 "),
	good("slashes and dots", "GET //a/../b/./%2e%2E/c%2Fd HTTP/1.1\r\nHost: a\r\n\r\n", "GET //a/../b/./%2e%2E/c%2Fd a "),
	good("odd characters in path", "GET /|{}[]^`\"<>\\~!$&'()*+,;=:@ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /|{}[]^`\"<>\\~!$&'()*+,;=:@ a "),
	good("octets beyond ASCII in target", "GET /\xc3\xa9?\xff HTTP/1.1\r\nHost: a\r\n\r\n", "GET /\xc3\xa9?\xff a "),
	good("question marks", "GET /a??b?=/? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a??b?=/? a "),
	good("long target", "GET /"+strings.Repeat("a", 8000)+" HTTP/1.1\r\nHost: a\r\n\r\n", "GET /"+strings.Repeat("a", 8000)+" a "),
	good("long value", "GET /a HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("a", 12000)+"\r\n\r\n", "GET /a a "),
	good("many fields", "GET /a HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X-Field: a\r\n", 99)+"\r\n", "GET /a a "),
	good("odd fields", "GET /a HTTP/1.1\r\nHost:a\r\nEmpty:\r\nX:\t b \t\r\n!#$%&'*+-.^`|~0: \xff \"(,)\" =;\r\nCookie: a={\"b\"}\r\nCookie: c\r\n\r\n", "GET /a a "),
	good("close", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET /a a "),
	good("odd options", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: , keep-alive,,X-A\r\nX-A: 1\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate;q=0.5\r\n\r\n", "GET /a a "),
	good("offer of h2c", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", "GET /a a "),
	good("offer of WebSocket, declined", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", "GET /a a "),
	good("Max-Forwards", "GET /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", "GET /a a "),
	good("pipelined", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcHEAD /3 HTTP/1.1\r\nHost: a\r\n\r\nPUT /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /1 a ", "POST /2 a abc", "HEAD /3 a ", "PUT /4 a a", "GET /5 a "),
	{name: "byte by byte", request: "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: []string{"POST /a a abc"}, byteByByte: true},
}
