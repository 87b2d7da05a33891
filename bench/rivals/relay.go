//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// relay forwards the queries of a load balancer to Consul, over HTTP and over DNS with UDP,
// and counts them. Its methods may be called concurrently.
type relay struct {
	queries atomic.Int64
	web     net.Listener
	server  *http.Server
	names   net.PacketConn // DNS
	consul  consulAddress  // of the agent
	running sync.WaitGroup
}

// consulAddress contains the addresses of an agent.
type consulAddress struct{ HTTP, DNS string } // "host:port"

// startRelay listens on free loopback ports until close.
func startRelay(consul consulAddress) (*relay, error) {
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	names, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		web.Close()
		return nil, err
	}
	r := &relay{web: web, names: names, consul: consul}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: consul.HTTP})
	forward.FlushInterval = -1 // at once
	forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	r.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.queries.Add(1)
		forward.ServeHTTP(w, request)
	})}
	r.running.Go(func() { _ = r.server.Serve(web) }) // until close
	r.running.Go(r.serveNames)
	return r, nil
}

// address returns the addresses of the relay.
func (r *relay) address() consulAddress {
	return consulAddress{HTTP: r.web.Addr().String(), DNS: r.names.LocalAddr().String()}
}

// close ends the relay and all connections through it.
func (r *relay) close() {
	_ = r.server.Close()
	_ = r.names.Close()
	r.running.Wait()
}

func (r *relay) serveNames() {
	packet := make([]byte, 64<<10)
	for {
		n, from, err := r.names.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		r.queries.Add(1)
		question := append([]byte(nil), packet[:n]...)
		r.running.Go(func() { r.answerName(question, from) })
	}
}

// answerName forwards a DNS question and its answer. Without an answer it sends nothing.
func (r *relay) answerName(question []byte, from net.Addr) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "udp", r.consul.DNS)
	if err != nil {
		return
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return
	}
	if _, err := conn.Write(question); err != nil {
		return
	}
	answer := make([]byte, 64<<10)
	n, err := conn.Read(answer)
	if err != nil {
		return
	}
	_, _ = r.names.WriteTo(answer[:n], from)
}
