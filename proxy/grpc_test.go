package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/proxy/http1"
	"sluice/route"
	"sluice/route/auth"
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

func (o *grpcOrigin) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	for _, p := range in.ResponseParameters {
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	return nil
}

func (o *grpcOrigin) StreamingInputCall(stream grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	sum := int32(0)
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: sum})
		}
		if err != nil {
			return err
		}
		sum += int32(len(in.Payload.Body))
	}
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
	timeouts := patientTimeouts()
	timeouts.Tunnel = patience
	p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 3}})
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

func TestGRPCUnary(t *testing.T) {
	t.Parallel()
	p, client := startGRPC(t, startGRPCOrigin(t).address)
	for _, bytes := range []int{0, 1, 10_000, 60_000, 3_000_000} {
		for _, option := range []grpc.CallOption{grpc.EmptyCallOption{}, grpc.UseCompressor(gzip.Name)} {
			got, err := client.UnaryCall(patientContext(t), unary(bytes, bytes), option)
			verify.That(t, err == nil && len(got.Payload.Body) == bytes, "%d bytes: %v", bytes, err)
		}
	}
	p.expectNothingCounted()
}

func TestGRPCMetadata(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, startGRPCOrigin(t).address)
	var header, trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(patientContext(t), "x_under-bin", "\x00\xff")
	request := unary(0, 0)
	request.ResponseStatus = &grpc_testing.EchoStatus{Code: int32(codes.NotFound), Message: "100 % é\n"}
	_, err := client.UnaryCall(ctx, request, grpc.Header(&header), grpc.Trailer(&trailer))
	s := status.Convert(err)
	verify.That(t, s.Code() == codes.NotFound && s.Message() == "100 % é\n", "got %v", err)
	got := append(header["x_under-bin"], trailer["x_under-bin"]...)
	verify.That(t, len(got) != 0 && got[0] == "\x00\xff", "header %v, trailer %v", header, trailer)
	_, err = client.UnaryCall(ctx, unary(0, 1), grpc.Header(&header), grpc.Trailer(&trailer))
	verify.Succeeds(t, err)
	verify.That(t, len(header["x_under-bin"]) == 1 && len(trailer["x_under-bin"]) == 1, "header %v, trailer %v", header, trailer)
}

func TestGRPCStreams(t *testing.T) {
	t.Parallel()
	p, client := startGRPC(t, startGRPCOrigin(t).address)
	ctx := patientContext(t)

	up := verify.Result(client.StreamingInputCall(ctx)).Must(t)
	for range 50 {
		up.Send(&grpc_testing.StreamingInputCallRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 10_000)}})
	}
	sum, err := up.CloseAndRecv()
	verify.That(t, err == nil && sum.AggregatedPayloadSize == 500_000, "client streaming: %v, %v", sum, err)

	parameters := make([]*grpc_testing.ResponseParameters, 50)
	for i := range parameters {
		parameters[i] = &grpc_testing.ResponseParameters{Size: int32(i * 1000)}
	}
	down := verify.Result(client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{ResponseParameters: parameters})).Must(t)
	for i := range parameters {
		got, err := down.Recv()
		verify.Require(t, err == nil && len(got.Payload.Body) == i*1000, "server streaming: message %d: %v", i, err)
	}
	_, err = down.Recv()
	verify.That(t, err == io.EOF, "server streaming ends with %v", err)

	talk := verify.Result(client.FullDuplexCall(ctx)).Must(t)
	for _, word := range []string{"", "a", strings.Repeat("b", 100_000)} {
		exchange(t, talk, word)
	}
	talk.CloseSend()
	_, err = talk.Recv()
	verify.That(t, err == io.EOF, "bidi streaming ends with %v", err)
	p.expectNothingCounted()
}

type duplex = grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]

// exchange sends word and expects it back.
func exchange(t *testing.T, stream duplex, word string) {
	t.Helper()
	verify.NoError(t, stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(word)}}))
	got, err := stream.Recv()
	verify.Require(t, err == nil && string(got.Payload.Body) == word, "got %d bytes, %v", len(got.GetPayload().GetBody()), err)
}

// The end of a client's wait reaches the peer, and is no failure of the peer.
func TestGRPCCancel(t *testing.T) {
	t.Parallel()
	origin := startGRPCOrigin(t)
	p, client := startGRPC(t, origin.address)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := client.EmptyCall(ctx, new(grpc_testing.Empty))
		failed <- err
	}()
	eventually(t, "the call is at the peer", func() bool { return origin.waiting.Load() == 1 })
	cancel()
	verify.Equal(t, status.Code(<-failed), codes.Canceled, "status.Code(<-failed)")
	eventually(t, "the call ends", func() bool { return origin.waiting.Load() == 0 && p.inflight() == 0 })
	p.expectNothingCounted()
}

