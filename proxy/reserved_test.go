package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/proxy/reserved"
	"sluice/route"
	"sluice/test/verify"
)

// namesOf has, for each reservation, some names whose fields it is about.
var namesOf = map[reserved.Reservation][]string{
	reserved.OfMessage:    {"Content-Length", "Max-Forwards", "Sec-WebSocket-Key"},
	reserved.OfConnection: {"Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "HTTP2-Settings", "Transfer-Encoding"},
	reserved.OfSluice:     {"X-Forwarded-Client-Cert", "X-Sluice-Attempts", "X-Sluice-Reason", "X-Sluice-Other"},
	reserved.OfProxies: {
		"X-Forwarded-Host", "X-Forwarded-Port", "Forwarded", "X-Sluice-Mirror", "X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Forwarded-Scheme",
		"X-Forwarded-Server", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Access-Token", "X-Forwarded-Path",
		"X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-Forwarded-Of-A-Product-That-Nobody-Knows", "X-Original-URL", "X-Rewrite-URL",
		"X-Original-Host", "X-Original-Method", "X-Client-IP", "True-Client-IP", "X-Cluster-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "X-Client-Cert",
		"X-SSL-Client-Cert", "SSL-Client-Cert", "Client-Cert", "X-Scheme", "Front-End-Https", "X-Url-Scheme", "Remote-User", "X-Remote-User", "X-Auth-Request-User",
		"Proxy", "X-Envoy-External-Address",
	},
	reserved.OfRequestID: {"X-Request-Id"},
	reserved.Free:        {"X-Mine", "Authorization", "X-HTTP-Method-Override", "X-Consul-Token", "X-Forward", "Accept-Language", "Front-End"},
}

// reservationOf returns the key of namesOf with that name.
func reservationOf(t testing.TB, name string) reserved.Reservation {
	t.Helper()
	for r, names := range namesOf {
		if slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, name) }) {
			return r
		}
	}
	t.Fatalf("%s is no name of the test", name)
	return 0
}

// editedNames are those that the route of the test sets, removes or copies from the
// authentication server's answer.
var editedNames = []string{"X-User", "X-Group", "X-Gone"}

// A hostileField is a field of a request or a response of this test.
type hostileField struct {
	base string // a name of namesOf or of editedNames
	name string // base, or a spelling of it
}

func (f hostileField) marked() bool { return f.name != f.base && !strings.EqualFold(f.name, f.base) }

// hostileFields returns random fields. exact: some may have the very name.
func hostileFields(random *rand.Rand) (fields []hostileField) {
	all := slices.Concat(slices.Concat(slices.Collect(maps.Values(namesOf))...), editedNames)
	slices.Sort(all)
	for range 1 + random.IntN(12) {
		f := hostileField{base: all[random.IntN(len(all))]}
		spelled := []byte(f.base)
		for i, c := range spelled {
			if c == '-' && random.IntN(3) == 0 {
				spelled[i] = "__..~+"[random.IntN(6)]
			}
		}
		switch f.name = string(spelled); random.IntN(3) {
		case 0:
			f.name = strings.ToUpper(f.name)
		case 1:
			f.name = strings.ToLower(f.name)
		}
		fields = append(fields, f)
	}
	return fields
}

// A hostileRequest is a request of the random test, with all that says what may pass.
type hostileRequest struct {
	trusted, grpc, keep, id, chunked bool
	streams, http3                   bool // HTTP/2 or HTTP/3; HTTP/3
	upgrade                          bool
	fields, trailers                 []hostileField
}

// passes is the model: whether the peer gets a field of the request.
func (r *hostileRequest) passes(t testing.TB, f hostileField, trailer bool) bool {
	if slices.Contains(editedNames, f.base) {
		return false
	}
	of := reservationOf(t, f.base)
	underscored := strings.Contains(f.name, "_") && !r.keep && !r.grpc
	switch {
	case trailer && f.base == "Authorization":
		return false
	case trailer && of != reserved.Free && of != reserved.OfRequestID:
		return false
	case of == reserved.Free:
		return !underscored
	case of == reserved.OfRequestID:
		return !r.id && !underscored
	case f.marked():
		return false
	case of == reserved.OfProxies:
		return r.trusted
	}
	return of == reserved.OfMessage && f.base == "Sec-WebSocket-Key" && !(r.upgrade && r.streams) || f.base == "Max-Forwards"
}

