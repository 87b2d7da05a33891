//go:build unix

package rolling

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// A stream of the load has streamMessages messages, and lasts about half a second: longer than an
// instance needs to leave.
const (
	streamMessages = 25
	streamPause    = 20 * time.Millisecond // between the messages of a client
)

// grpcSender is a client of gRPC: grpc-go's, without retries.
type grpcSender struct {
	options []grpc.DialOption
	address string
	body    []byte           // the payload of a message is a prefix of it
	kept    *grpc.ClientConn // for requests on persistent connections
	err     error            // of the creation of kept
}

func newGRPCSender(t target, p protocol, body []byte) *grpcSender {
	s := &grpcSender{address: t.address, body: body}
	transport := insecure.NewCredentials()
	if p == grpcH2 {
		s.address, transport = t.secure, credentials.NewTLS(t.tls)
	}
	s.options = []grpc.DialOption{
		grpc.WithTransportCredentials(transport), grpc.WithAuthority(t.host), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype(messageCodec{}.Name())),
	}
	s.kept, s.err = s.dial()
	return s
}

func (s *grpcSender) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+s.address, s.options...)
}

func (s *grpcSender) close() {
	if s.err == nil {
		s.kept.Close()
	}
}

func (s *grpcSender) send(id int, k kind, deadline time.Time) error {
	conn, err := s.kept, s.err
	if k.fresh {
		if conn, err = s.dial(); err == nil {
			defer conn.Close()
		}
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	payload := s.body[:k.length]
	switch k.method {
	case unary:
		var trailer metadata.MD
		var answer message
		request := newMessage(1, payload)
		if err := conn.Invoke(ctx, k.path(id), &request, &answer, grpc.Trailer(&trailer)); err != nil {
			return fmt.Errorf("%w %v", err, trailer["x-sluice-reason"])
		}
		return new(answers).check(answer, 0, request)
	case clientStream:
		return s.stream(ctx, conn, k.path(id), streamMessages, func(number int) int { return number / (streamMessages - 1) }, payload)
	case serverStream:
		return s.stream(ctx, conn, k.path(id), 1, func(int) int { return streamMessages }, payload)
	default:
		return s.stream(ctx, conn, k.path(id), streamMessages, func(int) int { return 1 }, payload)
	}
}

// stream sends messages, each when its predecessor has been answered answersTo(number) times and
// after a pause, and expects the end of the stream.
func (s *grpcSender) stream(ctx context.Context, conn *grpc.ClientConn, method string, messages int, answersTo func(number int) int, payload []byte) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	got := new(answers)
	for number := range messages {
		if number > 0 {
			time.Sleep(streamPause)
		}
		request := newMessage(answersTo(number), payload)
		if err := stream.SendMsg(&request); err != nil && !errors.Is(err, io.EOF) { // EOF: RecvMsg has the error
			return fmt.Errorf("send message %d: %w", number, err)
		}
		for range answersTo(number) {
			var answer message
			if err := stream.RecvMsg(&answer); err != nil {
				return fmt.Errorf("after %d answers: %w %v", got.count, err, stream.Trailer()["x-sluice-reason"])
			}
			if err := got.check(answer, number, request); err != nil {
				return err
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(new(message)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("instead of the end of the stream: %w %v", err, stream.Trailer()["x-sluice-reason"])
	}
	return nil
}

// answers checks the answers of a call.
type answers struct {
	instance string // of the first one
	count    int
}

// check returns an error unless an answer belongs to the message with a number, and is of the
// same instance as those before.
func (a *answers) check(answer message, number int, request message) error {
	instance, got, _ := strings.Cut(string(answer), " ")
	if a.count++; a.count == 1 {
		a.instance = instance
	}
	if want := fmt.Sprintf("%d %d %d", number, len(request), crc32.ChecksumIEEE(request)); got != want || instance != a.instance {
		return fmt.Errorf("answer %q, want %q of %s", answer, want, a.instance)
	}
	return nil
}
