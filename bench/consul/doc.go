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
//	go run ./bench/consul -services 10000 -instances 10 -nodes 100 -mode memory -tls
//	go run ./bench/consul -replicas 20 -agents 20 -services 1000 -nodes 20 -tls
//
// The agent is a dev agent unless -mode is server: a dev agent indents its JSON,
// which costs it about twice the time. With memory it is no agent, but a catalogue in
// memory, so that Consul takes no part of the time.
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
// # A fleet
//
// With -replicas, several processes that watch ask a cluster of three servers: through
// client agents, or with -agents 0 the servers themselves. A table has what one process
// of each kind uses, without replicas and with them, at rest and for one change. Of the
// changes a quarter each adds an instance, fails a check, passes it, and removes the
// instance. -loss kills the leader at the end.
//
// Everything shares the machine, so times depend on what else it does; queries,
// bytes and connections do not.
package main