// sendable reports whether the test can send the field: others make the request malformed, or
// mean something else.
func (r *hostileRequest) sendable(f hostileField, trailer bool) bool {
	switch exact := !f.marked(); {
	case !exact:
		return true
	case f.base == "Content-Length", f.base == "Transfer-Encoding":
		return false
	case r.streams && (f.base == "Keep-Alive" || f.base == "Proxy-Connection"):
		return false
	}
	return true
}

// A fieldRecorder notes the field lines that servers get, by the target of the request.
type fieldRecorder struct {
	mu    sync.Mutex
	lines map[string][]string // by "PLACE /path": heads; by "PLACE trailer /path": trailer sections
}

func (r *fieldRecorder) note(place, path string, header http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, values := range header {
		for _, value := range values {
			r.lines[place+" "+path] = append(r.lines[place+" "+path], name+": "+value)
		}
	}
	r.lines[place+" "+path] = append(r.lines[place+" "+path], "")
}

// of returns what a place got; ok: it got the request.
func (r *fieldRecorder) of(place, path string) (lines []string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines = r.lines[place+" "+path]
	return lines, len(lines) > 0
}

// handler notes what a place gets, and answers with fields whose values are "theirs", in the
// head and in the trailer section.
func (r *fieldRecorder) handler(place string, theirs func(path string) []hostileField) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		path := request.URL.Path
		if place == "auth" {
			path = request.Header.Get("X-Forwarded-Uri")
		}
		io.Copy(io.Discard, request.Body)
		r.note(place, path, request.Header)
		r.note(place+" trailer", path, request.Trailer)
		for _, f := range theirs(path) {
			if !strings.EqualFold(f.name, "Content-Length") && !strings.EqualFold(f.name, "Transfer-Encoding") && !strings.EqualFold(f.name, "Trailer") {
				w.Header()[f.name] = []string{"theirs"}
			}
		}
		if place == "auth" {
			w.Header().Set("X-Group", "right")
			if strings.Contains(path, "denied") {
				w.WriteHeader(403)
			}
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		if strings.HasPrefix(request.Header.Get("Content-Type"), "application/grpc") {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}
		w.WriteHeader(200)
		io.WriteString(w, "ok")
		w.(http.Flusher).Flush()
		for _, f := range theirs(path) {
			w.Header()[http.TrailerPrefix+f.name] = []string{"theirs"}
		}
	}
}

// theirsPasses is the model of responses: whether the client gets a field of the peer.
func theirsPasses(t testing.TB, f hostileField, id, trailer bool) bool {
	if slices.Contains(editedNames, f.base) {
		return true
	}
	switch of := reservationOf(t, f.base); {
	case trailer && of != reserved.Free && of != reserved.OfRequestID, trailer && f.base == "Authorization":
		return false
	case of == reserved.Free:
		return true
	case of == reserved.OfRequestID:
		return !id
	case f.marked(), of == reserved.OfConnection, of == reserved.OfSluice:
		return false
	}
	return true
}

// Whatever a client, a peer and an authentication server send, and however the features of a route
// meet, no reserved name passes, and every other one does. A copy for a mirror has the identity of
// its request.
func TestReservedNames(t *testing.T) {
	t.Parallel()
	for r := range reserved.Reservation(reserved.LikeAnother) {
		verify.That(t, len(namesOf[r]) != 0 || r == reserved.OfTrace || r == reserved.OfTraceState || r == reserved.OfDeadline || r == reserved.OfListener, "reservation %d has no name in the test", r)
	}
	for _, http2Peers := range []bool{false, true} {
		for _, keep := range []bool{false, true} {
			for _, id := range []bool{false, true} {
				t.Run(fmt.Sprintf("HTTP/2 to peers %v, underscores %v, ids %v", http2Peers, keep, id), func(t *testing.T) {
					t.Parallel()
					testReservedNames(t, rand.New(rand.NewPCG(verify.Seed(t), 1)), http2Peers, keep, id)
				})
			}
		}
	}
}

