//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
)

// probe returns nil if a server at address answers.
type probe func(ctx context.Context, address string) error

// probeHTTP1 expects the answer of an origin.
func probeHTTP1(ctx context.Context, address string) error {
	c, err := oneRequest(ctx, loopback, address, workload{path: "/small"})
	if err != nil {
		return err
	}
	return c.Close()
}

// probeConnection expects that a connection is accepted.
func probeConnection(ctx context.Context, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// probe returns the probe of a proxy for w.
func (w workload) probe() probe {
	switch {
	case w.http3():
		return w.probeH3
	case !w.tls && w.load == loadWrk:
		return probeHTTP1
	}
	return func(ctx context.Context, address string) error {
		transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		transport.Protocols.SetHTTP1(w.load != loadH2)
		transport.Protocols.SetHTTP2(w.load == loadH2 && w.tls)
		transport.Protocols.SetUnencryptedHTTP2(w.load == loadH2 && !w.tls)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url(address), nil)
		if w.grpc != grpcNone {
			request, err = http.NewRequestWithContext(ctx, http.MethodPost, w.url(address), bytes.NewReader(make([]byte, grpcPrefixBytes)))
		}
		if err != nil {
			return err
		}
		if w.grpc != grpcNone {
			request.Header.Set("Content-Type", "application/grpc")
			request.Header.Set("Te", "trailers")
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("answer %s", response.Status)
		}
		return nil
	}
}
