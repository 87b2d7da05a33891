//lint:file-ignore SA1019 net/http refuses the field :protocol.

package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// startWebSocketOrigin starts a server of WebSocket whose first message is what it got, as
// in echoRequest. It sends later messages back.
func startWebSocketOrigin(t testing.TB) (address string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := httptest.NewRecorder()
		echoRequest(got, r)
		for name, values := range got.Header() {
			w.Header()[name] = values
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		kind, message := websocket.MessageText, got.Body.Bytes()
		for err == nil {
			if err = c.Write(r.Context(), kind, message); err == nil {
				kind, message, err = c.Read(r.Context())
			}
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// webSocketFronts returns one front for each protocol by which clients ask for WebSocket.
func (p *testProxy) webSocketFronts() []testFront {
	all := p.fronts()
	for i := range all {
		switch {
		case all[i].name == "HTTP/3":
			all[i].client.Transport, all[i].client.Timeout = webSocketTransport{all[i].client.Transport, true}, 0
			continue
		case !strings.HasPrefix(all[i].name, "HTTP/2"):
			continue
		}
		transport := &xhttp2.Transport{AllowHTTP: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		if all[i].name == "HTTP/2" {
			transport.DialTLSContext = func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			}
		}
		p.t.Cleanup(transport.CloseIdleConnections)
		// Whose end would end the tunnel.
		all[i].client.Transport, all[i].client.Timeout = webSocketTransport{transport, false}, 0
	}
	return all
}

// open asks for a WebSocket. first is the first message; the error of a refusal is in the
// response.
func (f *testFront) open(ctx context.Context, target string, fields ...string) (c *websocket.Conn, response *http.Response, first string) {
	header := make(http.Header)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		header.Add(name, value)
	}
	c, response, err := websocket.Dial(ctx, f.url+target, &websocket.DialOptions{HTTPClient: f.client, HTTPHeader: header, Host: "shop.example"})
	if err != nil {
		return nil, response, ""
	}
	_, message, err := c.Read(ctx)
	if err != nil {
		return nil, response, err.Error()
	}
	return c, response, string(message)
}

// closeInOrder closes c, and reports whether the peer has answered that. The library waits 5 s for
// it, as long as a machine may stand still.
func closeInOrder(t *testing.T, c *websocket.Conn) bool {
	t.Helper()
	err := c.Close(websocket.StatusNormalClosure, "")
	verify.That(t, err == nil || errors.Is(err, context.DeadlineExceeded), "close: %v", err)
	return err == nil
}

// Actions do with requests for WebSocket what they do with others, whatever the protocol of
// the client is. A limit of bodies does not bound a tunnel.
func TestActionsOfWebSockets(t *testing.T) {
	t.Parallel()
	asks := asking(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-User", r.Header.Get("X-Forwarded-Method"))
		if strings.HasPrefix(r.Header.Get("X-Forwarded-Uri"), "/denied") {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	asks.Copied, asks.BodyBytes = []string{"x-user"}, 1000
	forwardAuth := route.Actions{ForwardAuth: asks, Authorized: headerEdits(t, nil, nil, "X-User")}
	peer := startWebSocketOrigin(t)
	p := startProxy(t, Options{}, peer)
	fronts, issuer := p.webSocketFronts(), startTokenIssuer(t)
	for _, test := range append(actionCases(t),
		actionCase{name: "token", actions: *issuer.requires("bearer"), fields: []string{"Authorization: Bearer " + issuer.token(nil), "X-User: not ada"},
			want: []string{"X-User: ada"}, absent: []string{"X-User: not ada"}},
		actionCase{name: "no token", actions: *issuer.requires("bearer"), status: 401, reason: "token_missing"},
		actionCase{name: "authentication server", actions: forwardAuth, want: []string{"X-User: GET"}},
		actionCase{name: "denied by the authentication server", actions: forwardAuth, target: "/denied", status: 403, reason: "auth_denied"},
		actionCase{name: "limit of bodies", actions: route.Actions{BodyLimit: 4}, want: []string{"GET /"}},
	) {
		if test.method != "" {
			continue // WebSocket is asked for by GET
		}
		t.Run(test.name, func(t *testing.T) {
			p.setActions(&test.actions)
			ctx := patientContext(t)
			for _, front := range fronts {
				for tries := 0; tries < 2; tries++ { // the connection stays in order
					c, response, first := front.open(ctx, cmp.Or(test.target, "/"), test.fields...)
					verify.Require(t, response != nil && (c != nil) == (test.status == 0), "%s: %v, %s", front.name, response, first)
					test.check(t, &front, peer, response, first, 101)
					if c == nil {
						continue
					}
					message := strings.Repeat("x", 100)
					verify.NoError(t, c.Write(ctx, websocket.MessageText, []byte(message)))
					_, got, err := c.Read(ctx)
					verify.That(t, err == nil && string(got) == message, "%s: got %q, %v", front.name, got, err)
					if !closeInOrder(t, c) {
						tries-- // until ctx ends
					}
				}
			}
			eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
			p.expectNothingCounted()
		})
	}
}

// A WebSocket sets the cookie of its peer, and a client that has it gets
// to the same peer without a new one.
func TestStickyWebSockets(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startWebSocketOrigin(t), startWebSocketOrigin(t), startWebSocketOrigin(t))
	p.setPolicy(balancer.PolicySticky)
	p.setService(route.Service{Retry: route.Retry{Attempts: 2}, Affinity: &route.Affinity{Cookie: "peer", CookieAttributes: "; Path=/"}})
	p.setActions(&route.Actions{HostOfPeer: true, ResponseHeaders: headerEdits(t, nil, map[string]string{"Set-Cookie": "own=1"})})
	ctx := patientContext(t)
	peerOf := func(first string) string {
		_, host, _ := strings.Cut(first, "Host: ")
		host, _, _ = strings.Cut(host, "\n")
		return host
	}
	for _, front := range p.webSocketFronts() {
		c, response, first := front.open(ctx, "/ws")
		verify.Require(t, c != nil, "%s: %v", front.name, response)
		defer c.CloseNow()
		cookies := response.Cookies()
		verify.Require(t, len(cookies) == 2 && cookies[0].Name == "own" && cookies[1].Name == "peer", "%s: cookies %v", front.name, cookies)
		for range 5 {
			c, response, again := front.open(ctx, "/ws", fmt.Sprintf("Cookie: peer=%s", cookies[1].Value))
			verify.Require(t, c != nil && peerOf(again) == peerOf(first) && len(response.Cookies()) == 1, "%s: the cookie of %s leads to %s: %v", front.name, peerOf(first), peerOf(again), response)
			defer c.CloseNow()
		}
	}
}