func testReservedNames(t *testing.T, random *rand.Rand, http2Peers, keep, id bool) {
	recorder := &fieldRecorder{lines: make(map[string][]string)}
	var mu sync.Mutex
	answers := make(map[string][]hostileField) // by path
	theirs := func(path string) []hostileField {
		mu.Lock()
		defer mu.Unlock()
		return answers[path]
	}
	o := Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Switches: Switches{KeepUnderscores: keep, RequestID: id}}
	p := startProxy(t, o)
	p.usePeers(http2Peers, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin}, nowhere[0], startServer(t, recorder.handler("peer", theirs)))
	asks := asking(t, recorder.handler("auth", theirs))
	asks.Copied = []string{"x-group"}
	actions := &route.Actions{
		ForwardAuth:    asks,
		Authorized:     headerEdits(t, nil, nil, "X-Group"),
		RequestHeaders: headerEdits(t, map[string]string{"X-User": "right"}, nil, "X-Gone"),
	}
	mt := startMirror(t, p, route.Mirror{BodyBytes: 1000}, actions, http2Peers, startServer(t, recorder.handler("mirror", theirs)))

	secure := p.serveWith(ListenerOptions{Name: "secure", TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2", "http/1.1"}}})
	requests := make(map[string]*hostileRequest)
	type client struct{ trusted, secure bool }
	address3 := p.serveHTTP3(ListenerOptions{Name: "h3"})
	clients3 := make(map[bool]*http3Frames) // trusted or not
	clients := make(map[client]*frameClient)
	ids := make(map[client]uint32)
	for n := range 60 {
		r := &hostileRequest{trusted: random.IntN(2) == 0, streams: random.IntN(3) != 0, keep: keep, id: id, chunked: random.IntN(2) == 0}
		r.http3 = r.streams && random.IntN(2) == 0
		r.upgrade = !r.chunked && random.IntN(4) == 0
		asksForGRPC := !r.upgrade && random.IntN(3) == 0
		r.grpc = asksForGRPC && r.streams && http2Peers
		for _, f := range hostileFields(random) {
			if r.sendable(f, false) {
				r.fields = append(r.fields, f)
			}
		}
		if r.chunked {
			for _, f := range hostileFields(random) {
				if r.sendable(f, true) && (!r.streams || f.marked() || f.base != "Content-Length") {
					r.trailers = append(r.trailers, f)
				}
			}
		}
		path := fmt.Sprintf("/%d", n)
		if random.IntN(5) == 0 {
			path += "-denied"
		}
		mu.Lock()
		answers[path] = hostileFields(random)
		mu.Unlock()
		requests[path] = r
		by := client{r.trusted, random.IntN(3) == 0}
		from := "127.0.0.1"
		if by.trusted {
			from = "127.0.0.2"
		}
		dial := func(protocol string) net.Conn {
			to := p.address
			if by.secure {
				to = secure
			}
			conn := dialFrom(t, from, to)
			if by.secure {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
			}
			return conn
		}
		var lines []string // of the answer
		switch {
		case r.http3:
			if clients3[by.trusted] == nil {
				clients3[by.trusted] = verify.Result(dialQUIC(t, from, address3, quicClient())).Must(t)
			}
			lines = r.sendHTTP3(clients3[by.trusted], path, asksForGRPC)
		case r.streams:
			if clients[by] == nil {
				clients[by], ids[by] = framesOn(t, dial("h2")), 1
			}
			lines = r.sendHTTP2(clients[by], ids[by], path, asksForGRPC)
			ids[by] += 2
		default:
			lines = r.sendHTTP1(t, dial("http/1.1"), path, asksForGRPC)
		}
		checkAnswer(t, fmt.Sprintf("%s of %+v", path, r), lines, answers[path], id)
	}
	eventually(t, "the end of the copies", func() bool { return mt.copies.InFlight() == 0 })
	for path, r := range requests {
		r.check(t, recorder, path)
	}
}

// value returns the value of a field of a request. No id has a space, so that none is taken over.
func (r *hostileRequest) value(f hostileField) string {
	if f.base == "X-Request-Id" {
		return "forged by"
	}
	return "forged"
}

func (r *hostileRequest) sendHTTP1(t testing.TB, conn net.Conn, path string, asksForGRPC bool) (lines []string) {
	method, options := "POST", ""
	if r.upgrade {
		method, options = "GET", ", upgrade\r\nUpgrade: x"
	}
	text := method + " " + path + " HTTP/1.1\r\nHost: shop.example\r\nTE: trailers\r\nConnection: te, close" + options + "\r\n"
	if asksForGRPC {
		text += "Content-Type: application/grpc\r\n"
	}
	text += r.encode(r.fields, "%s: %s\r\n")
	switch {
	case r.chunked:
		text += "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n" + r.encode(r.trailers, "%s: %s\r\n") + "\r\n"
	case r.upgrade:
		text += "\r\n"
	default:
		text += "Content-Length: 4\r\n\r\nbody"
	}
	io.WriteString(conn, text)
	answer, _ := io.ReadAll(conn)
	conn.Close()
	verify.That(t, len(answer) != 0, "no answer to %q", text)
	return strings.Split(string(answer), "\r\n")
}

// encode returns fields with their values, each in that format.
func (r *hostileRequest) encode(fields []hostileField, format string) (text string) {
	for _, f := range fields {
		text += fmt.Sprintf(format, f.name, r.value(f))
	}
	return text
}

// head returns the fields of HTTP/2 and HTTP/3.
func (r *hostileRequest) head(path string, asksForGRPC bool) (fields string) {
	fields = ":method=POST|:scheme=http|:authority=shop.example|:path=" + path + "|te=trailers"
	if r.upgrade {
		fields = ":method=CONNECT|:protocol=websocket|:scheme=http|:authority=shop.example|:path=" + path
	}
	if asksForGRPC {
		fields += "|content-type=application/grpc"
	}
	return fields + strings.ToLower(r.encode(r.fields, "|%s=%s"))
}

// trailer is head for the trailer section.
func (r *hostileRequest) trailer() string { return strings.ToLower(r.encode(r.trailers, "|%s=%s"))[1:] }

// answerLines returns the lines of an answer of HTTP/2 or HTTP/3.
func answerLines(header, trailer map[string]string) (lines []string) {
	for name, value := range header {
		lines = append(lines, name+": "+value)
	}
	lines = append(lines, "", "body")
	for name, value := range trailer {
		lines = append(lines, name+": "+value)
	}
	return lines
}

func (r *hostileRequest) sendHTTP3(c *http3Frames, path string, asksForGRPC bool) (lines []string) {
	fields := r.head(path, asksForGRPC)
	s := c.request(fields, false)
	if !r.upgrade {
		s.send(h3Data("body"))
	}
	if len(r.trailers) > 0 {
		s.send(h3Head(r.trailer()))
	}
	if !r.upgrade {
		s.CloseWrite()
	}
	response := s.response()
	verify.That(c.t, response.status != "", "no answer to %s: %+v", fields, response)
	return answerLines(response.header, response.trailer)
}

func (r *hostileRequest) sendHTTP2(c *frameClient, id uint32, path string, asksForGRPC bool) (lines []string) {
	fields := r.head(path, asksForGRPC)
	c.conn.SetDeadline(time.Now().Add(patience))
	c.request(id, fields, false)
	if !r.upgrade {
		c.WriteData(id, len(r.trailers) == 0, []byte("body"))
	}
	if len(r.trailers) > 0 {
		c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(r.trailer()), EndHeaders: true, EndStream: true})
	}
	response := c.response(id)
	verify.That(c.t, response.status != "", "no answer to %s: %+v", fields, response)
	return answerLines(response.header, response.trailer)
}

