package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"

	"sluice/test/long"
	"sluice/test/sluicetest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A new process takes over ten times, under load with HTTPS and HTTP/2 with and without TLS, each
// on persistent and on new connections, and with unary calls and streams of gRPC. Nothing is lost;
// streams that are open when an upgrade begins go on in the old process, which ends with the last
// of them.
func TestReplaceUnderLoadOfAllProtocols(t *testing.T) {
	t.Parallel()
	long.Test(t)
	const upgrades = 10
	secure := freeAddress(t)
	files := testcert.Write(t, t.TempDir(), "sluice.test")
	s := startListening(t, fmt.Sprintf(", { name: websecure, address: %q, tls: { certificates: [{ cert: %q, key: %q }] } }", secure, files.Cert, files.Key),
		fmt.Sprintf("shutdown: { grace: 1h }\nservices:\n  star: { peers: [%q] }\n  calls: { peers: [%q], upstream: { protocol: h2c } }\n"+
			"routes: [{ path: /grpc.testing.TestService, service: calls }, { service: star }]\n",
			serveHandler(t, repeats), startEcho(t)))
	trust := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "sluice.test"}
	pem := verify.Result(os.ReadFile(files.Cert)).Must(t)
	verify.Require(t, trust.RootCAs.AppendCertsFromPEM(pem), "the certificate cannot be read")

	dialTLS := func(protocol string) func(context.Context) (net.Conn, error) {
		config := trust.Clone()
		config.NextProtos = []string{protocol}
		return func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", secure)
		}
	}
	dialPlain := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.address)
	}
	var loads []*load
	// Nobody repeats a request whose body can be read once; net/http would repeat others.
	once := func(text string) io.Reader { return bufio.NewReader(strings.NewReader(text)) }
	again := func(text string) io.Reader { return strings.NewReader(text) }
	all := func(on http.RoundTripper) func() http.RoundTripper { return func() http.RoundTripper { return on } }
	for _, with := range []struct {
		on   func() http.RoundTripper // of the next client
		body func(string) io.Reader
	}{
		// A client that shared its connections would not know how long one was idle: see
		// shutdownIdle.
		{func() http.RoundTripper {
			return &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialTLS("http/1.1")(ctx) }}
		}, once},
		{all(&sluicetest.HTTP2{Dial: dialTLS("h2")}), again},
		{all(&sluicetest.HTTP2{Dial: dialPlain}), again},
	} {
		const clients = 4
		loads = append(loads, startLoadOn(t, clients, func(i int) (http.RoundTripper, bool) { return with.on(), i > 0 }, func(number int) (*http.Request, string) {
			r, _ := http.NewRequest(http.MethodPost, "https://"+secure, with.body("body"))
			r.Close = number%clients == 0 // on a new connection
			return r, "bodyok"
		}))
	}
	clients := []grpc_testing.TestServiceClient{
		dialGRPC(t, s.address, insecure.NewCredentials()),
		dialGRPC(t, secure, credentials.NewTLS(trust)),
	}
	for _, client := range clients {
		loads = append(loads,
			startCalls(t, 4, func(ctx context.Context) error { return unaryCall(ctx, client) }),
			startCalls(t, 2, func(ctx context.Context) error { return shortStream(ctx, client) }))
	}
	more := func() {
		for _, l := range loads {
			l.more(10)
		}
	}

	for range upgrades {
		more()
		var open []*echoStream
		for _, client := range clients {
			open = append(open, verify.Result(openStream(t.Context(), client)).Must(t))
		}
		old := s.pid
		s.signal(syscall.SIGUSR2)
		s.pid = awaitPID(t, s.pidFile, old)
		more()
		for _, stream := range open {
			verify.Succeeds(t, errors.Join(stream.echo("still there"), stream.close()))
		}
		s.awaitEnd(old) // long before its grace
	}
	more()
	served := int64(0)
	for _, l := range loads {
		l.stop()
		served += l.served.Load()
	}
	t.Logf("%d upgrades, %d requests", upgrades, served)
	s.end()
}

// startCalls starts goroutines that make one call after the other. A call that fails fails t.
func startCalls(t *testing.T, clients int, call func(context.Context) error) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, cancel: cancel}
	for range clients {
		l.ended.Go(func() {
			pace := time.Tick(4 * time.Millisecond)
			for {
				select {
				case <-ctx.Done():
					return
				case <-pace:
				}
				patient, cancel := context.WithTimeout(context.Background(), lostRequest)
				if err := call(patient); err != nil {
					t.Errorf("call: %v", err)
				} else {
					l.served.Add(1)
				}
				cancel()
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// dialGRPC returns a client that makes each call once.
func dialGRPC(t *testing.T, address string, transport credentials.TransportCredentials) grpc_testing.TestServiceClient {
	t.Helper()
	conn := verify.Result(grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport), grpc.WithDisableRetry())).Must(t)
	t.Cleanup(func() { conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

func unaryCall(ctx context.Context, client grpc_testing.TestServiceClient) error {
	answer, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte("unary")}})
	if err == nil && string(answer.GetPayload().GetBody()) != "unary" {
		err = fmt.Errorf("answer %q", answer.GetPayload().GetBody())
	}
	return err
}

// shortStream opens a stream, exchanges messages for some milliseconds, and ends it.
func shortStream(ctx context.Context, client grpc_testing.TestServiceClient) error {
	stream, err := openStream(ctx, client)
	if err != nil {
		return err
	}
	pace := time.Tick(4 * time.Millisecond)
	for number := range 10 {
		<-pace
		if err := stream.echo(fmt.Sprint("message ", number)); err != nil {
			return err
		}
	}
	return stream.close()
}

// echoStream is a stream that repeats messages.
type echoStream struct {
	grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]
}

// openStream opens a stream until ctx ends. It returns after a first message.
func openStream(ctx context.Context, client grpc_testing.TestServiceClient) (*echoStream, error) {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return nil, err
	}
	s := &echoStream{stream}
	return s, s.echo("first")
}

func (s *echoStream) echo(text string) error {
	err := s.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(text)}})
	if err != nil && !errors.Is(err, io.EOF) { // EOF: Recv has the error
		return fmt.Errorf("send %q: %w", text, err)
	}
	got, err := s.Recv()
	if err != nil {
		return fmt.Errorf("answer to %q: %w", text, err)
	}
	if body := got.GetPayload().GetBody(); string(body) != text {
		return fmt.Errorf("answer %q to %q", body, text)
	}
	return nil
}

func (s *echoStream) close() error {
	if err := s.CloseSend(); err != nil {
		return err
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("instead of the end of the stream: %w", err)
	}
	return nil
}

// echoServer repeats messages.
type echoServer struct {
	grpc_testing.UnimplementedTestServiceServer
}

// startEcho starts an echoServer.
func startEcho(t *testing.T) (address string) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, echoServer{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		// It may not have begun: a test that is skipped ends at once.
		err := <-served
		verify.That(t, err == nil || errors.Is(err, grpc.ErrServerStopped), "%v", err)
	})
	return l.Addr().String()
}

// UnaryCall implements grpc_testing.TestServiceServer.
func (echoServer) UnaryCall(_ context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Payload: in.Payload}, nil
}

// FullDuplexCall implements grpc_testing.TestServiceServer.
func (echoServer) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
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
