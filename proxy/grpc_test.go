package proxy

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/observe/metrics"
	"sluice/proxy/http1"
	"sluice/route"
	"sluice/test/verify"
)

// A grpcOrigin is grpc-go's server. Calls of EmptyCall last until their context ends.
type grpcOrigin struct {
	grpc_testing.UnimplementedTestServiceServer
	address string
	server  *grpc.Server
	waiting atomic.Int64 // calls of EmptyCall
	calls   atomic.Int64 // of UnaryCall
}

func startGRPCOrigin(t *testing.T) *grpcOrigin {
	t.Helper()
	l := listen(t)
	o := &grpcOrigin{address: l.Addr().String(), server: grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))}
	grpc_testing.RegisterTestServiceServer(o.server, o)
	served := make(chan error, 1)
	go func() { served <- o.server.Serve(l) }()
	t.Cleanup(func() {
		o.server.Stop()
		verify.Succeeds(t, <-served)
	})
	return o
}

func (o *grpcOrigin) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	o.waiting.Add(1)
	defer o.waiting.Add(-1)
	<-ctx.Done()
	return nil, ctx.Err()
}

// UnaryCall answers with the requested status, or as many bytes as requested. It repeats the
// metadata x_under-bin as header and trailer.
func (o *grpcOrigin) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	o.calls.Add(1)
	md, _ := metadata.FromIncomingContext(ctx)
	for _, value := range md["x_under-bin"] {
		grpc.SetHeader(ctx, metadata.Pairs("x_under-bin", value))
		grpc.SetTrailer(ctx, metadata.Pairs("x_under-bin", value))
	}
	if s := in.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	return &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: make([]byte, in.ResponseSize)}}, nil
}

// FullDuplexCall repeats each message.
func (o *grpcOrigin) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.Payload}); err != nil {
			return err
		}
	}
}

// startGRPC serves calls from the peers at addresses.
func startGRPC(t *testing.T, addresses ...string) (*testProxy, grpc_testing.TestServiceClient) {
	t.Helper()
	p := startProxyToH2C(t, addresses...)
	p.setService(route.Service{Timeouts: route.Timeouts{Idle: patience, Tunnel: patience}, Retry: route.Retry{Attempts: 3}})
	return p, dialGRPC(t, p.address)
}

func dialGRPC(t *testing.T, address string) grpc_testing.TestServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)), grpc.WithDisableRetry())
	verify.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

func patientContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func unary(requestBytes, responseBytes int) *grpc_testing.SimpleRequest {
	return &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, requestBytes)}, ResponseSize: int32(responseBytes)}
}

// A client of gRPC and a peer understand each other through sluice: messages of any length,
// metadata, statuses, and streams.
func TestGRPC(t *testing.T) {
	t.Parallel()
	p, client := startGRPC(t, startGRPCOrigin(t).address)
	ctx := metadata.AppendToOutgoingContext(patientContext(t), "x_under-bin", "\x00\xff")
	for _, bytes := range []int{0, 1, 10_000, 60_000, 3_000_000} {
		for _, option := range []grpc.CallOption{grpc.EmptyCallOption{}, grpc.UseCompressor(gzip.Name)} {
			var header, trailer metadata.MD
			got, err := client.UnaryCall(ctx, unary(bytes, bytes), option, grpc.Header(&header), grpc.Trailer(&trailer))
			verify.That(t, err == nil && len(got.Payload.Body) == bytes, "%d bytes: %v", bytes, err)
			for name, md := range map[string]metadata.MD{"header": header, "trailer": trailer} {
				verify.Slices(t, md["x_under-bin"], []string{"\x00\xff"}, "%d bytes: metadata in the %s", bytes, name)
			}
		}
	}
	stream := verify.Result(client.FullDuplexCall(ctx)).Must(t)
	for _, word := range []string{"", "a", strings.Repeat("b", 100_000)} {
		echoesWord(t, stream, word)
	}
	endStream(t, stream)
	p.expectNothingCounted()
}

type duplex = grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]