// A draining peer keeps its streams, and gets no new ones.
func TestGRPCDrain(t *testing.T) {
	t.Parallel()
	first, second := startGRPCOrigin(t), startGRPCOrigin(t)
	p, client := startGRPC(t, first.address)
	stream := verify.Result(client.FullDuplexCall(patientContext(t))).Must(t)
	exchange(t, stream, "a")
	p.setPeers(second.address)
	for range 20 {
		exchange(t, stream, "b")
		_, err := client.UnaryCall(patientContext(t), unary(10, 10))
		verify.Succeeds(t, err)
	}
	stream.CloseSend()
	_, err := stream.Recv()
	verify.That(t, err == io.EOF, "the stream ends with %v", err)
	a, b := first.calls.Load(), second.calls.Load()
	verify.That(t, a == 0 && b == 20, "%d calls at the draining peer, %d at the new one", a, b)
}

// The deadline of grpc-timeout ends a call with a status if the peer is silent, before its
// response and within it. That is no failure of the peer: the client has chosen the time.
func TestGRPCDeadlineOfSilentPeer(t *testing.T) {
	t.Parallel()
	for _, answers := range []bool{false, true} {
		for _, ends := range []bool{false, true} {
			address := startFramePeer(t, func(peer *framePeer, stream uint32) {
				if answers {
					peer.headers(stream, false, ":status", "200", "content-type", "application/grpc")
					peer.WriteData(stream, false, make([]byte, 5))
				}
			})
			p, _ := startGRPC(t, address)
			c := p.dialFrames()
			var r http2Response
			for id, timeout := uint32(1), 100; id == 1 || answers && r.trailer == nil && timeout < 10_000; id, timeout = id+2, 2*timeout {
				// On a slow machine it may be over before the response begins.
				c.request(id, fmt.Sprintf("%s|grpc-timeout=%dm", grpcPost, timeout), false)
				c.WriteData(id, ends, make([]byte, 5))
				r = c.response(id)
			}
			got := r.header
			if answers {
				got = r.trailer
			}
			verify.That(t, r.status == "200" && r.ended && got["grpc-status"] == "4" && got["x-sluice-reason"] == "grpc_timeout", "answers %v, ends %v: got %+v", answers, ends, r)
			p.expectNothingCounted()
		}
	}
}

// It ends the wait for an authentication server too, which is not to blame.
func TestGRPCDeadlineWithinAuth(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	p, _ := startGRPC(t)
	f := auth.NewForward(verify.URL(t, server.URL), patience, nil)
	t.Cleanup(f.Close)
	p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: &route.Actions{ForwardAuth: &route.ForwardAuth{Forward: f}}})
	c := p.dialFrames()
	c.request(1, grpcPost+"|grpc-timeout=100m", true)
	r := c.response(1)
	verify.That(t, r.header["grpc-status"] == "4" && r.header["x-sluice-reason"] == "grpc_timeout", "got %+v", r)
}

// A peer that resets a call after its deadline is not to blame.
func TestGRPCResetAfterDeadline(t *testing.T) {
	x := new(sentRequest)
	x.client = new(client)
	verify.Equal(t, x.wakeOf(io.ErrUnexpectedEOF), wakeBroken, "without a deadline")
	x.deadline = time.Now()
	verify.Equal(t, x.wakeOf(io.ErrUnexpectedEOF), wakeDeadline, "after the deadline")
	verify.Equal(t, x.wakeOf(http1.ErrResponse), wakeBroken, "a malformed response after the deadline")
}

// A peer that knows the deadline may be the first that ends the call.
func TestGRPCDeadline(t *testing.T) {
	t.Parallel()
	for _, ends := range []bool{true, false} {
		origin := startGRPCOrigin(t)
		p, _ := startGRPC(t, origin.address)
		c := p.dialFrames()
		c.request(1, grpcEmptyCall+"|grpc-timeout=100m", false)
		c.WriteData(1, ends, make([]byte, 5)) // a message without bytes
		r := c.response(1)
		got := r.header
		if r.trailer != nil {
			got = r.trailer
		}
		verify.That(t, got["grpc-status"] == "4" && r.status == "200", "got %+v", r)
		eventually(t, "the call ends", func() bool { return origin.waiting.Load() == 0 && p.inflight() == 0 })
		p.expectNothingCounted()
	}
}

const (
	grpcPost      = http2Post + grpcFields
	grpcService   = ":method=POST|:scheme=http|:authority=a|:path=/grpc.testing.TestService/"
	grpcFields    = "|content-type=application/grpc|te=trailers"
	grpcEmptyCall = grpcService + "EmptyCall" + grpcFields
	grpcUnaryCall = grpcService + "UnaryCall" + grpcFields
)

