package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// GRPCOptions are the settings of a [GRPC] probe.
type GRPCOptions struct {
	Service string // whose health is asked for; "": the server's as a whole
	TLS     *TLS   // nil: plain HTTP/2
	Reuse   bool   // keep the connection for the next check
}

// GRPC asks grpc.health.v1.Health
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
type GRPC struct {
	o    GRPCOptions
	kept *kept[*grpc.ClientConn]
}

// NewGRPC returns a probe with the options o.
func NewGRPC(o GRPCOptions) *GRPC {
	return &GRPC{o: o, kept: newKept[*grpc.ClientConn](o.Reuse)}
}

func (g *GRPC) String() string {
	if g.o.Service == "" {
		return "grpc"
	}
	return "grpc " + g.o.Service
}

// Forget closes the connection that was kept for address.
func (g *GRPC) Forget(address string) { g.kept.forget(address) }

// Close closes the connections that were kept.
func (g *GRPC) Close() { g.kept.close() }

// Check asks for the service's health.
func (g *GRPC) Check(ctx context.Context, t Target) error {
	connection, ok := g.kept.take(t.Address)
	if !ok {
		secured := insecure.NewCredentials()
		if g.o.TLS != nil {
			secured = credentials.NewTLS(g.o.TLS.current())
		}
		var err error
		connection, err = grpc.NewClient("passthrough:///"+t.Address,
			grpc.WithTransportCredentials(secured),
			grpc.WithUserAgent("sluice-healthcheck"),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return dialer{}.dial(ctx, t)
			}),
		)
		if err != nil {
			return failure("connect", err)
		}
	}
	response, err := grpc_health_v1.NewHealthClient(connection).
		Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: g.o.Service})
	if err != nil {
		// Not kept: a client that could not connect waits before it tries again.
		connection.Close()
		return rpcFailure(err)
	}
	g.kept.put(t.Address, connection)
	if response.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return errors.New(response.Status.String())
	}
	return nil
}

// rpcFailure says what a call's error means for a health check.
func rpcFailure(err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.DeadlineExceeded:
		return errors.New("timed out")
	case codes.Unimplemented:
		return errors.New("the peer does not have grpc.health.v1.Health")
	case codes.NotFound:
		return errors.New("the peer does not know this service")
	}
	message := s.Message()
	// A transport's error is wrapped in two sentences of the library's own.
	if _, cause, ok := strings.Cut(message, "desc = "); ok && s.Code() == codes.Unavailable {
		message = strings.TrimPrefix(strings.Trim(cause, `"`), "transport: ")
		return errors.New(strings.TrimPrefix(message, "Error while dialing: "))
	}
	return fmt.Errorf("%s: %s", s.Code(), message)
}