// echoesWord sends word and expects it back.
func echoesWord(t *testing.T, stream duplex, word string) {
	t.Helper()
	verify.NoError(t, stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(word)}}))
	got, err := stream.Recv()
	verify.Require(t, err == nil && string(got.Payload.Body) == word, "got %d bytes, %v", len(got.GetPayload().GetBody()), err)
}

// endStream ends a stream, and expects the peer's end.
func endStream(t *testing.T, stream duplex) {
	t.Helper()
	stream.CloseSend()
	_, err := stream.Recv()
	verify.That(t, err == io.EOF, "the stream ends with %v", err)
}

// A draining peer keeps its streams until they end, and gets no new ones.
func TestGRPCDrain(t *testing.T) {
	t.Parallel()
	first, second := startGRPCOrigin(t), startGRPCOrigin(t)
	p, client := startGRPC(t, first.address)
	stream := verify.Result(client.FullDuplexCall(patientContext(t))).Must(t)
	echoesWord(t, stream, "a")
	draining := p.onlyConnector()
	p.setPeers(second.address)
	for range 20 {
		echoesWord(t, stream, "b")
		_, err := client.UnaryCall(patientContext(t), unary(10, 10))
		verify.Succeeds(t, err)
	}
	endStream(t, stream)
	eventually(t, "the connection is closed", func() bool {
		idle, busy := draining.Connections()
		return idle+busy == 0
	})
	a, b := first.calls.Load(), second.calls.Load()
	verify.That(t, a == 0 && b == 20, "%d calls at the draining peer, %d at the new one", a, b)
}

// The deadline of grpc-timeout ends a call with a status, before a response and within it, also if
// the peer knows no deadline. That is no failure of the peer: the client has chosen the time.
func TestGRPCDeadline(t *testing.T) {
	t.Parallel()
	origin := startGRPCOrigin(t)
	for name, address := range map[string]string{
		"before the response": startFramePeer(t, func(*framePeer, uint32) {}),
		"within the response": startFramePeer(t, func(peer *framePeer, stream uint32) {
			peer.headers(stream, false, ":status", "200", "content-type", "application/grpc")
			peer.WriteData(stream, false, make([]byte, 5))
		}),
		"of a peer that may end the call first": origin.address,
	} {
		for _, ends := range []bool{false, true} {
			p, _ := startGRPC(t, address)
			c := p.dialFrames()
			var r http2Response
			for id, timeout := uint32(1), 100; id == 1 || name == "within the response" && r.trailer == nil && timeout < 10_000; id, timeout = id+2, 2*timeout {
				// On a slow machine it may be over before the response begins.
				c.request(id, fmt.Sprintf("%s|grpc-timeout=%dm", grpcEmptyCall, timeout), false)
				c.WriteData(id, ends, make([]byte, 5)) // a message without bytes
				r = c.response(id)
			}
			verify.That(t, r.status == "200" && r.ended && r.grpc("grpc-status") == "4" && (address == origin.address || r.grpc("x-sluice-reason") == "grpc_timeout"),
				"%s, ends %v: got %+v", name, ends, r)
			verify.That(t, name != "within the response" || r.trailer != nil, "ends %v: no response began", ends)
			eventually(t, "the call ends", func() bool { return origin.waiting.Load() == 0 && p.inflight() == 0 })
			p.expectNothingCounted()
		}
	}
}

// grpc returns a field of the trailer section, or of a response that is nothing but one.
func (r *http2Response) grpc(name string) string { return cmp.Or(r.trailer[name], r.header[name]) }

// It ends the wait for an authentication server too, which is not to blame.
func TestGRPCDeadlineWithinAuth(t *testing.T) {
	t.Parallel()
	p, _ := startGRPC(t)
	asks := asking(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: &route.Actions{ForwardAuth: asks}})
	c := p.dialFrames()
	r := c.ask(1, grpcPost+"|grpc-timeout=100m")
	verify.That(t, r.header["grpc-status"] == "4" && r.header["x-sluice-reason"] == "grpc_timeout", "got %+v", r)
}

