//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// Sizes of the bodies that the origin serves and the clients send.
const (
	smallBytes = 110
	kB         = 1000
	MB         = 1000 * kB
	GiB        = 1 << 30
)

// workload is one kind of traffic: one table of the report.
type workload struct {
	name  string
	about string

	conns  int           // concurrent client connections
	method string        // of each request
	path   string        // at the origin
	body   int           // bytes of each request's body
	close  bool          // each request has Connection: close
	half   bool          // connections pause: see runLoad
	pause  time.Duration // mean pause between two requests of a connection
	kind   kind
	load   loadKind
	tls    bool // between clients and the proxy
	grpc   grpcPeers
	tcp    bool // connections are forwarded, without HTTP
	relay  bool // the relay takes part too

	// longer is how many times as long as others a round of it is; 0: as long. The
	// first requests, one on each of 1,000 connections, are to be far less than one
	// in a hundred: they wait for 1,000 connections to the peers. At half load the CPU
	// time of short rounds differs by more than the proxies do.
	longer int

	streams int   // concurrent requests of a connection of loadH3
	bytes   int64 // of each response's body of loadH3; 0: smallBytes
}

// roundTime returns how long a round is, given how long most are.
func (w workload) roundTime(most time.Duration) time.Duration {
	return most * time.Duration(max(1, w.longer))
}

// kind is the way in which a workload runs.
type kind uint8

const (
	kindLoad  kind = iota // wrk against a proxy on its own core
	kindWide              // each proxy twice: on its own core, and on the load's core too
	kindIdle              // connections that stay idle: memory only
	kindPools             // only sluice: many pools that change
)

// loadKind is what generates the load.
type loadKind uint8

const (
	loadWrk     loadKind = iota
	loadH2               // h2load: streamsPerConn requests at a time on each connection
	loadDials            // a TLS handshake for each request, without a session
	loadH3               // HTTP/3
	loadH3Dials          // HTTP/3, a connection for each request, without a session
)

// streamsPerConn is the number of concurrent requests of a connection of [loadH2].
const streamsPerConn = 10

// grpcPeers is the kind of peers of a workload with gRPC; the proxy uses HTTP/2 to them.
type grpcPeers uint8

const (
	grpcNone     grpcPeers = iota // no gRPC
	grpcTogether                  // head, message and trailers of a response mostly in one segment, as grpc-go sends them
	grpcApart                     // each in a segment of its own
)

// skips reports whether a proxy has no configuration for w.
func (w workload) skips(c contender) bool {
	if w.http3() {
		return c.binary == "" && c.name != "caddy"
	}
	switch c.name {
	case "caddy":
		return !w.tls
	case "nginx":
		return w.tcp
	case "relay":
		return !w.relay
	case "fasthttp":
		return w.tcp || w.tls || w.load != loadWrk || w.grpc != grpcNone
	}
	return false
}

// workloads in the order in which they run.
var workloads = []workload{
	{name: "small", about: "64 keep-alive connections, 110-byte responses", conns: 64, path: "/small", relay: true},
	{name: "small1000", about: "1,000 keep-alive connections, 110-byte responses", conns: 1000, path: "/small", longer: 3},
	{name: "half", about: "64 connections that pause: half of the requests that a core can do with the first proxy", conns: 64, path: "/small", half: true, longer: 10},
	{name: "half1000", about: "1,000 connections that pause: half of the requests that a core can do with the first proxy", conns: 1000, path: "/small", half: true, longer: 10},
	{name: "post1k", about: "64 connections, POST of 1 kB, 110-byte responses", conns: 64, method: "POST", path: "/small", body: kB},
	{name: "get100k", about: "64 connections, responses of 100 kB", conns: 64, path: "/100k"},
	{name: "get10m", about: "16 connections, responses of 10 MB", conns: 16, path: "/10m"},
	{name: "put10m", about: "8 connections, PUT of 10 MB, 110-byte responses", conns: 8, method: "PUT", path: "/small", body: 10 * MB},
	{name: "newconn", about: "64 clients, a new connection for each request", conns: 64, path: "/small", close: true},
	{name: "https", about: "TLS 1.3, 64 keep-alive connections, 110-byte responses", conns: 64, path: "/small", tls: true},
	{name: "newtls", about: "64 clients, a new TLS 1.3 connection for each request", conns: 64, path: "/small", tls: true, load: loadDials},
	{name: "h2", about: "HTTP/2 with TLS 1.3, 10 connections of 10 streams, 110-byte responses; HTTP/1.1 to the peers", conns: 10, path: "/small", tls: true, load: loadH2},
	{name: "h2c", about: "HTTP/2 without TLS, 10 connections of 10 streams, 110-byte responses; HTTP/1.1 to the peers", conns: 10, path: "/small", load: loadH2},
	{name: "grpc", about: "gRPC without TLS, 10 connections of 10 unary calls; peers with grpc-go", conns: 10, path: grpcPath, load: loadH2, grpc: grpcTogether},
	{name: "grpcapart", about: "gRPC without TLS, 10 connections of 10 unary calls; peers that send head, message and trailers apart", conns: 10, path: grpcPath, load: loadH2, grpc: grpcApart},
	{name: "tcp", about: "forwarded TCP connections: 64 of them, requests and responses of 110 bytes", conns: 64, path: "/small", tcp: true},
	{name: "twocores", about: "64 keep-alive connections, 110-byte responses; on one core, and on two of which load and origin share the second", conns: 64, path: "/small", kind: kindWide},
	{name: "idle10k", about: "10,000 idle keep-alive connections (or what the limit of open files allows), each after one request", conns: 10_000, path: "/small", kind: kindIdle},
	{name: "idletls10k", about: "10,000 idle connections with TLS 1.3, each after one request", conns: 10_000, path: "/small", tls: true, kind: kindIdle},
	{name: "h3", about: "HTTP/3, 10 connections of 10 streams, 110-byte responses; HTTP/1.1 to the peers", conns: 10, streams: 10, path: "/small", tls: true, load: loadH3},
	{name: "h3conns", about: "HTTP/3, 64 connections of one stream at a time, 110-byte responses", conns: 64, streams: 1, path: "/small", tls: true, load: loadH3, longer: 3},
	{name: "newh3", about: "HTTP/3, 64 clients, a new connection for each request", conns: 64, path: "/small", tls: true, load: loadH3Dials},
	{name: "h3get1g", about: "HTTP/3, one connection, responses of 1 GiB: a round is at least one", conns: 1, streams: 1, path: "/1g", bytes: GiB, tls: true, load: loadH3},
	{name: "idleh3", about: "1,000 idle connections of HTTP/3, each after one request", conns: 1000, path: "/small", tls: true, load: loadH3, kind: kindIdle},
	{name: "pools", about: "sluice only, 64 keep-alive connections: 1 unchanged pool; 1,000 pools of 10 peers, of which 100 change every second", conns: 64, path: "/small", kind: kindPools},
}

// selectWorkloads returns the workloads named in list, comma-separated and in
// the order of the table; "all" or "" means all of them.
func selectWorkloads(list string) ([]workload, error) {
	if list == "" || list == "all" {
		return workloads, nil
	}
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(list, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var selected []workload
	for _, w := range workloads {
		if wanted[w.name] {
			selected = append(selected, w)
			delete(wanted, w.name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("unknown workload %q; there are: %s", name, strings.Join(workloadNames(), ", "))
	}
	return selected, nil
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return names
}
