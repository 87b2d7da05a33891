package gateway

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func (c *combinedRun) webSocket(ctx context.Context, e *entrance, arrived func(), protocol string, random *rand.Rand) error {
	path, route, instead := fmt.Sprint("/ws/", random.IntN(100)), c.routes[len(c.routes)-2], turnedAway("")
	conn, got, err := e.tunnel(ctx, protocol, path, e.barred(route, false))
	if err != nil && !errors.As(err, &instead) {
		return err
	}
	if _, wrong := e.settle(route, false, string(instead)); err != nil || wrong != nil {
		return wrong
	}
	defer conn.Close()
	arrived()
	if got != path {
		return fmt.Errorf("the peer got the path %q", got)
	}
	for range 3 {
		if err := echoes(conn, combinedBody(random.IntN(1000), random.IntN(100_000)), 1+random.IntN(4)); err != nil {
			return err
		}
	}
	return nil
}

func (c *combinedRun) call(ctx context.Context, e *entrance, arrived func(), protocol string, random *rand.Rand) error {
	route := c.routes[len(c.routes)-1]
	calls, ctx := grpc.ClientConnInterface(http3Calls{e.clients[e.combinedClient].http[protocolHTTP3].Transport}), e.traced(ctx)
	if protocol != protocolHTTP3 {
		byTCP := e.clients[e.combinedClient].calls
		if e.asked() { // else it would remember that it was rejected on other terms
			byTCP = e.callsOf(e.combinedClient)
			defer byTCP.Close()
		}
		calls = byTCP
	}
	ctx = metadata.AppendToOutgoingContext(ctx, isBarred, fmt.Sprint(e.barred(route, false)))
	var at peer.Peer
	var trailer metadata.MD
	err := c.calls(ctx, grpc_testing.NewTestServiceClient(calls), arrived, random, grpc.Peer(&at), grpc.Trailer(&trailer))
	if at.Addr != nil {
		e.uses(at.LocalAddr, at.Addr)
	}
	outcome := outcomeOf(&http.Response{Header: http.Header{"X-Sluice-Reason": trailer["x-sluice-reason"]}})
	if code := status.Code(err); outcome == toHTTPS && code == codes.FailedPrecondition || outcome != "" && code == codes.PermissionDenied || code == codes.OK {
		_, err = e.settle(route, false, outcome)
	}
	return err
}

func (c *combinedRun) calls(ctx context.Context, service grpc_testing.TestServiceClient, arrived func(), random *rand.Rand, options ...grpc.CallOption) error {
	size := int32(random.IntN(50_000))
	payload := &grpc_testing.Payload{Body: make([]byte, random.IntN(50_000))}
	if random.IntN(2) == 0 {
		reply, err := service.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseSize: size, Payload: payload}, options...)
		if err == nil && len(reply.GetPayload().GetBody()) != int(size) {
			err = fmt.Errorf("%d bytes instead of %d", len(reply.GetPayload().GetBody()), size)
		}
		return err
	}
	stream, err := service.FullDuplexCall(ctx, options...)
	for n := 0; err == nil && n < 4; n++ {
		err = stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: payload, ResponseParameters: []*grpc_testing.ResponseParameters{{Size: size}}})
		if err != nil && err != io.EOF { // at the end Recv has the reason
			break
		}
		reply, failed := stream.Recv()
		if err = failed; err == nil && len(reply.GetPayload().GetBody()) != int(size) {
			err = fmt.Errorf("message %d: %d bytes instead of %d", n, len(reply.GetPayload().GetBody()), size)
		}
		arrived()
	}
	if err != nil {
		return err
	}
	if err = stream.CloseSend(); err == nil {
		if _, err = stream.Recv(); err == io.EOF {
			return nil
		}
	}
	return fmt.Errorf("the end: %w", cmp.Or(err, io.ErrUnexpectedEOF))
}

