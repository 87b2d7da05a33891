// Command hostile shows what clients that mean harm cost sluice, with HTTP/3 beside HTTP/2 over
// TLS:
//
//	go run ./bench/hostile                       # all attacks, two minutes
//	go run ./bench/hostile -run resets,garbage
//	go run ./bench/hostile -document bench/hostile/results.md
//
// It needs Linux. Each row is a new sluice on one processor of Go, with two static peers and
// everything by default. The attack does a number of units (a handshake, a stream, a packet) as
// fast as it can, and holds what can be held. The figures are the CPU of sluice for each unit, and
// the resident memory that it has more while units are held, for each of those that sluice holds:
// it refuses handshakes above its limits. Meanwhile a visitor of another address sends 100 requests
// a second with the same protocol: a row has how many of them failed. It has no comparison of
// latency, since the attack works on the same cores.
//
// Addresses that are not the attacker's cannot be used in a TCP handshake. With QUIC the attacker
// has many loopback addresses, and never reads.
package main
