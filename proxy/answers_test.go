package proxy

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/healthcheck/statuses"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/route/compression"
	"sluice/route/pages"
	"sluice/test/verify"
)

func pageOf(t testing.TB, set, body string, peers bool) route.ErrorPage {
	t.Helper()
	return route.ErrorPage{
		Page: &route.Page{Body: pages.Text(body), ContentType: "text/html; charset=utf-8"}, Statuses: verify.Result(statuses.Parse(set)).Must(t), Peers: peers,
	}
}

func jsonPage(t testing.TB, set, body string) route.ErrorPage {
	page := pageOf(t, set, body, false)
	page.ContentType, page.JSON = "application/json", true
	return page
}

// corsActions let pages of an origin use a route.
func corsActions(t testing.TB, o route.CORSOptions, a route.Actions) *route.Actions {
	t.Helper()
	a.CORS = verify.Result(route.NewCORS(o)).Must(t)
	a.ResponseHeaders.Dropped = append(slices.Clone(a.ResponseHeaders.Dropped), route.CORSFields...)
	return &a
}

// answered checks an answer of sluice's own by each protocol of clients.
func (p *testProxy) answered(method, target string, status int, reason, body string, fields ...string) {
	p.t.Helper()
	for _, front := range p.fronts() {
		r, text := front.ask(p.t, method, target, "", fields...)
		verify.That(p.t, r.StatusCode == status && r.Header.Get("X-Sluice-Reason") == reason && text == body, "%s: %s %s: %d, %q, %q, want %d, %q, %q",
			front.name, method, target, r.StatusCode, r.Header.Get("X-Sluice-Reason"), text, status, reason, body)
	}
}

func TestDirectResponse(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	edits := headerEdits(t, map[string]string{"Location": "https://$host$path", "Retry-After": "7"}, nil)
	long := strings.Repeat("0123456789", 30<<10)
	p.setRoutes(
		route.Route{Path: "/text", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 200, Page: pageOf(t, "200", "User-agent: *\n", false).Page}}},
		route.Route{Path: "/long", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 203, Page: pageOf(t, "200", long, false).Page}}},
		route.Route{Path: "/none", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 204}}},
		route.Route{Path: "/found", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 302, Fields: edits.Added}}},
		route.Route{Path: "/gone", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 410}}},
		route.Route{Path: "/page", Actions: &route.Actions{
			DirectResponse: &route.DirectResponse{Status: 503, Fields: edits.Added}, ErrorPages: route.ErrorPages{pageOf(t, "503", "<p>soon", false)}}},
		route.Route{Path: "/nobody", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 200}, Access: access("", "0.0.0.0/0 ::/0")}},
		route.Route{Path: "/tag", Class: route.ClassTag, Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 200}, Access: access("", "0.0.0.0/0 ::/0")}},
		route.Route{Path: "/tag/ipv4", Class: route.ClassTraefik, Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 200}, Access: access("", "0.0.0.0/0")}},
	)
	p.answered("GET", "/text", 200, "direct_response", "User-agent: *\n")
	p.answered("HEAD", "/text", 200, "direct_response", "")
	p.answered("GET", "/long", 203, "direct_response", long)
	p.answered("GET", "/none", 204, "direct_response", "")
	p.answered("GET", "/found", 302, "direct_response", "")
	p.answered("GET", "/gone", 410, "direct_response", "410 Gone: the route answers itself\n")
	p.answered("GET", "/page", 503, "direct_response", "<p>soon")
	p.answered("GET", "/nobody", 403, "client_denied", "403 Forbidden: the route is not for this client's address\n")
	p.answered("GET", "/tag", 403, "tag_denied", "403 Forbidden: "+refusal.TagDenied.Text+"\n")
	p.answered("GET", "/tag/ipv4", 403, "client_denied", "403 Forbidden: the route is not for this client's address\n")
	for _, front := range p.fronts() {
		r, _ := front.ask(t, "HEAD", "/text", "", "Range: bytes=0-1")
		verify.Equal(t, r.Header.Get("Content-Length"), "14", "%s: Content-Length of HEAD", front.name)
		verify.Equal(t, r.Header.Get("Content-Type"), "text/html; charset=utf-8", "%s: Content-Type", front.name)
		verify.That(t, r.Header.Get("Date") != "" && r.Header.Get("Cache-Control") == "no-store", "%s: %v", front.name, r.Header)
		r, _ = front.ask(t, "GET", "/found", "")
		verify.Equal(t, r.Header.Get("Location"), "https://shop.example/found", "%s: Location", front.name)
		r, _ = front.ask(t, "GET", "/page", "")
		verify.Slices(t, r.Header.Values("Retry-After"), []string{"7"}, "%s: Retry-After", front.name)
	}
	p.expectNothingCounted()
}