// stream talks to a peer behind a listener for TCP.
func (c *combinedRun) stream(ctx context.Context, e *entrance, arrived func(), random *rand.Rand) error {
	conn, err := e.open(ctx, e.combinedClient)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * patience))
	passed := false
	if e.listener == "names" {
		e.uses(conn.LocalAddr(), conn.RemoteAddr())
		config := e.clientConfig(e.combinedClient)
		config.ServerName = []string{"ended", "again", "passed"}[random.IntN(3)] + ".example.com"
		passed = strings.HasPrefix(config.ServerName, "passed")
		conn = tls.Client(conn, config)
	}
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); line != "hello\n" {
		return fmt.Errorf("the first line is %q: %w", line, err)
	}
	arrived()
	if _, err := e.settle(nil, false, ""); err != nil && !passed {
		return err
	}
	text := combinedBody(random.IntN(1000), random.IntN(200_000))
	if err := echoes(halves{in, conn}, text, 1+random.IntN(5)); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	rest, err := io.ReadAll(in)
	if len(rest) > 0 || err != nil {
		return fmt.Errorf("after the end: %q, %w", rest, err)
	}
	return nil
}

// pipelined sends several requests of a connection at once.
func (c *combinedRun) pipelined(ctx context.Context, e *entrance, random *rand.Rand) error {
	conn, err := e.dial(ctx, e.combinedClient, protocolHTTP1)
	if err != nil {
		return err
	}
	e.uses(conn.LocalAddr(), conn.RemoteAddr())
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * patience))
	client := c.client(e.listener, "")
	var asks []combinedAsk
	var routes []*combinedRoute
	var out strings.Builder
	for n := range 4 {
		r := c.routes[random.IntN(len(c.routes)-2)]
		a := combinedAsk{path: fmt.Sprint("/", n), how: []string{withLength, inChunks}[n%2], status: 200, length: random.IntN(9000), key: random.IntN(1000)}
		asks, routes = append(asks, a), append(routes, r)
		fmt.Fprintf(&out, "GET %s%s?%s HTTP/1.1\r\nHost: a.example.com\r\n%s: %t\r\n", r.keys["path"], a.path, a.query(), isBarred, e.barred(r, c.denies(r, client)))
		for name, value := range r.header {
			fmt.Fprintf(&out, "%s: %s\r\n", name, value)
		}
		out.WriteString("\r\n")
	}
	go io.WriteString(conn, out.String())
	in := bufio.NewReader(conn)
	for n, a := range asks {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		done, standings, err := c.restricted(response, e, routes[n], c.denies(routes[n], client), http.MethodGet, fmt.Sprintf("%s%s?%s", routes[n].keys["path"], a.path, a.query()))
		switch {
		case done:
		case c.declined(response, routes[n]):
			err = c.refused(response, routes[n], http.MethodGet, response.StatusCode)
		default:
			err = c.check(response, e, standings, routes[n], a, http.MethodGet, client, "")
		}
		if err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		if response.Close {
			return nil
		}
	}
	return nil
}

