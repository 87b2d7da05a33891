//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
)

// origin answers for every instance of every service: instance i has the
// address 127.0.0.(i+1), and all have the same port. Its methods may be called
// concurrently.
type origin struct {
	server http.Server
	port   int
}

// instanceField is the header field with the instance that sent a response.
const instanceField = "Instance"

// startOrigin listens on the addresses of n instances until close.
func startOrigin(n int) (*origin, error) {
	const tries = 20
	for try := 1; ; try++ {
		listeners, err := listenAll(n)
		if err != nil && try < tries {
			continue // another program has the port at one of the addresses
		}
		if err != nil {
			return nil, err
		}
		o := &origin{port: listeners[0].Addr().(*net.TCPAddr).Port}
		o.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			at := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
			w.Header().Set(instanceField, at.IP.String())
		})
		for _, l := range listeners {
			go func() { _ = o.server.Serve(l) }() // ends with close
		}
		return o, nil
	}
}

// listenAll returns a listener for each instance, all at one port.
func listenAll(n int) ([]net.Listener, error) {
	var all []net.Listener
	port := 0
	for i := range n {
		l, err := net.Listen("tcp", net.JoinHostPort(instanceAddress(i), strconv.Itoa(port)))
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, fmt.Errorf("listen as instance %d: %w", i, err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		all = append(all, l)
	}
	return all, nil
}

func (o *origin) close() { _ = o.server.Close() }

func instanceAddress(i int) string { return "127.0.0." + strconv.Itoa(i+1) }