// A peer that resets a call after its deadline is not to blame.
func TestGRPCResetAfterDeadline(t *testing.T) {
	x := &newExchange().tries
	x.request.client = new(client)
	verify.Equal(t, x.waitResult(io.ErrUnexpectedEOF), waitBroken, "without a deadline")
	x.request.deadline = time.Now()
	verify.Equal(t, x.waitResult(io.ErrUnexpectedEOF), waitTimeout, "after the deadline")
	verify.Equal(t, x.waitResult(http1.ErrResponse), waitBroken, "a malformed response after the deadline")
}

const (
	grpcPost      = http2Post + grpcFields
	grpcFields    = "|content-type=application/grpc|te=trailers"
	grpcEmptyCall = http2Post + "grpc.testing.TestService/EmptyCall" + grpcFields
)

// sluice's own answers are statuses of gRPC.
func TestGRPCRefusals(t *testing.T) {
	t.Parallel()
	p, client := startGRPC(t)
	_, err := client.UnaryCall(patientContext(t), unary(0, 0))
	s := status.Convert(err)
	verify.That(t, s.Code() == codes.Unavailable && s.Message() == "the service has no instances", "no peers: %v", err)
	c, id := p.dialFrames(), uint32(1)
	refuse := func(fields string, ends bool, status, code, reason string) {
		t.Helper()
		c.request(id, fields, ends)
		r := c.response(id)
		verify.That(t, r.status == status && r.header["grpc-status"] == code && r.header["x-sluice-reason"] == reason && r.ended, "stream %d: got %+v", id, r)
		isGRPC := r.header["content-type"] == "application/grpc" && r.header["content-length"] == "" && r.body == ""
		verify.Equal(t, isGRPC, code != "", "stream %d: got %+v: of gRPC", id, r)
		if !ends {
			c.expectReset(id, xhttp2.ErrCodeNo)
		}
		id += 2
	}
	refuse(grpcPost, true, "200", "14", "no_peers")
	refuse(grpcPost, false, "200", "14", "no_peers")
	p.setRoutes(route.Route{Path: "/elsewhere", Service: p.service})
	refuse(grpcPost, true, "200", "12", "no_route")
	for fields, reason := range map[string]string{
		strings.Repeat("|x="+strings.Repeat("v", 3900), 5): "head_too_long",
		"|y=" + strings.Repeat("v", 16<<10):                "head_too_long",
		strings.Repeat("|x=1", 101):                        "too_many_fields",
	} {
		refuse(grpcPost+fields, true, "200", "8", reason)
		refuse(strings.Replace(grpcPost, "|content-type=", fields+"|content-type=", 1), true, "200", "8", reason)
	}
	refuse(http2Post+"|content-type=application/grpc-web", true, "404", "", "no_route")
}

// A call gets no page: neither in place of an answer of sluice's own, nor of what a peer says that
// does not know gRPC.
func TestGRPCGetsNoPages(t *testing.T) {
	t.Parallel()
	p, _ := startGRPC(t, startFramePeer(t, func(peer *framePeer, stream uint32) {
		peer.headers(stream, false, ":status", "503", "content-type", "text/plain")
		peer.WriteData(stream, true, []byte("peer"))
	}))
	pages := route.ErrorPages{pageOf(t, "4xx,5xx", "page", true)}
	p.setRoutes(
		route.Route{Path: "/", Service: p.service, Actions: &route.Actions{ErrorPages: pages}},
		route.Route{Path: "/denied", Service: p.service, Actions: &route.Actions{ErrorPages: pages, Access: access("", "127.0.0.0/8")}},
	)
	c := p.dialFrames()
	r := c.ask(1, grpcPost)
	verify.That(t, r.status == "503" && r.body == "peer" && r.header["x-sluice-reason"] == "", "the peer's answer: got %+v", r)
	r = c.ask(3, strings.Replace(grpcPost, ":path=/", ":path=/denied", 1))
	verify.That(t, r.status == "200" && r.header["grpc-status"] == "7" && r.body == "", "sluice's own answer: got %+v", r)
}

