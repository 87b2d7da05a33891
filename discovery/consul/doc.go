// Package consul watches services in Consul: one [Client] for the agents of a
// data centre, one source per service, each a loop of blocking queries on
// /v1/health/service/SERVICE.
//
// A source asks for all instances, whatever their health, and classifies them
// itself: maintenance mode wins over critical, critical over warning, warning
// over passing. So what is out of service can be shown with its reason. The
// weight of an instance is Consul's for its status (Weights.Passing,
// Weights.Warning); critical and maintenance weigh 0.
//
// # Blocking queries
//
// The rules of https://developer.hashicorp.com/consul/api-docs/features/blocking
// hold: the index starts again when it goes backwards, is at least 1, and a
// changed index with unchanged content is no event. A query waits for 1 min
// unless told otherwise, minus a random tenth; the client gives up 10 s after the
// latest moment at which Consul would have answered. There is no pause between
// an answer and the next query except that of a token bucket: ten at once, five a
// second. After an error the next query does not block, and comes after 0.1 s,
// doubled with each further error up to 1 s (10 s after 403 and 429), give or take
// a half.
//
// # Agents
//
// While sources run, the client probes the agent in use with a request for the
// leader's address. When a probe or a query fails all agents are probed, and
// the first good one, which answers and knows a leader, is used; the queries in
// flight are broken off, and asked again there without an error of the watch. A
// better agent is used again when it has been good for a while. If no agent is
// good, watches report errors; what hangs at an agent that is silent for 3 s is
// broken off, and once more when it answers again, since its connections may be
// half-open. At most 8 queries that do not block are at it meanwhile. For 70 s after
// some trouble the queries that block bypass the agent's views, which may lag
// behind the servers, and block for a few seconds only: Consul goes on with what
// is given up, and counts its connection.
//
// The files of certificates are read for each connection, and the token's file
// for each query. A query that is refused (403) is repeated once if the token
// has changed since it was sent.
//
// # What an answer may take out of service
//
// The rules are those of [discovery.Guard]. Doubtful are answers without a known
// leader, from a cache that has been without the servers for a while, and from a
// stream while the agent has known no leader for a while; and those that ACLs
// filtered (X-Consul-Results-Filtered-By-ACLs), if they list nothing or lack an
// instance that an unfiltered answer had.
//
// Consul answers a query with an index from the agent's streaming backend
// (X-Consul-Query-Backend), which tells neither of leaders nor of ACLs: when a
// token loses its permissions, such an answer is just empty. What an answer takes
// away is confirmed at once by a query in the mode "consistent", which only a leader
// that still is one can answer. Consul has lost its state when the index of that
// goes backwards as well.
package consul