// check compares what servers got with the model.
func (r *hostileRequest) check(t *testing.T, recorder *fieldRecorder, path string) {
	for _, place := range []string{"peer", "mirror", "auth"} {
		head, ok := recorder.of(place, path)
		if !ok {
			verify.That(t, place != "auth" && (place != "peer" || strings.Contains(path, "denied") || r.upgrade && r.streams), "%s: the %s got nothing of %+v", path, place, r)
			continue
		}
		trailer, _ := recorder.of(place+" trailer", path)
		r.compare(t, place, path, head, r.fields, false)
		r.compare(t, place+" trailer", path, trailer, r.trailers, true)
		if place != "auth" {
			for _, line := range []string{"X-User: right", "X-Group: right"} {
				verify.That(t, slices.Contains(head, line), "%s: the %s did not get %q", path, place, line)
			}
		}
	}
}

func (r *hostileRequest) compare(t *testing.T, place, path string, lines []string, fields []hostileField, trailer bool) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if !strings.Contains(value, "forged") {
			continue
		}
		i := slices.IndexFunc(fields, func(f hostileField) bool { return strings.EqualFold(f.name, name) })
		if i < 0 {
			t.Errorf("%s: the %s got %q, which nobody sent", path, place, line)
		} else if place != "auth" && !r.passes(t, fields[i], trailer) || place == "auth" && !r.asked(t, fields[i]) {
			t.Errorf("%s: the %s got %q of %+v", path, place, line, r)
		}
	}
	if place != "peer" && place != "auth" {
		return // HTTP/1 needs a field Trailer, and copies have none
	}
	for _, f := range fields {
		want := r.passes(t, f, trailer)
		if place == "auth" {
			want = r.asked(t, f)
		}
		if got := slices.ContainsFunc(lines, func(line string) bool {
			name, value, _ := strings.Cut(line, ": ")
			return strings.EqualFold(name, f.name) && strings.Contains(value, "forged")
		}); want && !got {
			t.Errorf("%s: the %s did not get %q of %+v: %q", path, place, f.name, r, lines)
		}
	}
}

