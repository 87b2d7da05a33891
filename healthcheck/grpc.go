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

	"sluice/certificates"
	"sluice/discovery"
)

// GRPCOptions are the settings of a [GRPC] probe.
type GRPCOptions struct {
	Service string                // to check; "": the whole server
	TLS     certificates.Security // as HTTPOptions.TLS; nil: plain HTTP/2
	Reuse   bool                  // reuse the connection
}

// GRPC is a [Probe] that calls grpc.health.v1.Health
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
type GRPC struct {
	o GRPCOptions
	*idleConnections[*grpc.ClientConn]
}

func NewGRPC(o GRPCOptions) *GRPC {
	return &GRPC{o: o, idleConnections: newIdleConnections[*grpc.ClientConn](o.Reuse)}
}

func (g *GRPC) String() string {
	if g.o.Service == "" {
		return "grpc"
	}
	return "grpc " + g.o.Service
}

func (g *GRPC) Check(ctx context.Context, t Target) error {
	connection, ok := g.take(&t)
	if !ok {
		secured, dialer := insecure.NewCredentials(), dialer{}
		if g.o.TLS != nil {
			terms, err := g.o.TLS.TermsFor(&t.Instance)
			if err != nil {
				return err
			}
			if secured = credentials.NewTLS(terms.Config); terms.ByPriorKnowledge { // grpc wants ALPN
				secured, dialer.tls, dialer.protocol = insecure.NewCredentials(), g.o.TLS, "h2"
			}
		}
		var err error
		connection, err = grpc.NewClient("passthrough:///"+discovery.Authority(t.Address),
			grpc.WithTransportCredentials(secured),
			grpc.WithUserAgent("sluice-healthcheck"),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
			grpc.WithMaxHeaderListSize(maxHead),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return dialer.dial(ctx, t)
			}),
		)
		if err != nil {
			return failure("connect", err)
		}
	}
	response, err := grpc_health_v1.NewHealthClient(connection).
		Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: g.o.Service})
	if err != nil {
		// Do not reuse it: a client that could not connect backs off.
		connection.Close()
		return rpcFailure(err)
	}
	g.put(&t, connection)
	if response.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return errors.New(response.Status.String())
	}
	return nil
}

// rpcFailure describes the error of a call.
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
	// Remove the library's wrapping of a transport error.
	if _, cause, ok := strings.Cut(message, "desc = "); ok && s.Code() == codes.Unavailable {
		message = strings.TrimPrefix(strings.Trim(cause, `"`), "transport: ")
		return errors.New(strings.TrimPrefix(message, "Error while dialing: "))
	}
	return fmt.Errorf("%s: %s", s.Code(), message)
}
