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
// Errors, timeouts and answers without a known leader change nothing. Nor does
// an answer that is filtered by ACLs (X-Consul-Results-Filtered-By-ACLs) and
// lists nothing, or lacks an instance that an unfiltered answer had.
//
// Consul answers a query with an index from the agent's streaming backend
// (X-Consul-Query-Backend), which tells neither of leaders nor of ACLs: when a
// token loses its permissions, such an answer is just empty. So one that lacks an
// instance, and from any backend one that lacks the last of those in service, is
// confirmed at once by a query in the mode "consistent", which only a leader that
// still is one can answer; what that says counts.
//
// An instance that deregisters, fails its check or is put into maintenance mode
// then leaves at once, as long as it leaves another in service. The same is true
// of the last one in service, unless its loss is sudden. It is sudden when
//
//   - the index went backwards: Consul has lost its state. This also counts for
//     instances that are not the last ones;
//   - nothing is left in service within 10 s of an error, or by the first answer
//     of a source that replaced another one;
//   - nothing is left in service, instances are missing from the answer, and at
//     least two were in service within the last 10 s: an agent that lost its state
//     takes all its instances from the catalog, as fast as it can;
//   - nothing is listed, Consul's default ACL policy is deny and the client has no
//     token: only clients with a token are told that an answer was filtered.
//
// Within 10 s of an error a loss is confirmed after 0.25 s, since it may be the
// first part of a larger one; and what is critical only because its check has not
// run yet is lost suddenly in any case: it has been registered again.
//
// After a sudden loss that was confirmed, the instances stay in service for
// EmptyHold (30 s), so that they can register again, and the watch is stale
// meanwhile. Those that left within the 10 s before come back with them: they
// are the first part of the same loss, unless another one came into service
// after them, as in a roll-out. Each is released when Consul lists it in
// service or in maintenance mode. Critical is not enough: that is how most
// registrations begin.
//
// With KeepAnswering, those that are left then stay in the set for so much
// longer, marked as unlisted: whoever uses them makes sure that they answer. They
// go once as many instances are listed in service as before the loss.
//
// An instance that is listed as critical is out of service at once, even if it is
// the last one, except as said above.
package consul