// A client with HTTP/1.0 that has asked for it learns that its connection stays open: else it may
// wait for the end of that.
func TestOwnAnswersKeepConnectionsOfHTTP10(t *testing.T) {
	t.Parallel()
	p := startProxyTo(t, false, Options{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	p.setRoutes(
		route.Route{Path: "/direct", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 204}}},
		route.Route{Path: "/page", Service: p.service, Actions: &route.Actions{ErrorPages: route.ErrorPages{pageOf(t, "500", "broken", true)}}},
	)
	for target, status := range map[string]int{"/direct": 204, "/page": 500, "/none": 404} {
		conn := p.dial()
		reader := bufio.NewReader(conn)
		for _, field := range []string{"Connection: keep-alive\r\n", ""} {
			verify.Result(io.WriteString(conn, "GET "+target+" HTTP/1.0\r\nHost: a\r\n"+field+"\r\n")).Must(t)
			r := verify.Result(http.ReadResponse(reader, nil)).Must(t)
			verify.Result(io.Copy(io.Discard, r.Body)).Must(t)
			verify.Equal(t, r.StatusCode, status, "%s", target)
			verify.Equal(t, r.Header.Get("Connection") == "keep-alive", field != "", "%s: says that the connection stays open", target)
		}
		expectRest(t, reader, "")
	}
}

// A fixed answer with success would open a WebSocket of HTTP/2, whose bytes the body would be.
func TestDirectResponseOpensNoWebSocket(t *testing.T) {
	t.Parallel()
	p := startProxyTo(t, false, Options{}, echoRequest)
	for status, want := range map[int]struct{ status, reason string }{
		200: {"502", "upgrade_declined"}, 204: {"502", "upgrade_declined"}, 302: {"302", "direct_response"}, 410: {"410", "direct_response"},
	} {
		d := &route.DirectResponse{Status: status}
		if status != 204 {
			d.Page = pageOf(t, "200", "direct", false).Page
		}
		p.setActions(&route.Actions{DirectResponse: d})
		c := p.dialFrames()
		c.request(1, http2WebSocket, false)
		r := c.response(1)
		verify.That(t, r.status == want.status && r.header["x-sluice-reason"] == want.reason && r.ended, "%d: got %+v, want %+v", status, r, want)
		p.expect("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n", fmt.Sprint(status))
	}
}

