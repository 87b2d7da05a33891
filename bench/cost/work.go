//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
)

const (
	smallBytes = 110
	kB         = 1000
)

// work is one kind of traffic.
type work struct {
	name, about string

	clients  int // that send requests beside each other; each has one connection
	requests int // that are counted
	body     int // bytes of each request's body
	answer   int // bytes of each answer's body
	fresh    bool
	tls      bool
	http2    bool // between the clients and sluice
	grpc     bool // also to the peers, with trailers
	tcp      bool
	idle     int // connections that stay idle, for which seconds are counted instead of requests
}

// works in the order in which they run.
var works = []work{
	{name: "small", about: "a keep-alive connection, answers of 110 bytes", clients: 1},
	{name: "small64", about: "64 keep-alive connections", clients: 64},
	{name: "post1k", about: "requests with a body of 1 kB", clients: 1, body: kB},
	{name: "get100k", about: "answers of 100 kB", clients: 1, answer: 100 * kB, requests: 5000},
	{name: "newconn", about: "a new connection for each request", clients: 1, fresh: true, requests: 5000},
	{name: "https", about: "TLS 1.3, a keep-alive connection", clients: 1, tls: true},
	{name: "h2", about: "HTTP/2 with TLS 1.3; HTTP/1.1 to the peer", clients: 1, tls: true, http2: true},
	{name: "grpc", about: "gRPC without TLS, unary calls", clients: 1, body: 10, http2: true, grpc: true},
	{name: "tcp", about: "a forwarded TCP connection", clients: 1, tcp: true},
	{name: "idle1000", about: "1,000 idle connections: bytes for each, and calls for each second", clients: 1, idle: 1000},
}

const (
	mostRequests = 20_000 // that are counted without strace
	warmRequests = 2_000
	traced       = 2_000 // that strace counts
)

func (w work) count() int {
	if w.requests > 0 {
		return w.requests
	}
	return mostRequests
}

// answerBytes is the length of an answer's body.
func (w work) answerBytes() int {
	if w.answer > 0 {
		return w.answer
	}
	return smallBytes
}

// A client sends requests of a work, one after the other.
type client interface {
	exchange() error
	io.Closer
}

func (w work) dial(address string) (client, error) {
	switch {
	case w.fresh:
		return freshClient{address: address, work: w}, nil
	case w.http2:
		return dialHTTP2(address, w)
	default:
		return dialHTTP1(address, w)
	}
}

// selectWorks returns the works with the names of a list.
func selectWorks(names string) ([]work, error) {
	if names == "all" {
		return works, nil
	}
	var selected []work
next:
	for name := range strings.SplitSeq(names, ",") {
		for _, w := range works {
			if w.name == name {
				selected = append(selected, w)
				continue next
			}
		}
		return nil, fmt.Errorf("unknown work %q; see -list", name)
	}
	return selected, nil
}
