//go:build unix

package rolling

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// grpcService is the service of the instances. Its methods are the ids of the requests, so that
// the access log and the instances know them.
const grpcService = "/rolling.Echo/"

// grpcServer is grpc-go's server, without TLS. A message of a call contains how many messages it is
// answered with, and a payload. Each answer contains the name of the instance, the number of the
// message, and the length and the checksum of the payload.
type grpcServer struct {
	grpc_health_v1.UnimplementedHealthServer
	instance
	listener *trackedListener
	server   *grpc.Server
	ended    chan struct{} // closed when the server has ended
}

func startGRPC(i instance) (server, error) {
	listener, err := listenTracked()
	if err != nil {
		return nil, err
	}
	s := &grpcServer{instance: i, listener: listener, ended: make(chan struct{})}
	s.server = grpc.NewServer(grpc.UnknownServiceHandler(s.call))
	grpc_health_v1.RegisterHealthServer(s.server, s)
	go func() {
		defer close(s.ended)
		_ = s.server.Serve(listener) // until stop or reset
	}()
	return s, nil
}

func (s *grpcServer) address() string { return s.listener.Addr().String() }

func (s *grpcServer) stop() {
	s.server.GracefulStop()
	<-s.ended
}

func (s *grpcServer) reset() {
	s.listener.reset()
	s.server.Stop()
	<-s.ended
}

func (s *grpcServer) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if !s.do() {
		return nil, errDead
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// errDead is the error of a call whose connection has been reset.
var errDead = status.Error(codes.Aborted, "the instance is dead")

func (s *grpcServer) call(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.Method(stream.Context())
	id, err := strconv.Atoi(strings.TrimPrefix(method, grpcService))
	if err != nil {
		return status.Error(codes.Unimplemented, method)
	}
	s.ledger.note(s.name, id)
	for number := 0; ; number++ {
		var m message
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			s.ledger.noteAnswer(id)
			return nil
		} else if err != nil {
			return err
		}
		for range m.answers() {
			if !s.do() {
				return errDead
			}
			answer := message(fmt.Sprintf("%s %d %d %d", s.name, number, len(m), crc32.ChecksumIEEE(m)))
			if err := stream.SendMsg(&answer); err != nil {
				return err
			}
		}
	}
}

// message is a message of gRPC as it is on the wire.
type message []byte

// newMessage returns a message for an instance.
func newMessage(answers int, payload []byte) message {
	return append(binary.BigEndian.AppendUint16(nil, uint16(answers)), payload...)
}

// answers returns how many messages an instance answers with.
func (m message) answers() int { return int(binary.BigEndian.Uint16(m)) }

// messageCodec passes messages unchanged.
type messageCodec struct{}

func init() { encoding.RegisterCodec(messageCodec{}) }

func (messageCodec) Name() string                  { return "message" }
func (messageCodec) Marshal(v any) ([]byte, error) { return *v.(*message), nil }
func (messageCodec) Unmarshal(data []byte, v any) error {
	*v.(*message) = append(message{}, data...)
	return nil
}
