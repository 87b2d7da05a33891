package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/test/verify"
)

const (
	okResponse     = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	getRequest     = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	closingRequest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)

// dial opens a connection, by TLS in the tests over that.
func (p *testProxy) dial() net.Conn {
	p.t.Helper()
	conn := verify.Result(net.Dial("tcp", p.address)).Must(p.t)
	p.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return clientSide(p.t, conn)
}

// stream connects without TLS.
func (p *testProxy) stream() *net.TCPConn {
	p.t.Helper()
	conn := verify.Result(net.Dial("tcp", p.address)).Must(p.t)
	p.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// dialFrom opens a connection from a loopback address.
func (p *testProxy) dialFrom(address string) net.Conn {
	p.t.Helper()
	return dialFrom(p.t, address, p.address)
}

// dialFrom opens a connection to an address from a loopback address.
func dialFrom(t testing.TB, from, to string) net.Conn {
	t.Helper()
	conn := verify.Result((&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)).Must(t)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// sendFrom sends b from a loopback address, and nothing more.
func (p *testProxy) sendFrom(address string, b []byte) net.Conn {
	p.t.Helper()
	conn := p.dialFrom(address)
	verify.Result(conn.Write(b)).Must(p.t)
	return conn
}

// send sends text on a new connection.
func (p *testProxy) send(text string) net.Conn {
	p.t.Helper()
	conn := p.dial()
	io.WriteString(conn, text)
	return conn
}

// raw sends request on a new connection and returns all that comes back until
// the connection ends.
func (p *testProxy) raw(request string) string {
	p.t.Helper()
	conn := p.dial()
	verify.Result(io.WriteString(conn, request)).Must(p.t)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// expect sends request on a new connection of its own, and checks that the answer has that status,
// which may go on with the head, and each of these parts.
func (p *testProxy) expect(request, status string, parts ...string) (answer string) {
	p.t.Helper()
	answer = p.raw(request)
	verify.That(p.t, strings.HasPrefix(answer, "HTTP/1.1 "+status+" "), "%q: got %q, want %s", request, answer, status)
	for _, part := range parts {
		verify.Contains(p.t, answer, part, "the answer to %q", request)
	}
	return answer
}

// expectReason checks the status and the reason of an answer of sluice's own.
func expectReason(t *testing.T, answer, status, reason string) {
	t.Helper()
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 "+status+" ") && strings.Contains(answer, "\r\nX-Sluice-Reason: "+reason+"\r\n"), "got %q, want %s and the reason %s", answer, status, reason)
}

// get200 performs a request on a connection, which ends then. The error: it is not answered by a
// 200.
func get200(conn net.Conn) error {
	if _, err := io.WriteString(conn, closingRequest); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		err = fmt.Errorf("got %q", answer)
	}
	return err
}

// oneByteReader keeps a bufio.Reader from reading ahead.
type oneByteReader struct{ io.Reader }

func (r oneByteReader) Read(b []byte) (int, error) { return r.Reader.Read(b[:1]) }

// readResponse reads a response to a GET, and no byte more.
func readResponse(t testing.TB, conn net.Conn) (status int, body string) {
	t.Helper()
	return readResponseTo(t, conn, "GET")
}

// readResponseTo is readResponse for another method.
func readResponseTo(t testing.TB, conn net.Conn, method string) (status int, body string) {
	t.Helper()
	return readResponseFrom(t, bufio.NewReader(oneByteReader{conn}), method)
}

// readResponseFrom is for those who read all responses of a connection from one
// reader, which is faster.
func readResponseFrom(t testing.TB, reader *bufio.Reader, method string) (status int, body string) {
	t.Helper()
	r, err := http.ReadResponse(reader, &http.Request{Method: method})
	verify.Require(t, err == nil, "read response: %v", err)
	b, err := io.ReadAll(r.Body)
	verify.Require(t, err == nil, "read response's body: %v", err)
	return r.StatusCode, string(b)
}

// expectResponse ends the test unless the response to a GET has that status, and that body if one
// is given.
func expectResponse(t testing.TB, conn net.Conn, status int, body ...string) {
	t.Helper()
	got, text := readResponse(t, conn)
	verify.Require(t, got == status && (len(body) == 0 || text == body[0]), "got %d %q, want %d %q", got, text, status, body)
}

// expectNext ends the test unless what comes next is want.
func expectNext(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	verify.Require(t, err == nil && string(got) == want, "got %q, %v, want %q", got, err, want)
}

// expectRest ends the test unless what comes until the end is want.
func expectRest(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got, err := io.ReadAll(r)
	verify.Require(t, err == nil && string(got) == want, "got %q, %v, want %q and the end", got, err, want)
}

// expectLast checks that okResponse comes, announces the end of the connection, and is followed by
// it.
func expectLast(t testing.TB, conn net.Conn) {
	t.Helper()
	answer, err := io.ReadAll(conn)
	verify.That(t, err == nil && strings.HasSuffix(string(answer), "\r\nConnection: close\r\n\r\nok"), "got %q, %v", answer, err)
}

// expectCut waits for the end of the connection, in order, without an error, or not.
func expectCut(t testing.TB, conn net.Conn, what string) error {
	t.Helper()
	_, err := io.Copy(io.Discard, conn)
	verify.That(t, !errors.Is(err, os.ErrDeadlineExceeded), "%s is still open", what)
	return err
}

// expectReset ends the test unless the connection ends with a reset.
func expectReset(t testing.TB, r io.Reader) {
	t.Helper()
	_, err := io.Copy(io.Discard, r)
	verify.Require(t, errors.Is(err, syscall.ECONNRESET), "the connection ended with %v, want a reset", err)
}

// clientSide returns conn as a client of the test uses it.
func clientSide(t testing.TB, conn net.Conn) net.Conn {
	if !overTLS(t) {
		return conn
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
}

// CloseWrite ends what a client or an origin sends.
func closeWrite(t testing.TB, conn net.Conn) {
	t.Helper()
	verify.Succeeds(t, conn.(interface{ CloseWrite() error }).CloseWrite())
}

// http2Client returns a client that uses only HTTP/2, without TLS.
func http2Client(t testing.TB) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// A testFront is a way to send requests to a testProxy.
type testFront struct {
	name, url string
	client    *http.Client
}

// fronts returns one front for each protocol of clients.
func (p *testProxy) fronts() []testFront {
	secure := p.serveWith(ListenerOptions{Name: "secure", HTTP2: true, TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2", "http/1.1"}}})
	var all []testFront
	for _, front := range []struct {
		name, url string
		configure func(*http.Protocols)
	}{
		{"HTTP/1", "http://" + p.address, func(p *http.Protocols) { p.SetHTTP1(true) }},
		{"HTTP/1 over TLS", "https://" + secure, func(p *http.Protocols) { p.SetHTTP1(true) }},
		{"HTTP/2", "http://" + p.address, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }},
		{"HTTP/2 over TLS", "https://" + secure, func(p *http.Protocols) { p.SetHTTP2(true) }},
	} {
		transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		front.configure(transport.Protocols)
		client := &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		p.t.Cleanup(client.CloseIdleConnections)
		all = append(all, testFront{front.name, front.url, client})
	}
	client := http3Client(p.t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return append(all, testFront{"HTTP/3", "https://" + p.serveHTTP3(ListenerOptions{Name: "secure"}), client})
}

// close ends the connections of a front, and what it has beside them.
func (f *testFront) close() {
	f.client.CloseIdleConnections()
	if own, ok := f.client.Transport.(io.Closer); ok {
		own.Close()
	}
}

// ask sends a request with that raw target, and returns the response with its body.
func (f *testFront) ask(t testing.TB, method, target, body string, fields ...string) (*http.Response, string) {
	t.Helper()
	return f.send(t, method, target, strings.NewReader(body), int64(len(body)), fields...)
}

// send is ask with a body of that length.
func (f *testFront) send(t testing.TB, method, target string, body io.Reader, length int64, fields ...string) (*http.Response, string) {
	t.Helper()
	r := verify.Result(http.NewRequest(method, f.url, body)).Must(t)
	r.URL.Opaque, r.Host, r.ContentLength = target, "shop.example", length
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Add(name, value)
	}
	response, err := f.client.Do(r)
	verify.Require(t, err == nil, "%s: %s %s: %v", f.name, method, target, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	verify.Require(t, err == nil, "%s: %s %s: %v", f.name, method, target, err)
	return response, string(text)
}