func (c *combinedRun) exchange(ctx context.Context, e *entrance, arrived func(), route *combinedRoute, protocol string, random *rand.Rand) (what string, err error) {
	one := func(of ...int) int { return of[random.IntN(len(of))] }
	hows := []string{withLength, inChunks, withTrailer, early, withHints, empty, inDrops, zipped, cut, stumble, crash}
	if c.crowded && c.crashing { // their share of the reserve is for what a retry helps
		hows = hows[:len(hows)-1]
	}
	a := combinedAsk{path: fmt.Sprint("/p/", random.IntN(50)), how: hows[random.IntN(len(hows))], status: one(200, 200, 201, 404, 418, 500),
		length: one(0, 1, 900, 5_000, 20_000, 300_000), key: random.IntN(1000), id: random.Int()}
	method := []string{http.MethodGet, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPost, http.MethodPut, http.MethodDelete}[random.IntN(7)]
	request, err := http.NewRequestWithContext(e.traced(ctx), method, fmt.Sprintf("%s://a.example.com%s%s?%s", e.scheme(), route.keys["path"], a.path, a.query()), nil)
	if err != nil {
		return what, err
	}
	body, trailer := "", ""
	if method == http.MethodPost || method == http.MethodPut {
		body = combinedBody(random.IntN(1000), one(0, 10, 5_000, 30_000, 30_000, 300_000))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		request.Body, _ = request.GetBody()
		if request.ContentLength = int64(len(body)); random.IntN(2) == 0 {
			request.ContentLength = -1
			// Go's server takes a trailer on a stream that it has reset for an error of the
			// connection.
			if random.IntN(3) == 0 && a.how != early && a.how != crash && a.how != stumble {
				trailer = "of the request"
				request.Trailer = http.Header{"X-Up": {trailer}}
			}
		}
		if body != "" && random.IntN(3) == 0 {
			request.Header.Set("Expect", "100-continue")
		}
	}
	for name, value := range route.header {
		request.Header.Set(name, value)
	}
	without := route.without != 0 && random.IntN(4) == 0
	if without {
		request.Header.Del("Authorization")
		request.Header.Del("X-Pass")
	}
	defer c.authorize(request, route, without, random)()
	if random.IntN(2) == 0 {
		request.Header.Set("Te", "trailers")
	}
	request.Header.Set("Accept-Encoding", []string{"identity", "gzip", "zstd", "gzip, zstd"}[random.IntN(4)])
	mine := strconv.Itoa(random.IntN(5))
	request.Header.Set("Cookie", "mine="+mine)
	request.Header.Set("X-Client", strconv.Itoa(random.IntN(5)))
	if random.IntN(4) == 0 {
		request.Header.Set("X-Forwarded-For", "127.0.0.9")
	}
	if random.IntN(4) == 0 {
		request.Header.Set("X-Forwarded-Client-Cert", `Hash=forged;Subject="CN=good"`)
	}
	if random.IntN(4) == 0 {
		scheme := []string{"https", "http"}[random.IntN(2)]
		if request.Header.Set("X-Forwarded-Proto", scheme); c.trusting && !behindProxy(e.listener) {
			e.forwarded = scheme
		}
	}
	client := c.client(e.listener, request.Header.Get("X-Forwarded-For"))
	denied := c.denies(route, client)
	request.Header.Set(isBarred, fmt.Sprint(without || e.barred(route, denied)))
	what = fmt.Sprintf("%s %s, body %d of %d, header %v, route %s", method, request.URL, len(body), request.ContentLength, request.Header, asYAML(route.keys))
	response, err := e.clients[e.combinedClient].http[protocol].Do(request)
	if fault := (*http3.Error)(nil); a.how == cut && errors.As(err, &fault) && fault.ErrorCode == http3.ErrCodeInternalError {
		return what, nil // what was on the way is lost with the stream, also the head
	}
	if err != nil {
		return what, err
	}
	arrived()
	done, standings, err := c.restricted(response, e, route, denied, method, request.URL.RequestURI())
	if done {
		return what, err
	}
	if c.declined(response, route) {
		return what, c.refused(response, route, method, response.StatusCode)
	}
	limited := route.limited && route.status == 0 && len(body) > 20<<10
	if a.how == early || a.how == crash || a.how == stumble { // the peer may be first
		limited = limited && response.StatusCode == http.StatusRequestEntityTooLarge
	}
	switch {
	case limited && (!without || request.ContentLength > 0):
		return what, c.refused(response, route, method, http.StatusRequestEntityTooLarge)
	case without:
		return what, c.refused(response, route, method, route.without)
	case route.status != 0:
	case a.how == crash, a.how == cut && response.StatusCode == http.StatusBadGateway,
		a.how == stumble && response.StatusCode == http.StatusBadGateway && !(c.crashing && body == "" && method != http.MethodPost && method != http.MethodPut):
		return what, c.refused(response, route, method, http.StatusBadGateway)
	case a.how == cut && !(route.page && a.status == http.StatusNotFound):
		defer response.Body.Close()
		if got, err := io.ReadAll(response.Body); err == nil && method != http.MethodHead && a.length > 0 {
			return what, fmt.Errorf("the body ends after %d bytes, but nothing says that it is cut: %s, header %v", len(got), response.Status, response.Header)
		}
		return what, nil
	}
	if err := c.check(response, e, standings, route, a, method, client, combinedSum([]byte(body))); err != nil {
		return what, err
	}
	if response.Request.Header.Get("Te") != "" && a.how == withTrailer && method != http.MethodHead && route.status == 0 && !(route.page && a.status == 404) {
		if got, want := response.Trailer.Get("X-Sum"), combinedSum([]byte(combinedBody(a.key, a.length))); got != want {
			return what, fmt.Errorf("trailer %q instead of %q, header %v", got, want, response.Header)
		}
	}
	if got := response.Header.Get("Got-Mine"); got != mine && route.status == 0 {
		return what, fmt.Errorf("the peer got the cookie %q instead of %q", got, mine)
	}
	if got := response.Header.Get("Got-Trailer"); got != trailer && a.how != early && route.status == 0 {
		return what, fmt.Errorf("the peer got the trailer %q instead of %q", got, trailer)
	}
	return what, nil
}