// A page for peers' answers replaces the body and what describes it, and nothing else.
// TestAnswersAtRandom has bodies of other lengths, and other methods.
func TestErrorPagesOfPeers(t *testing.T) {
	ofBody := []string{"Content-Encoding", "ETag", "Last-Modified", "Content-Language", "Accept-Ranges"}
	for _, http2 := range []bool{false, true} {
		p := startProxyTo(t, http2, Options{}, func(w http.ResponseWriter, r *http.Request) {
			for _, name := range append([]string{"Set-Cookie", "X-Peer", "X-Sluice-Reason"}, ofBody...) {
				w.Header().Set(name, "a=b")
			}
			w.WriteHeader(verify.Result(strconv.Atoi(r.URL.Path[1:])).Must(t))
			io.WriteString(w, "peer")
		})
		p.setActions(&route.Actions{
			ErrorPages:      route.ErrorPages{pageOf(t, "404", "not there", true), pageOf(t, "5xx", "broken", true), pageOf(t, "401", "own", false)},
			ResponseHeaders: headerEdits(t, map[string]string{"X-New": "new"}, nil, "X-Peer"),
		})
		for _, front := range p.fronts() {
			for status, want := range map[int]string{404: "not there", 500: "broken", 503: "broken", 401: "peer", 200: "peer"} {
				r, body := front.ask(t, "GET", fmt.Sprint("/", status), "")
				verify.That(t, r.StatusCode == status && body == want, "%s: got %d %q, want %d %q", front.name, r.StatusCode, body, status, want)
				replaced := want != "peer"
				verify.Equal(t, r.Header.Get("X-Sluice-Reason"), map[bool]string{true: "error_page"}[replaced], "%s: the reason of %d", front.name, status)
				verify.That(t, r.Header.Get("Set-Cookie") == "a=b" && r.Header.Get("X-New") == "new" && r.Header.Get("X-Peer") == "", "%s: %v", front.name, r.Header)
				for _, name := range ofBody {
					verify.Equal(t, r.Header.Get(name) == "", replaced, "%s: %s of %d", front.name, name, status)
				}
			}
		}
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	}
}

// A trickling is a peer's answer of which a byte comes at a time, after pauses that are shorter
// than the patience with one.
type trickling struct{ upstream.Conn }

func (trickling) ReadBody(*socket.Buffers, bool) (transfer.Piece, error) {
	return transfer.Piece{Text: []byte("x"), Length: 1}, nil
}

func (trickling) BodyPauses(_ *socket.Buffers, patience time.Duration) (bool, error) {
	pause := maxFlushDelay - time.Millisecond
	time.Sleep(min(pause, patience))
	return patience < pause, nil
}

// A page does not wait for a peer whose own body comes bit by bit.
func TestErrorPagesOfSlowPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		verify.That(t, !dropAnswer(&newExchange().answer, trickling{}), "the answer is complete")
		verify.That(t, time.Since(start) <= maxFlushDelay, "the client waits %v for its page", time.Since(start))
	})
}

// A client whose first answer has a page for its body is known from then on as after any other
// answer.
func TestErrorPagesOfPeersKeepCookies(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, answering("HTTP/1.1 404 No\r\nSet-Cookie: session=1\r\nContent-Length: 1\r\n\r\nx")).address())
	p.setAffinity(balancer.PolicySticky, &route.Affinity{Cookie: "peer", CookieAttributes: "; Path=/"})
	p.reconfigure(balancer.Options{Policy: balancer.PolicySticky, Groups: []balancer.GroupSelector{{Name: "canary"}}})
	split := &route.Split{Shares: []route.Share{{Group: p.pool.Group("canary"), Size: 1}}, Rest: p.pool.Group("rest"), Seed: "star"}
	page := route.ErrorPages{pageOf(t, "404", "page", true)}
	p.setRoutes(route.Route{Path: "/", Service: p.service, Split: split, Actions: &route.Actions{ErrorPages: page}})
	for _, front := range p.fronts() {
		r, body := front.ask(t, "GET", "/", "")
		verify.Equal(t, body, "page", "%s: the body", front.name)
		var names, cookies []string
		for _, c := range r.Cookies() {
			names, cookies = append(names, c.Name), append(cookies, c.Name+"="+c.Value)
		}
		slices.Sort(names)
		verify.Slices(t, names, []string{"peer", "session", "sluice_client"}, "%s: the cookies", front.name)
		r, _ = front.ask(t, "GET", "/", "", "Cookie: "+strings.Join(cookies, "; "))
		verify.Slices(t, r.Header.Values("Set-Cookie"), []string{"session=1"}, "%s: the cookies of a client that has them", front.name)
	}
}

