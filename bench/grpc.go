//go:build linux

package main

import (
	"io"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

const (
	grpcPath = "/bench.Echo/Call"

	// grpcPrefixBytes are the compressed flag and the length of a gRPC message.
	grpcPrefixBytes = 5
)

// serveGRPC answers each call with smallBytes bytes, as grpc-go does.
func serveGRPC(addresses []string) error {
	response := rawMessage(make([]byte, smallBytes))
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var request rawMessage
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		return stream.SendMsg(&response)
	}))
	return serveAll(addresses, server.Serve)
}

// A rawMessage is the bytes of a message.
type rawMessage []byte

// rawCodec encodes a *rawMessage as it is.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*rawMessage))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*rawMessage) = data.Materialize()
	return nil
}

// serveApart answers each call with smallBytes bytes, and writes head, message and trailers
// apart.
func serveApart(addresses []string) error {
	message := make([]byte, grpcPrefixBytes+smallBytes)
	message[grpcPrefixBytes-1] = smallBytes
	server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		flusher := w.(http.Flusher)
		flusher.Flush()
		if _, err := w.Write(message); err != nil {
			return
		}
		flusher.Flush()
		w.Header().Set("Grpc-Status", "0")
	})}
	server.Protocols.SetUnencryptedHTTP2(true)
	return serveAll(addresses, func(l net.Listener) error { return server.Serve(l) })
}