// sluice's own answers are statuses of gRPC.
func TestGRPCRefusals(t *testing.T) {
	t.Parallel()
	p, client := startGRPC(t)
	var header metadata.MD
	_, err := client.UnaryCall(patientContext(t), unary(0, 0), grpc.Header(&header), grpc.Trailer(&header))
	s := status.Convert(err)
	verify.That(t, s.Code() == codes.Unavailable && s.Message() == "the service has no instances", "no peers: %v", err)
	got := header["x-sluice-reason"]
	verify.That(t, len(got) == 1 && got[0] == "no_peers", "reason %q", got)

	stream, err := client.FullDuplexCall(patientContext(t))
	if err == nil {
		_, err = stream.Recv()
	}
	verify.Equal(t, status.Code(err), codes.Unavailable, "no peers, stream: %v", err)

	p.setRoutes(route.Route{Path: "/elsewhere", Service: p.service})
	_, err = client.UnaryCall(patientContext(t), unary(0, 0))
	verify.That(t, status.Code(err) == codes.Unimplemented, "no route: %v", err)

	c := p.dialFrames()
	c.request(1, grpcPost, true)
	r := c.response(1)
	verify.That(t, r.status == "200" && r.header["grpc-status"] == "12" && r.body == "" && r.ended && r.header["content-type"] == "application/grpc" && r.header["content-length"] == "", "got %+v", r)
	for i, fields := range []string{
		strings.Repeat("|x="+strings.Repeat("v", 3900), 5), // too long for a buffer
		strings.Repeat("|x=1", 101),                        // too many
		"|y=" + strings.Repeat("v", 16<<10),                // in one field
	} {
		for j, call := range []string{grpcPost + fields, strings.Replace(grpcPost, "|content-type=", fields+"|content-type=", 1)} {
			id := uint32(101 + 4*i + 2*j)
			c.request(id, call, true)
			r := c.response(id)
			verify.That(t, r.status == "200" && r.header["grpc-status"] == "8" && r.ended, "stream %d, a head that is too long: got %+v", id, r)
		}
	}
	c.request(203, http2Post+"|content-type=application/grpc-web", true)
	r = c.response(203)
	verify.That(t, r.status == "404", "gRPC-Web: got %+v", r)
}

// What a peer says in grpc-status is its outcome.
func TestGRPCOutcomes(t *testing.T) {
	t.Parallel()
	origin := startGRPCOrigin(t)
	p, client := startGRPC(t, origin.address)
	failures := func() (n uint64) {
		for class, count := range p.pool.Snapshot().All[0].Outcomes() {
			if balancer.OutcomeClass(class).Failure() {
				n += count
			}
		}
		return n
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		before := failures()
		request := unary(0, 0)
		if code != codes.OK {
			request.ResponseStatus = &grpc_testing.EchoStatus{Code: int32(code)}
		}
		_, err := client.UnaryCall(t.Context(), request)
		verify.That(t, status.Code(err) == code, "%v: got %v", code, err)
		eventually(t, "the call has ended", func() bool { return p.inflight() == 0 })
		want := code == codes.Unknown || code == codes.DeadlineExceeded || code == codes.Internal || code == codes.Unavailable || code == codes.DataLoss
		verify.Equal(t, failures() > before, want, "%v: failure", code)
	}
	var counted metrics.RequestsSnapshot
	eventually(t, "all calls are counted", func() bool {
		counted = p.pool.Requests().Snapshot()
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
	c := p.dialFrames()
	c.request(1, grpcPost, true)
	r := c.response(1)
	got := bytes.Join([][]byte{[]byte(r.header["grpc-status"]), []byte(r.trailer["grpc-status"])}, nil)
	verify.That(t, string(got) == "14" && r.ended, "got %+v", r)
}

// A unary call that the peer has not processed is sent again with its body.
func TestGRPCUnprocessedCallIsSentAgain(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(p *framePeer, stream uint32){
		"REFUSED_STREAM": func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, xhttp2.ErrCodeRefusedStream) },
		"GOAWAY":         func(p *framePeer, stream uint32) { p.WriteGoAway(stream-1, xhttp2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var refused atomic.Int64
			address := startFramePeer(t, func(peer *framePeer, stream uint32) {
				refused.Add(1)
				refuse(peer, stream)
			})
			origin := startGRPCOrigin(t)
			p, _ := startGRPC(t, address, origin.address)
			c := p.dialFrames()
			for id := uint32(1); id < 9; id += 2 {
				// In one segment, so that the whole request arrives at once.
				var segment bytes.Buffer
				framer := xhttp2.NewFramer(&segment, nil)
				framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(grpcUnaryCall), EndHeaders: true})
				framer.WriteData(id, true, make([]byte, 5)) // a message without bytes
				c.conn.Write(segment.Bytes())
				r := c.response(id)
				verify.That(t, r.header["grpc-status"]+r.trailer["grpc-status"] == "0", "got %+v", r)
			}
			verify.That(t, refused.Load() != 0 && origin.calls.Load() == 4, "%d refused, %d served", refused.Load(), origin.calls.Load())
		})
	}
}

// A stream whose client sends nothing at first reaches the peer.
func TestGRPCStreamWithoutMessage(t *testing.T) {
	t.Parallel()
	p, _ := startGRPC(t, startFramePeer(t, func(peer *framePeer, stream uint32) {
		peer.headers(stream, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")
	}))
	c := p.dialFrames()
	c.request(1, grpcPost, false)
	r := c.response(1)
	verify.That(t, r.header["grpc-status"] == "0" && r.ended, "got %+v", r)
}
