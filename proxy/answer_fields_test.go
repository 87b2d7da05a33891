package proxy

import (
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

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
			"416 No\r\nContent-Range: bytes */5":                    "\r\nContent-Range: bytes */5\r\n",
			"426 No\r\nConnection: Upgrade\r\nUpgrade: websocket":   "\r\nUpgrade: websocket\r\n",
			"426 No\r\nUpgrade: TLS/1.0":                            "\r\nConnection: Upgrade\r\n", // RFC 9110, section 7.8
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
