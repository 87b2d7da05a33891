package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// http3Calls sends calls of gRPC by an http3Client: grpc-go has no HTTP/3. Of the options, it knows
// grpc.Trailer.
type http3Calls struct{ client http.RoundTripper }

func (c http3Calls) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	call, err := c.NewStream(ctx, nil, method, options...)
	if err == nil {
		err = call.SendMsg(args)
	}
	if err == nil {
		err = call.CloseSend()
	}
	if err == nil {
		err = call.RecvMsg(reply)
	}
	if err == nil {
		if err = call.RecvMsg(reply); err == io.EOF {
			return nil
		}
	}
	return err
}

func (c http3Calls) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	sent := &sentMessages{}
	sent.changed.L = &sent.mu
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://a.example.com"+method, nil)
	if err != nil {
		return nil, err
	}
	r.GetBody = func() (io.ReadCloser, error) { return &sentReader{of: sent}, nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = -1
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	if deadline, ok := ctx.Deadline(); ok {
		r.Header.Set("Grpc-Timeout", fmt.Sprint(time.Until(deadline).Milliseconds(), "m"))
	}
	outgoing, _ := metadata.FromOutgoingContext(ctx)
	for name, values := range outgoing {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	call := &http3Call{ctx: ctx, sent: sent, options: options, arrived: make(chan struct{})}
	go func() { // a server may wait for messages before it answers
		defer close(call.arrived)
		call.response, call.failed = c.client.RoundTrip(r)
	}()
	return call, nil
}

// An http3Call is a call of http3Calls. One goroutine may use it at a time.
type http3Call struct {
	ctx     context.Context
	sent    *sentMessages
	options []grpc.CallOption
	ended   error // nil: it goes on

	arrived  chan struct{} // closed once the fields below are set
	response *http.Response
	failed   error
}

func (c *http3Call) Context() context.Context     { return c.ctx }
func (c *http3Call) Header() (metadata.MD, error) { panic("nobody asks for it") }
func (c *http3Call) Trailer() metadata.MD         { panic("nobody asks for it") }

func (c *http3Call) SendMsg(m any) error {
	text, err := proto.Marshal(m.(proto.Message))
	if err == nil {
		c.sent.add(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...))
	}
	return err
}

func (c *http3Call) CloseSend() error {
	c.sent.end()
	return nil
}

// RecvMsg returns io.EOF after a call that has ended well, or an error with its status.
func (c *http3Call) RecvMsg(m any) error {
	<-c.arrived
	if c.ended != nil {
		return c.ended
	}
	if c.failed != nil {
		return c.end(status.Error(codes.Unavailable, c.failed.Error()))
	}
	var header [5]byte
	_, err := io.ReadFull(c.response.Body, header[:])
	switch {
	case err == io.EOF:
		return c.end(c.status())
	case err != nil:
		return c.end(status.Error(codes.Unavailable, err.Error()))
	}
	text := make([]byte, binary.BigEndian.Uint32(header[1:]))
	if _, err := io.ReadFull(c.response.Body, text); err != nil {
		return c.end(status.Error(codes.Unavailable, err.Error()))
	}
	return proto.Unmarshal(text, m.(proto.Message))
}

// status returns the status with which the answer has ended: io.EOF if it is OK.
func (c *http3Call) status() error {
	trailer := c.response.Trailer
	if c.response.Header.Get("Grpc-Status") != "" {
		trailer = c.response.Header
	}
	for _, o := range c.options {
		if o, ok := o.(grpc.TrailerCallOption); ok {
			*o.TrailerAddr = metadata.MD{}
			for name, values := range trailer {
				o.TrailerAddr.Append(name, values...)
			}
		}
	}
	code, err := strconv.Atoi(trailer.Get("Grpc-Status"))
	message, _ := url.PathUnescape(trailer.Get("Grpc-Message"))
	switch {
	case err != nil:
		return status.Errorf(codes.Internal, "no status: %s, header %v, trailer %v", c.response.Status, c.response.Header, c.response.Trailer)
	case codes.Code(code) != codes.OK:
		return status.Error(codes.Code(code), message)
	}
	return io.EOF
}

func (c *http3Call) end(err error) error {
	c.ended = err
	c.sent.end()
	if c.response != nil {
		c.response.Body.Close()
	}
	return err
}

// sentMessages is the body of a call. It can be read more than once: a request that no server has
// got is sent again.
type sentMessages struct {
	changed sync.Cond

	mu sync.Mutex
	// mu guards the fields below.
	text  bytes.Buffer
	ended bool
}

func (s *sentMessages) add(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(text)
	s.changed.Broadcast()
}

func (s *sentMessages) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.changed.Broadcast()
}

// A sentReader reads sentMessages from their beginning.
type sentReader struct {
	of     *sentMessages
	at     int
	closed bool // of.mu guards it
}

func (r *sentReader) Read(b []byte) (int, error) {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	for r.at == r.of.text.Len() && !r.of.ended && !r.closed {
		r.of.changed.Wait()
	}
	n := copy(b, r.of.text.Bytes()[r.at:])
	r.at += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *sentReader) Close() error {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	r.closed = true
	r.of.changed.Broadcast()
	return nil
}
