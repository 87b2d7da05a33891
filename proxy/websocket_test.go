//lint:file-ignore SA1019 net/http refuses the field :protocol.

package proxy

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/route"
	"sluice/route/auth"
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
		if !strings.HasPrefix(all[i].name, "HTTP/2") {
			continue
		}
		transport := &xhttp2.Transport{AllowHTTP: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		if all[i].name == "HTTP/2" {
			transport.DialTLSContext = func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			}
		}
		p.t.Cleanup(transport.CloseIdleConnections)
		all[i].client.Transport, all[i].client.Timeout = webSocketTransport{transport}, 0 // whose end would end the tunnel
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

// Actions do with requests for WebSocket what they do with others, whatever the protocol of
// the client is. A limit of bodies does not bound a tunnel.
func TestActionsOfWebSockets(t *testing.T) {
	t.Parallel()
	type pairs = map[string]string
	file := filepath.Join(t.TempDir(), "users")
	verify.NoError(t, os.WriteFile(file, []byte("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"), 0o600))
	users := verify.Result(auth.OpenUsers(file)).Must(t)
	password := route.Actions{
		BasicAuth:      &route.BasicAuth{Users: users, Realm: "the shop"},
		RequestHeaders: headerEdits(t, pairs{"X-User": "$user"}, nil, "Authorization"),
	}
	right := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann:secret"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-User", r.Header.Get("X-Forwarded-Method"))
		if strings.HasPrefix(r.Header.Get("X-Forwarded-Uri"), "/denied") {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer server.Close()
	forward := auth.NewForward(verify.URL(t, server.URL), patience, nil)
	defer forward.Close()
	forwardAuth := route.Actions{ForwardAuth: &route.ForwardAuth{Forward: forward, Copied: headerEdits(t, nil, nil, "X-User")}}
	for _, test := range []struct {
		name         string
		actions      route.Actions
		target       string // else /ws
		fields       []string
		status       int // 0: a tunnel
		reason       string
		want, absent []string // lines of what the peer got
		answer       []string // fields of the response; one that ends with a colon is not there
	}{
		{name: "no edits", want: []string{"GET /ws", "Host: shop.example"}, answer: []string{"X-Peer: secret"}},
		{
			name: "fields", target: "/ws?q",
			actions: route.Actions{
				RequestHeaders:  headerEdits(t, pairs{"X-Set": "$method $scheme://$host$path?$query", "Origin": "http://shop.example"}, pairs{"X-Add": "more"}, "X-Gone"),
				ResponseHeaders: headerEdits(t, pairs{"X-Peer": "public"}, pairs{"X-Twice": "3"}, "Content-Type"),
			},
			fields: []string{"X-Set: forged", "X-Gone: 1", "X-Add: one"},
			want:   []string{"X-Set: GET SCHEME://shop.example/ws?q", "Origin: http://shop.example", "X-Add: one", "X-Add: more"},
			absent: []string{"X-Set: forged", "X-Gone: 1"}, answer: []string{"X-Peer: public", "X-Twice: 1, 2, 3", "Content-Type:"},
		},
		{name: "strip and add", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Strip: "/api", Add: "/v1"})}, target: "/api/ws?q", want: []string{"GET /v1/ws?q", "X-Forwarded-Prefix: /api"}},
		{name: "unsafe path", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Strip: "/api"})}, target: "/%61pi/ws", status: 400, reason: "unsafe_path"},
		{name: "rewrite", actions: route.Actions{Path: pathEdits(t, route.PathOptions{Rewrite: regexp.MustCompile("^/(.*)$"), To: "/$1/$1?a"})}, target: "/ws?q", want: []string{"GET /ws/ws?a&q"}},
		{name: "host", actions: route.Actions{Host: "app.internal"}, want: []string{"Host: app.internal", "X-Forwarded-Host: shop.example"}},
		{name: "host of the peer", actions: route.Actions{HostOfPeer: true}, want: []string{"Host: PEER"}},
		{name: "redirect", actions: route.Actions{Redirect: redirect(t, "https://www.example$path", 307)}, status: 307, reason: "redirect", answer: []string{"Location: https://www.example/ws"}},
		{name: "denied", actions: route.Actions{Access: access("10.0.0.0/8", "")}, status: 403, reason: "client_denied"},
		{name: "limited", actions: route.Actions{RateLimit: exhausted(route.RateLimit{PerRoute: true}, "")}, status: 429, reason: "rate_limited"},
		{name: "no password", actions: password, status: 401, reason: "unauthorized", answer: []string{`Www-Authenticate: Basic realm="the shop", charset="UTF-8"`}},
		{name: "password", actions: password, fields: []string{right}, want: []string{"X-User: ann"}, absent: []string{right}},
		{name: "authentication server", actions: forwardAuth, want: []string{"X-User: GET"}},
		{name: "denied by the authentication server", actions: forwardAuth, target: "/denied", status: 403, reason: "auth_denied"},
		{name: "limit of bodies", actions: route.Actions{BodyLimit: 4}, want: []string{"GET /ws"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			peer := startWebSocketOrigin(t)
			p := startProxy(t, Options{}, peer)
			p.setActions(&test.actions)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			target := "/ws"
			if test.target != "" {
				target = test.target
			}
			for _, front := range p.webSocketFronts() {
				scheme, _, _ := strings.Cut(front.url, ":")
				for range 2 { // the connection stays in order
					c, response, first := front.open(ctx, target, test.fields...)
					verify.Require(t, response != nil, "%s: no response", front.name)
					status := test.status
					if status == 0 {
						status = 101
					}
					if response.StatusCode != status || response.Header.Get("X-Sluice-Reason") != test.reason || (c != nil) != (test.status == 0) {
						t.Errorf("%s: got %d %q, want %d %q", front.name, response.StatusCode, response.Header.Get("X-Sluice-Reason"), status, test.reason)
					}
					if seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")); status == 429 && seconds < 1 {
						t.Errorf("%s: Retry-After is %q", front.name, response.Header.Get("Retry-After"))
					}
					lines := strings.Split(first, "\n")
					place := strings.NewReplacer("SCHEME", scheme, "PEER", peer)
					for _, line := range test.want {
						line = place.Replace(line)
						verify.That(t, slices.Contains(lines, line), "%s: the peer did not get %q:\n%s", front.name, line, first)
					}
					for _, line := range test.absent {
						verify.That(t, !slices.Contains(lines, line), "%s: the peer got %q:\n%s", front.name, line, first)
					}
					for _, field := range test.answer {
						name, value, _ := strings.Cut(field, ":")
						got := strings.Join(response.Header.Values(name), ", ")
						verify.That(t, got == strings.TrimSpace(value), "%s: the response has %s: %q, want %q", front.name, name, got, value)
					}
					if c == nil {
						continue
					}
					message := strings.Repeat("x", 100)
					err := c.Write(ctx, websocket.MessageText, []byte(message))
					verify.That(t, err == nil, "%s: %v", front.name, err)
					_, got, err := c.Read(ctx)
					verify.That(t, err == nil && string(got) == message, "%s: got %q, %v", front.name, got, err)
					err = c.Close(websocket.StatusNormalClosure, "")
					verify.That(t, err == nil, "%s: %v", front.name, err)
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
	p.setService(route.Service{Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 2}, Affinity: &route.Affinity{Cookie: "peer", CookieAttributes: "; Path=/"}})
	p.setActions(&route.Actions{HostOfPeer: true, ResponseHeaders: headerEdits(t, nil, map[string]string{"Set-Cookie": "own=1"})})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
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
