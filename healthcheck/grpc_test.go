package healthcheck

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"sluice/discovery/locality"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// serveGRPC serves until the test ends and counts connections.
func serveGRPC(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) (address string, opened *atomic.Int32) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	counted := &countingListener{Listener: l}
	server := grpc.NewServer(options...)
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(counted)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().String(), &counted.opened
}

type countingListener struct {
	net.Listener
	opened atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.opened.Add(1)
	}
	return c, err
}

func TestGRPC(t *testing.T) {
	state := health.NewServer()
	state.SetServingStatus("greeter", grpc_health_v1.HealthCheckResponse_SERVING)
	state.SetServingStatus("broken", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	address, opened := serveGRPC(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, state) })
	without, _ := serveGRPC(t, func(*grpc.Server) {})

	f := func(service, address, want string) {
		t.Helper()
		verify.Equal(t, check(t, NewGRPC(GRPCOptions{Service: service}), address, patience), want, "%q", service)
	}
	f("", address, "")
	f("greeter", address, "")
	f("broken", address, "NOT_SERVING")
	f("other", address, "the peer does not know this service")
	f("", without, "the peer does not have grpc.health.v1.Health")
	f("", nowhere, "connect: connection refused")
	state.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	f("", address, "NOT_SERVING")

	count := func(reuse bool, between func(*GRPC)) int32 {
		opened.Store(0)
		p := NewGRPC(GRPCOptions{Service: "greeter", Reuse: reuse})
		defer p.Close()
		for range 4 {
			verify.Equal(t, check(t, p, address, patience), "", "check")
			between(p)
		}
		return opened.Load()
	}
	verify.Equal(t, count(false, func(*GRPC) {}), 4, "connections for 4 checks")
	verify.Equal(t, count(true, func(*GRPC) {}), 1, "connections for 4 checks that keep theirs")
	verify.Equal(t, count(true, func(p *GRPC) { p.Forget(address) }), 4, "connections for 4 checks with Forget")
	a, b := NewGRPC(GRPCOptions{}).String(), NewGRPC(GRPCOptions{Service: "a"}).String()
	verify.That(t, a == "grpc" && b == "grpc a", "names %q, %q", a, b)
}

// loud is a service with a long reason for each failed check.
type loud struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (loud) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return nil, status.Error(codes.Internal, strings.Repeat("x", 1<<20))
}

func TestGRPCReadsNoLongMessage(t *testing.T) {
	address, _ := serveGRPC(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, loud{}) })
	got := check(t, NewGRPC(GRPCOptions{}), address, patience)
	verify.That(t, got != "" && len(got) <= maxHead, "the error of a check has %d bytes, want one of at most %d", len(got), maxHead)
}

// A reused connection to a restarted peer fails at most one check.
func TestGRPCAfterARestart(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(consultest.ReservePort(t)))
	l := verify.Result(net.Listen("tcp", address)).Must(t)
	serve := func(l net.Listener) *grpc.Server {
		s := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(s, health.NewServer())
		go s.Serve(l)
		return s
	}
	first := serve(l)
	p := NewGRPC(GRPCOptions{Reuse: true})
	defer p.Close()
	verify.Equal(t, check(t, p, address, patience), "", "check")
	first.Stop()
	check(t, p, address, patience) // passes or fails
	verify.Equal(t, check(t, p, address, patience), "connect: connection refused", "stopped")
	l = verify.Result(net.Listen("tcp", address)).Must(t)
	second := serve(l)
	defer second.Stop()
	verify.Equal(t, check(t, p, address, patience), "", "started again")
}

func TestGRPCTimesOut(t *testing.T) {
	address := serveRaw(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	checkInTime(t, NewGRPC(GRPCOptions{}), address, "timed out")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := NewGRPC(GRPCOptions{}).Check(ctx, Target{Address: address, Control: locality.ByOperator})
	verify.That(t, err != nil, "no error after the end of the context")
}