// What a peer says in grpc-status is its outcome. Without a message, that is the head of the
// answer, and may be as long as trailers are.
func TestGRPCOutcomes(t *testing.T) {
	t.Parallel()
	origin := startGRPCOrigin(t)
	p, client := startGRPC(t, origin.address)
	peer := p.pool.Snapshot().All[0]
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		before := peer.Failures()
		request, message := unary(0, 0), ""
		if code != codes.OK {
			message = "100 % é\n" + strings.Repeat("d", 2560*int(code))
			request.ResponseStatus = &grpc_testing.EchoStatus{Code: int32(code), Message: message}
		}
		_, err := client.UnaryCall(t.Context(), request)
		s := status.Convert(err)
		verify.That(t, s.Code() == code && s.Message() == message, "%v: got %v", code, err)
		eventually(t, "the call has ended", func() bool { return p.inflight() == 0 })
		want := code == codes.Unknown || code == codes.DeadlineExceeded || code == codes.Internal || code == codes.Unavailable || code == codes.DataLoss
		verify.Equal(t, peer.Failures() > before, want, "%v: failure", code)
	}
	var counted metrics.RequestsSnapshot
	eventually(t, "all calls are counted", func() bool {
		counted = p.pool.Requests.Snapshot()
		calls := uint64(0)
		for _, n := range counted.GRPC {
			calls += n
		}
		return min(calls, counted.Total()) == uint64(codes.Unauthenticated)+1
	})
	for code, n := range counted.GRPC {
		verify.That(t, n == 1, "%v: counted %d times", codes.Code(code), n)
	}
	for class, want := range map[metrics.Class]uint64{metrics.Class2xx: 1, metrics.Class4xx: 9, metrics.Class5xx: 6, metrics.ClassAborted: 1} {
		verify.Equal(t, counted.Class(class), want, "requests are counted as %v", class)
	}
}

// A stream that breaks off ends with a status, and is a failure of the peer.
func TestGRPCPeerBreaksOff(t *testing.T) {
	t.Parallel()
	address := startFramePeer(t, func(peer *framePeer, stream uint32) {
		peer.headers(stream, false, ":status", "200", "content-type", "application/grpc")
		peer.WriteData(stream, false, []byte{0, 0, 0, 0, 0})
		peer.WriteRSTStream(stream, 2)
	})
	p, _ := startGRPC(t, address)
	r := p.dialFrames().ask(1, grpcPost)
	verify.That(t, r.grpc("grpc-status") == "14" && r.ended, "got %+v", r)
}

// A peer may take nothing of a stream for as long as it may be silent in it.
func TestGRPCPeerThatTakesNothing(t *testing.T) {
	t.Parallel()
	var taken atomic.Int64
	peers := make(chan *framePeer, 1)
	p, _ := startGRPC(t, startFramePeerWith(t, framePeerOptions{
		settings: []xhttp2.Setting{{ID: xhttp2.SettingInitialWindowSize, Val: 10}},
		answer:   func(peer *framePeer, _ uint32) { peers <- peer },
		frame: func(peer *framePeer, frame xhttp2.Frame) {
			if data, ok := frame.(*xhttp2.DataFrame); ok && taken.Add(int64(data.Length)) == 20 {
				peer.headers(data.StreamID, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")
			}
		},
	}))
	p.setService(route.Service{Timeouts: route.Timeouts{Idle: 100 * time.Millisecond, Tunnel: time.Hour}, Retry: route.Retry{Attempts: 1}})
	c := p.dialFrames()
	c.request(1, grpcPost, false)
	c.WriteData(1, false, make([]byte, 20))
	eventually(t, "the window is used up", func() bool { return taken.Load() == 10 })
	p.skip(2 * time.Second)
	xhttp2.NewFramer((<-peers).Conn, nil).WriteWindowUpdate(1, 10)
	r := c.response(1)
	verify.That(t, r.header["grpc-status"] == "0" && r.ended, "got %+v", r)
}
