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

// The first argument that makes this program one of its own children.
const (
	proxyArgument  = "serve-fasthttp-proxy"  // LISTEN PEER…
	originArgument = "serve-fasthttp-origin" // LISTEN…
)

// serveProxy is the fasthttp reference proxy. It serves until it is stopped.
func serveProxy(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: bench %s LISTEN PEER…", proxyArgument)
	}
	return newProxy(args[1:]).ListenAndServe(args[0])
}

// serveOrigin is the origin for requests with a body: it answers when it has
// read all of it. nginx as an origin answers at once and drops the body later,
// which some proxies take as the end of the exchange.
func serveOrigin(addresses []string) error {
	server := newOrigin()
	failed := make(chan error)
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { failed <- server.Serve(l) }()
	}
	return <-failed
}

// newOrigin returns a server that reads each request's body and answers with
// smallBytes bytes.
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

// serveChild runs what the first argument names and reports whether it named
// anything.
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
	default:
		return 0, false
	}
	if err := serve(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// newProxy returns a server that passes each request to the next of peers. It
// does nothing that a load balancer needs: no log, no health, no counters, no
// retries, no deadlines.
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
