package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

// A handler gets the target and the fields that a peer would get, and the client its whole answer.
func TestHandlerAnswers(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	long := strings.Repeat("0123456789", 100<<10)
	path := route.PathOptions{Strip: "/sluice"}
	p.setRoutes(route.Route{Path: "/sluice", PathMatch: route.PathPrefix, Actions: &route.Actions{
		Path: verify.Result(route.NewPathEdits(path)).Must(t),
		Handler: route.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if r.URL.Path == "/long" {
				fmt.Fprint(w, long)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, r.Method, " ", r.URL, " ", r.Host, " ", r.RemoteAddr, " ", r.Header.Get("X-A"), r.Header.Get("If-None-Match"), " ", len(body), err)
		})),
	}})
	p.answered("GET", "/sluice/long", 200, "admin_api", long)
	p.answered("HEAD", "/sluice/long", 200, "admin_api", "")
	p.answered("POST", "/sluice/x?y=%20z", 418, "admin_api", "POST /x?y=%20z shop.example 127.0.0.1 b 0 <nil>", "X-A: b", "If-None-Match: c")
	p.expectNothingCounted()
}

// A client whose answers take long, or who does not read them, leaves places to others.
func TestAClientLeavesPlacesOfAHandler(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	var held atomic.Int64
	release := make(chan struct{})
	p.setActions(&route.Actions{Handler: route.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			held.Add(1)
			<-release
		}
	}))})
	const request = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
	for range 20 {
		defer p.sendFrom("127.0.0.2", []byte(request)).Close()
	}
	eventually(t, "the share of a client is used up", func() bool { return held.Load() == 4 })
	verify.Succeeds(t, get200(p.dialFrom("127.0.0.1")))
	verify.Equal(t, held.Load(), 4, "answers that the other client waits for")
	close(release)
	eventually(t, "the client has places again", func() bool { return get200(p.dialFrom("127.0.0.2")) == nil })
}