// leave sends a request, and does not wait for the end of the answer.
func (c *combinedRun) leave(ctx context.Context, e *entrance, route *combinedRoute, protocol string, random *rand.Rand) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := combinedAsk{how: inDrops, status: http.StatusOK, length: 300_000}
	method, body := http.MethodGet, io.Reader(nil)
	if random.IntN(2) == 0 {
		method, body = http.MethodPost, io.MultiReader(strings.NewReader(combinedBody(0, random.IntN(100_000))), leaving(cancel))
	}
	request, err := http.NewRequestWithContext(e.traced(ctx), method, fmt.Sprintf("%s://a.example.com%s/left?%s", e.scheme(), route.keys["path"], a.query()), body)
	if err != nil {
		return err
	}
	for name, value := range route.header {
		request.Header.Set(name, value)
	}
	denied := c.denies(route, c.client(e.listener, ""))
	request.Header.Set(isBarred, fmt.Sprint(e.barred(route, denied)))
	response, err := e.clients[e.combinedClient].http[protocol].Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	if _, err := e.settle(route, denied, outcomeOf(response)); err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, response.Body, int64(random.IntN(200_000)))
	if response.StatusCode >= 500 && !c.declined(response, route) {
		return fmt.Errorf("got %s, header %v", response.Status, response.Header)
	}
	return nil
}

// leaving is a body whose client leaves in place of its end.
type leaving context.CancelFunc

func (l leaving) Read([]byte) (int, error) { l(); return 0, context.Canceled }

// preflight asks whether a page of another origin may use a route.
func (c *combinedRun) preflight(ctx context.Context, e *entrance, route *combinedRoute, protocol string) error {
	request, err := http.NewRequestWithContext(e.traced(ctx), http.MethodOptions, fmt.Sprintf("%s://a.example.com%s", e.scheme(), route.keys["path"]), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Origin", "https://a.example.com")
	request.Header.Set("Access-Control-Request-Method", "GET")
	request.Header.Set(isBarred, "false") // which conditions ask for: see addressed
	response, err := e.clients[e.combinedClient].http[protocol].Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	status, reason := http.StatusNoContent, ""
	if c.denies(route, c.client(e.listener, "")) {
		status, reason = http.StatusForbidden, "client_denied"
	}
	outcome := strings.TrimPrefix(outcomeOf(response), reason)
	if _, err := e.settle(nil, false, outcome); err != nil || outcome != "" {
		return err
	}
	if response.StatusCode != status || response.Header.Get("Access-Control-Allow-Origin") == "" {
		return fmt.Errorf("got %s instead of %d, header %v", response.Status, status, response.Header)
	}
	return nil
}
