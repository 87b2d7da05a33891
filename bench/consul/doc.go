// Command consul measures what watching many services costs: sluice, and
// Consul. It starts a real Consul agent, fills its catalog, watches every service
// in a process of its own, and changes one service after the other:
//
//	go run ./bench/consul                                  # 10, 100, 300 × 5 and 1,000 × 10
//	go run ./bench/consul -services 300 -instances 5 -nodes 1
//	go run ./bench/consul -services 1000 -instances 10 -nodes 20 -mode server
//	go run ./bench/consul -services 10000 -instances 10 -nodes 500 -tls
//	go run ./bench/consul -services 300 -tls               # HTTP/2
//	go run ./bench/consul -services 300 -unchecked             # instances without checks
//
// The agent is a dev agent unless -mode is server: a dev agent indents its JSON,
// which costs it about twice the time.
//
// # What is measured
//
// For each kind of change, median and 95th percentile of the time from sending
// the request that makes the change to the moment at which discovery's Sink gets
// the new set, and per change: the queries that sluice sent, without the probes of
// the agent, of which there are as many when nothing changes; the bytes that it
// got; and the CPU time of sluice and of Consul (which includes the change itself).
// The kinds are
//
//	add     a passing instance is registered
//	fail    a check goes from passing to critical
//	pass    and back
//	remove  an instance is deregistered
//	roll    an instance of one service is registered, an older one deregistered, and so on,
//	        on one node after the other
//
// The second after each change counts for it, too, except in the time. Idle is
// the time before the first change: queries, probes and bytes a second.
//
// Then the whole program, as people run it, has a route to every service. While
// an instance of a service is registered, clients send requests to it, about two
// a millisecond, and the time is that until the answer of the first one that
// reached the instance.
//
// Everything shares the machine, so times depend on what else it does; queries,
// bytes and connections do not.
package main
