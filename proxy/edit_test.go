package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/route"
	"sluice/test/verify"
)

// visibleEdits change something in every request and response.
func visibleEdits(t testing.TB) *route.Actions {
	return &route.Actions{
		Path:            pathEdits(t, route.PathOptions{Strip: "/api", Add: "/v1"}),
		HostOfPeer:      true,
		RequestHeaders:  headerEdits(t, map[string]string{"X-Set": "request"}, nil, "X-Gone"),
		ResponseHeaders: headerEdits(t, map[string]string{"X-Set": "response"}, nil, "X", "Set-Cookie"),
	}
}

// Interim responses are not edited, and the cookie for the peer is not removed.
func TestEditsOfInterimResponsesAndCookies(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		io.WriteString(c.Conn, "HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 2\r\n\r\n")
		body, _ := io.ReadAll(r.Body)
		_, err := fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nX: 3\r\nSet-Cookie: own=1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err == nil
	}))
	p := startProxy(t, Options{}, origin.address())
	p.setAffinity(balancer.PolicySticky, &route.Affinity{Cookie: "peer"})
	p.setActions(visibleEdits(t))
	conn := p.dial()
	reader := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, "POST /api HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, want := range []string{"100 1 ", "103 2 ", "200  response"} {
			r := verify.Result(http.ReadResponse(reader, nil)).Must(t)
			verify.Equal(t, fmt.Sprint(r.StatusCode, " ", r.Header.Get("X"), " ", r.Header.Get("X-Set")), want, "result")
			if r.StatusCode == 100 {
				io.WriteString(conn, "4\r\nbody\r\n0\r\n\r\n")
			}
			if r.StatusCode == 200 {
				body, err := io.ReadAll(r.Body)
				verify.That(t, err == nil && string(body) == "body", "body %q, %v", body, err)
				cookies := r.Cookies()
				verify.That(t, len(cookies) == 1 && cookies[0].Name == "peer", "cookies %v", cookies)
			}
		}
	}
}

// Each attempt gets the same edits, with the address of its own peer.
func TestEditsOfAttempts(t *testing.T) {
	t.Parallel()
	first, fine := startOrigin(t, func(c *originConn) bool { c.request(); return false }), startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, first.address(), fine.address())
	p.setActions(visibleEdits(t))
	for range 6 {
		conn := p.send("GET /api/x HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\n\r\n")
		expectResponse(t, conn, 200, "ok")
		conn.Close()
	}
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	verify.That(t, first.got() != "", "the first peer was never asked")
	for _, o := range []*origin{first, fine} {
		got := o.got()
		requests := strings.Count(got, "GET /v1/x HTTP/1.1\r\nHost: "+o.address()+"\r\n")
		verify.That(t, requests == strings.Count(got, "GET ") && !strings.Contains(got, "X-Gone") && strings.Count(got, "X-Set: request\r\n") == requests, "the peer got %q", got)
	}
}

// A body without a length is counted while it arrives.
func TestBodyLimitOfARoute(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{BodyBytes: 1000}}, answersOK(t))
	for _, test := range []struct {
		limit int64
		bytes int
		want  string
	}{
		{0, 900, "200"}, {0, 1001, "413"}, {500, 500, "200"}, {500, 501, "413"}, {2000, 1001, "413"},
	} {
		p.setActions(&route.Actions{BodyLimit: test.limit})
		for _, framing := range []string{
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", test.bytes, strings.Repeat("x", test.bytes)),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", test.bytes, strings.Repeat("x", test.bytes)),
		} {
			p.expect("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+framing, test.want)
		}
	}
}

// A response that has too many fields with the edits is not forwarded.
func TestEditsOfALongHead(t *testing.T) {
	t.Parallel()
	for fields, want := range map[int]string{98: "200", 100: "502"} {
		origin := startOrigin(t, answering("HTTP/1.1 200 OK\r\n"+strings.Repeat("X-A: 1\r\n", fields-1)+"Content-Length: 2\r\n\r\nok"))
		p := startProxy(t, Options{}, origin.address())
		p.setActions(visibleEdits(t))
		p.expect(closingRequest, want)
	}
}

