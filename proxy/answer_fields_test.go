package proxy

import (
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

// A path that begins as a URL of another host leads to no other host: somebody may have sent the client there by a link.
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
