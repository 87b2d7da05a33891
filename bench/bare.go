//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"github.com/valyala/fasthttp"
)

// First arguments that make this program run as one of its child programs.
const (
	proxyArgument  = "serve-fasthttp-proxy"  // LISTEN PEER…
	originArgument = "serve-fasthttp-origin" // LISTEN…
	grpcArgument   = "serve-grpc-origin"     // LISTEN…
	apartArgument  = "serve-grpc-apart"      // LISTEN…
)

// serveProxy runs the fasthttp reference proxy until it is stopped.
func serveProxy(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: bench %s LISTEN PEER…", proxyArgument)
	}
	return newProxy(args[1:]).ListenAndServe(args[0])
}

// serveOrigin is the origin for requests with a body. It answers after it has read the body.
// nginx answers at once and discards the body later, which some proxies take for the end of
// the exchange.
func serveOrigin(addresses []string) error {
	return serveAll(addresses, newOrigin().Serve)
}

// serveAll calls serve for a listener of each address, and returns the first error.
func serveAll(addresses []string, serve func(net.Listener) error) error {
	failed := make(chan error)
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { failed <- serve(l) }()
	}
	return <-failed
}

// newOrigin returns a server that reads each request body, and answers with smallBytes bytes.
func newOrigin() *fasthttp.Server {
	body := strings.Repeat("x", smallBytes)
	return &fasthttp.Server{
		NoDefaultServerHeader: true,
		StreamRequestBody:     true,
		MaxRequestBodySize:    1 << 30,
		Handler: func(ctx *fasthttp.RequestCtx) {
			if body := ctx.RequestBodyStream(); body != nil {
				if _, err := io.Copy(io.Discard, body); err != nil {
					ctx.Error(err.Error(), fasthttp.StatusBadRequest)
					return
				}
			}
			ctx.SetBodyString(body)
		},
	}
}

// serveChild runs the child program of the first argument, and reports whether there is one.
func serveChild(args []string) (code int, isChild bool) {
	if len(args) == 0 {
		return 0, false
	}
	var serve func([]string) error
	switch args[0] {
	case proxyArgument:
		serve = serveProxy
	case originArgument:
		serve = serveOrigin
	case grpcArgument:
		serve = serveGRPC
	case apartArgument:
		serve = serveApart
	default:
		return 0, false
	}
	if err := serve(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// newProxy returns a server that forwards each request to the next of peers, without logs,
// health checks, counters, retries and deadlines.
func newProxy(peers []string) *fasthttp.Server {
	var clients []*fasthttp.HostClient
	for _, peer := range peers {
		clients = append(clients, &fasthttp.HostClient{
			Addr:                          peer,
			MaxConns:                      65536,
			MaxIdemponentCallAttempts:     1,
			MaxIdleConnDuration:           fasthttp.DefaultMaxIdleConnDuration,
			DisablePathNormalizing:        true,
			NoDefaultUserAgentHeader:      true,
			DisableHeaderNamesNormalizing: true,
			StreamResponseBody:            true,
		})
	}
	var next atomic.Uint64
	return &fasthttp.Server{
		NoDefaultServerHeader:        true,
		NoDefaultDate:                true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		StreamRequestBody:            true,
		MaxRequestBodySize:           1 << 30,
		Handler: func(ctx *fasthttp.RequestCtx) {
			client := clients[next.Add(1)%uint64(len(clients))]
			ctx.Request.Header.Del(fasthttp.HeaderConnection)
			if err := client.Do(&ctx.Request, &ctx.Response); err != nil {
				ctx.Error(err.Error(), fasthttp.StatusBadGateway)
			}
		},
	}
}