// What depends on whether the client accepts JSON says so to caches, which may keep it.
func TestErrorPagesVary(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		p := startProxyTo(t, http2, Options{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
			for _, vary := range r.URL.Query()["vary"] {
				w.Header().Add("Vary", vary)
			}
			w.WriteHeader(verify.Result(strconv.Atoi(r.URL.Query().Get("status"))).Must(t))
			io.WriteString(w, "peer")
		})
		fronts, json := p.fronts(), jsonPage(t, "410", `{"gone":true}`)
		json.Peers = true
		kept := headerEdits(t, map[string]string{"Cache-Control": "public, max-age=60"}, nil)
		p.setRoutes(
			route.Route{Path: "/", Service: p.service, Actions: &route.Actions{ErrorPages: route.ErrorPages{json, pageOf(t, "404", "page", true), pageOf(t, "401", "own", false)}}},
			route.Route{Path: "/direct", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 404, Fields: kept.Added}, ErrorPages: route.ErrorPages{pageOf(t, "404", "page", false)}}},
		)
		for _, test := range []struct {
			target, accept, body string
			vary                 []string
		}{
			{"/?status=404", "text/html", "page", []string{"Accept"}},
			{"/?status=404", "application/json", "peer", []string{"Accept"}},
			{"/?status=404&vary=accept", "application/json", "peer", []string{"accept"}},
			{"/?status=404&vary=Accept-Language", "application/json", "peer", []string{"Accept-Language", "Accept"}},
			{"/?status=410", "text/html", `{"gone":true}`, nil}, // for all
			{"/?status=410", "application/json", `{"gone":true}`, nil},
			{"/?status=401", "application/json", "peer", nil},
			{"/?status=200", "application/json", "peer", nil},
			{"/direct", "text/html", "page", []string{"Accept"}},
			{"/direct", "application/json", `{"status":404,"reason":"direct_response","message":"the route answers itself"}` + "\n", []string{"Accept"}},
		} {
			for _, front := range fronts {
				r, body := front.ask(t, "GET", test.target, "", "Accept: "+test.accept)
				verify.That(t, body == test.body && slices.Equal(r.Header.Values("Vary"), test.vary), "%s: %s for %s: %q, Vary %q, want %q, %q",
					front.name, test.target, test.accept, body, r.Header.Values("Vary"), test.body, test.vary)
			}
		}
	}
}

func TestErrorPagesOfSluice(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	p.setRoutes(
		route.Route{Path: "/x", Actions: &route.Actions{Access: access("", "127.0.0.0/8"), DirectResponse: &route.DirectResponse{Status: 200},
			ErrorPages: route.ErrorPages{pageOf(t, "403", "closed", false)}}},
		route.Route{Path: "/y", Actions: &route.Actions{Access: access("", "127.0.0.0/8"), DirectResponse: &route.DirectResponse{Status: 200}}},
	)
	p.routing.Load().ErrorPages = route.ErrorPages{pageOf(t, "4xx", "none", false), jsonPage(t, "404", `{"none":true}`)}
	p.answered("GET", "/x", 403, "client_denied", "closed")
	p.answered("GET", "/y", 403, "client_denied", "none")
	p.answered("GET", "/z", 404, "no_route", "none")
	p.answered("GET", "/z", 404, "no_route", `{"none":true}`, "Accept: application/json")
	p.answered("GET", "/x", 403, "client_denied", `{"status":403,"reason":"client_denied","message":"the route is not for this client's address"}`+"\n", "Accept: application/json")
	p.expect("GET /x HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n", "403", "\r\nContent-Type: application/json\r\n")
	text := p.expect("GET / HTTP/1.1\r\nHost: a\r\nBad Line\r\n\r\n", "400")
	verify.That(t, strings.HasSuffix(text, "\r\n\r\nnone"), "a malformed request gets %q", text)
}