// asked is the model of questions to authentication servers: what peers get, without what
// belongs to the message.
func (r *hostileRequest) asked(t *testing.T, f hostileField) bool {
	if slices.Contains(editedNames, f.base) { // the server may decide by what the client says
		return !strings.Contains(f.name, "_") || r.keep || r.grpc
	}
	return !(reservationOf(t, f.base) == reserved.OfMessage && !f.marked() && f.base != "Sec-WebSocket-Key") && f.base != "X-Forwarded-Host" && r.passes(t, f, false)
}

// checkAnswer compares the lines of an answer with the model.
func checkAnswer(t *testing.T, what string, lines []string, theirs []hostileField, id bool) {
	trailer := false
	for _, line := range lines {
		if line == "" {
			trailer = true // the body has no fields
		}
		name, value, _ := strings.Cut(line, ": ")
		if value != "theirs" {
			continue
		}
		i := slices.IndexFunc(theirs, func(f hostileField) bool { return strings.EqualFold(f.name, name) })
		verify.That(t, i >= 0 && theirsPasses(t, theirs[i], id, trailer), "%s: the client got %q", what, line)
	}
}

// The table has every name, and the names of the test have the reservation that it says.
func TestReservationsOfNames(t *testing.T) {
	for of, names := range namesOf {
		for _, name := range names {
			verify.Equal(t, reserved.Names[http1.NameOf([]byte(name))], of, "%s has the reservation", name)
			spelled := []byte(strings.ReplaceAll(name, "-", "_"))
			verify.That(t, !bytes.ContainsRune(spelled, '_') || reserved.Names[http1.NameOf(spelled)] == reserved.LikeAnother, "%s is no spelling", spelled)
		}
	}
}

// A request that is sent again has the same trailer section again.
func TestTrailerIsFilteredAgain(t *testing.T) {
	section := []byte("X-A: 1\r\nHost: b\r\nX-B: 2\r\n\r\n")
	sent := string(section)
	x := &newExchange().route
	x.request.client = &client{listener: new(listener), options: &Options{}}
	for range 2 {
		got := string(x.filterTrailer(section, reserved.ToPeers))
		verify.That(t, got == "X-A: 1\r\nX-B: 2\r\n\r\n" || got == "X-A: 1\r\nX-B: 2\r\n", "got %q", got)
		verify.Require(t, string(section) == sent, "the section that the client sent is now %q", section)
	}
}