// FuzzEdits compares edits of a head with those of net/http's header, and checks that no
// value ends its line.
func FuzzEdits(f *testing.F) {
	f.Add("GET /a?b HTTP/1.1\r\nHost: a.example:80\r\nX-A: 1\r\nx-b: 2\r\nX-A: 3\r\n\r\n", "x-a", "X-B", "$host$path?$query $method", "Set-Cookie", "$$")
	f.Add("GET http://a.example?\x80 HTTP/1.1\r\nHost: a\r\nCookie:\t a \r\n\r\n", "cookie", "X-A", "$path", "X-A", "${authority}")
	f.Add("OPTIONS * HTTP/1.0\r\n\r\n", "X-A", "X-A", "a\r\nX-C: 1", "X-C", "\x00")
	f.Fuzz(func(t *testing.T, text, remove, set, value, add, more string) {
		e, err := route.NewHeaderEdits(map[string]string{set: value}, map[string]string{add: more}, []string{remove})
		if err != nil {
			t.Skip()
		}
		x := &newExchange().route
		x.request.in, x.request.end = []byte(text), len(text)
		x.request.client = &client{listener: &listener{}, address: "192.0.2.1"}
		x.request.head.Reset(8<<10, http1.UsualFields)
		n, err := x.request.head.Scan(x.request.in)
		if err != nil || n == 0 {
			t.Skip()
		}
		_, fields := http1.CutLine(bytes.TrimLeft(x.request.in[:n], "\r\n"))
		got := x.appendEditedFields(nil, fields, &e)

		// The naive way: names to lists of values.
		want := make(http.Header)
		all := x.request.head.Fields()
		for i := range all {
			name := strings.ToLower(string(all[i].FieldName(x.request.in)))
			want[name] = append(want[name], string(all[i].Value(x.request.in)))
		}
		delete(want, strings.ToLower(remove))
		host := string(x.request.head.Authority(x.request.in))
		target := string(x.request.head.OriginTarget(x.request.in))
		if strings.Contains(host+target, "$") {
			t.Skip() // the naive way would read variables in values
		}
		path, query, _ := strings.Cut(target, "?")
		if !strings.HasPrefix(path, "/") { // empty, or *
			path = "/"
		}
		pairs := []string{"$$", "$"}
		for name, value := range map[string]string{
			"authority": host, "host": string(withoutPort([]byte(host))), "path": path, "query": query, "scheme": "http",
			"method": string(x.request.head.MethodName(x.request.in)), "client_address": "192.0.2.1", "user": "",
		} {
			pairs = append(pairs, "${"+name+"}", value, "$"+name, value)
		}
		expand := strings.NewReplacer(pairs...)
		want[strings.ToLower(set)] = []string{strings.Trim(expand.Replace(strings.Trim(value, " \t")), " \t")}
		lower := strings.ToLower(add)
		want[lower] = append(want[lower], strings.Trim(expand.Replace(strings.Trim(more, " \t")), " \t"))

		// What a strict server reads.
		var head http1.RequestHead
		head.Reset(8<<10, http1.UsualFields)
		whole := append([]byte("GET / HTTP/1.1\r\n"), got...)
		if n, err := head.Scan(whole); err == http1.ErrTooManyFields {
			t.Skip()
		} else if x.request.head.HTTP10 && err == http1.ErrHost {
			t.Skip() // HTTP/1.0 needs none
		} else if err != nil || n != len(whole) {
			t.Fatalf("%q: %v", got, err)
		}
		read := make(http.Header)
		edited := head.Fields()
		for i := range edited {
			name := strings.ToLower(string(edited[i].FieldName(whole)))
			read[name] = append(read[name], string(edited[i].Value(whole)))
		}
		for name, values := range want {
			verify.Slices(t, read[name], values, "%s", name)
		}
		for name := range read {
			verify.That(t, want[name] != nil, "%s was added: %q", name, got)
		}
	})
}