func TestMaintenance(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	p := startProxyTo(t, false, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-release
		}
	})
	slow := p.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	p.setActions(&route.Actions{
		BasicAuth:  annsPassword(t), // maintenance comes before
		ErrorPages: route.ErrorPages{pageOf(t, "503", "back soon", false)},
	})
	p.pool.Maintenance.Store(&balancer.Maintenance{Why: "new disks", Until: time.Now().Add(time.Hour)})
	p.answered("GET", "/", 503, "maintenance", "back soon")
	for _, front := range p.fronts() {
		r, _ := front.ask(t, "GET", "/", "")
		seconds := verify.Result(strconv.Atoi(r.Header.Get("Retry-After"))).Must(t)
		verify.That(t, seconds > 3600-int(patience.Seconds()) && seconds <= 3600, "%s: Retry-After: %d", front.name, seconds)
		_, body := front.ask(t, "GET", "/", "", "Accept: application/json")
		verify.That(t, strings.Contains(body, "the service is in maintenance: new disks"), "%s: %s", front.name, body)
	}
	p.setActions(nil)
	p.pool.Maintenance.Store(&balancer.Maintenance{})
	p.answered("GET", "/", 503, "maintenance", "503 Service Unavailable: the service is in maintenance\n")
	r, _ := p.fronts()[0].ask(t, "GET", "/", "")
	verify.Equal(t, r.Header.Get("Retry-After"), "60", "Retry-After without an end")
	p.pool.Maintenance.Store(&balancer.Maintenance{Except: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	p.answered("GET", "/", 200, "", "")
	p.pool.Maintenance.Store(&balancer.Maintenance{Except: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	p.answered("GET", "/", 503, "maintenance", "503 Service Unavailable: the service is in maintenance\n")
	close(release)
	expectResponse(t, slow, 200) // which was in flight
	p.pool.Maintenance.Store(nil)
	p.answered("GET", "/", 200, "", "")
	p.expectNothingCounted()
}

// A path that begins as a URL of another host leads to no other host: somebody may have sent the
// client there by a link.
func TestPathsInLocationStayHere(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, answering("HTTP/1.1 302 Found\r\nLocation: //evil.example/\r\nContent-Length: 0\r\n\r\n")).address())
	location := headerEdits(t, map[string]string{"location": "$path"}, nil)
	p.setRoutes(
		route.Route{Host: "direct", Path: "/", Actions: &route.Actions{DirectResponse: &route.DirectResponse{Status: 302, Fields: location.Added}}},
		route.Route{Host: "peer", Path: "/", Service: p.service, Actions: &route.Actions{ResponseHeaders: location}},
	)
	for _, host := range []string{"direct", "peer"} {
		for path, want := range map[string]string{"//evil.example/x": "/evil.example/x", `/\evil.example`: "/evil.example", "///x": "/x", "/x//y": "/x//y"} {
			got := p.expect("GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n", "302")
			verify.Contains(t, strings.ToLower(got), "\r\nlocation: "+want+"\r\n", "%s: %s", host, path)
		}
	}
}

// A page for the body of a peer's answer leaves what its status is about: the length of what has no
// such range, and the protocol that the peer wants.
func TestErrorPagesLeaveWhatTheStatusIsAbout(t *testing.T) {
	t.Parallel()
	for _, peers := range []bool{false, true} {
		for answer, want := range map[string]string{
			"416 No\r\nContent-Range: bytes */5":                  "\r\nContent-Range: bytes */5\r\n",
			"426 No\r\nConnection: Upgrade\r\nUpgrade: websocket": "\r\nUpgrade: websocket\r\n",
			// RFC 9110, section 7.8.
			"426 No\r\nUpgrade: TLS/1.0":                            "\r\nConnection: Upgrade\r\n",
			"404 No\r\nContent-Range: bytes */5\r\nUpgrade: secret": "\r\n",
		} {
			p := startProxy(t, Options{}, startOrigin(t, answering("HTTP/1.1 "+answer+"\r\nContent-Length: 4\r\n\r\npeer")).address())
			p.setActions(&route.Actions{ErrorPages: route.ErrorPages{pageOf(t, "4xx", "page", peers)}})
			got := p.expect(closingRequest, answer[:3], want, "\r\nConnection: close\r\n")
			verify.That(t, !strings.Contains(got, "secret") && (!peers || !strings.Contains(answer, "404") || !strings.Contains(got, "Range")), "page %t, %q: got %q", peers, answer, got)
			verify.That(t, strings.HasSuffix(got, map[bool]string{false: "peer", true: "page"}[peers]), "page %t, %q: got %q", peers, answer, got)
			c := p.dialFrames()
			r := c.ask(1, http2Get)
			verify.That(t, r.status == answer[:3] && r.header["upgrade"] == "" && r.header["connection"] == "" && (answer[:3] != "416" || r.header["content-range"] == "bytes */5"),
				"page %t, %q: by HTTP/2: got %+v", peers, answer, r)
		}
	}
}

// A HEAD request gets no body either if its head is refused before it is read.
func TestRefusedHeadsOfHEAD(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Limits: Limits{HeadBytes: 2000, TargetBytes: 500}})
	for i, test := range []struct{ fields, status string }{
		{":path=/|x=" + strings.Repeat("a", 3000), "431"},
		{":path=/|" + strings.Repeat("x=a|", 99) + "x=a", "431"},
		{":path=/" + strings.Repeat("a", 1000), "414"},
		{":path=/#", "400"},
		{":path=/", "503"},
	} {
		c := p.dialFrames()
		for n, method := range []string{"HEAD", "GET"} {
			r := c.ask(uint32(1+2*n), ":method="+method+"|:scheme=http|:authority=a|"+test.fields)
			verify.That(t, r.status == test.status && (r.body != "") == (method == "GET") && r.header["content-length"] != "", "%d: %s: got %+v, want %s", i, method, r, test.status)
		}
	}
}

// randomOrigins are origins of requests; the first is allowed.
var randomOrigins = []string{"https://app.example", "https://evil.example", "null", ""}

// Whatever a route does and its peer answers: one value of each field of CORS, the page of the
// status, and no answer of a peer that a page replaces.
func TestAnswersAtRandom(t *testing.T) {
	seed := verify.Seed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	maybe := func(percent int) bool { return random.IntN(100) < percent }
	password := annsPassword(t)
	plain, _ := compression.ParseType("text/plain")
	for _, http2 := range []bool{false, true} {
		p := startProxyTo(t, http2, Options{}, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			for _, name := range strings.Fields(r.URL.Query().Get("fields")) {
				w.Header().Add(name, cmp.Or(map[string]string{"Vary": "Accept, origin"}[name], "*"))
			}
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(verify.Result(strconv.Atoi(r.URL.Query().Get("status"))).Must(t))
			io.WriteString(w, strings.Repeat("peer", verify.Result(strconv.Atoi(r.URL.Query().Get("size"))).Must(t)))
		})
		fronts := p.fronts()
		for range 150 {
			var a route.Actions
			var maintenance *balancer.Maintenance
			cors, credentials := maybe(70), maybe(50)
			if maybe(30) {
				a.BasicAuth = password
			}
			if maybe(20) {
				maintenance = &balancer.Maintenance{Why: "why"}
			}
			if maybe(20) {
				a.DirectResponse = &route.DirectResponse{Status: 200, Page: pageOf(t, "200", "direct", false).Page}
			}
			a.ClientCertificate = maybe(10)
			denied := maybe(10)
			if denied {
				a.Access = access("", "127.0.0.0/8")
			}
			if maybe(60) {
				a.ErrorPages = route.ErrorPages{pageOf(t, "4xx,5xx", "page", maybe(50))}
			}
			if maybe(30) {
				a.Compress = &compression.Settings{Encodings: []compression.Encoding{compression.Gzip}, Types: plain, MinBytes: 1}
			}
			actions := &a
			if cors {
				actions = corsActions(t, route.CORSOptions{AllowOrigins: []string{randomOrigins[0]}, AllowMethods: []string{"*"}, AllowCredentials: credentials}, a)
			}
			p.setActions(actions)
			p.pool.Maintenance.Store(maintenance)

			method := []string{"GET", "HEAD", "POST", "OPTIONS", "PUT"}[random.IntN(5)]
			origin := randomOrigins[random.IntN(len(randomOrigins))]
			status := []int{200, 404, 500, 503}[random.IntN(4)]
			size := []int{0, 1, 5000, 50000}[random.IntN(4)]
			var peerFields []string
			for _, name := range []string{"Access-Control-Allow-Origin", "access-control-allow-credentials", "Access-Control-Max-Age", "Vary"} {
				if maybe(50) {
					peerFields = append(peerFields, name)
				}
			}
			var fields []string
			preflight := method == "OPTIONS" && origin != "" && maybe(70)
			if origin != "" {
				fields = append(fields, "Origin: "+origin)
			}
			if preflight {
				fields = append(fields, "Access-Control-Request-Method: PUT")
			}
			sent := ""
			if method == "POST" || method == "PUT" {
				sent = strings.Repeat("b", []int{0, 4, 5000, 300 << 10, 3 << 20}[random.IntN(5)])
			}
			if sent != "" && maybe(30) {
				fields = append(fields, "Expect: 100-continue")
			}
			if maybe(20) {
				fields = append(fields, "Range: bytes=0-1", "If-Range: x")
			}
			knows := maybe(50)
			if knows {
				fields = append(fields, "Authorization: Basic YW5uOnNlY3JldA==")
			}

			// What the client must get, by the order of the phases.
			want, reason, body := status, "", strings.Repeat("peer", size)
			page := func() string { return map[bool]string{true: "page"}[a.ErrorPages != nil] }
			refused := func(s int, r string) { want, reason, body = s, r, page() }
			switch {
			case denied:
				refused(403, "client_denied")
			case cors && preflight && origin == randomOrigins[0]:
				want, reason, body = 204, "cors_preflight", ""
			case cors && preflight:
				refused(403, "origin_denied")
			case a.ClientCertificate:
				refused(403, "certificate_required")
			case maintenance != nil:
				refused(503, "maintenance")
			case a.BasicAuth != nil && !knows:
				refused(401, "unauthorized")
			case a.DirectResponse != nil:
				want, reason, body = 200, "direct_response", "direct"
			case status >= 400 && a.ErrorPages != nil && a.ErrorPages[0].Peers:
				reason, body = "error_page", "page"
			}
			target := fmt.Sprintf("/?status=%d&size=%d&fields=%s", status, size, strings.Join(peerFields, "+"))
			for _, front := range fronts {
				r, got := front.ask(t, method, target, sent, fields...)
				what := fmt.Sprintf("seed %d: %s: %s %s %q, cors %v, maintenance %v, %+v", seed, front.name, method, target, fields, cors, maintenance != nil, a)
				verify.That(t, r.StatusCode == want && r.Header.Get("X-Sluice-Reason") == reason, "%s:\n%d %q, want %d %q", what, r.StatusCode, r.Header.Get("X-Sluice-Reason"), want, reason)
				if method != "HEAD" && (body != "" || reason == "") {
					verify.That(t, got == body, "%s:\nthe body has %d bytes, want %d", what, len(got), len(body))
				}
				if !cors {
					continue
				}
				allowed, trusted := "", ""
				if origin == randomOrigins[0] {
					allowed, trusted = origin, map[bool]string{true: "true"}[credentials]
				}
				verify.Equal(t, strings.Join(r.Header.Values("Access-Control-Allow-Origin"), "|"), allowed, "%s: the origin", what)
				verify.Equal(t, strings.Join(r.Header.Values("Access-Control-Allow-Credentials"), "|"), trusted, "%s: credentials", what)
				verify.That(t, strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Vary"), ",")), "origin"), "%s: Vary: %q", what, r.Header.Values("Vary"))
				verify.Equal(t, cmp.Or(r.Header.Get("Access-Control-Max-Age"), "none"), map[bool]string{true: "0", false: "none"}[reason == "cors_preflight"], "%s: max age", what)
			}
		}
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	}
}
