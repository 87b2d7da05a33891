// Package consul is a client of Consul's HTTP API, for the agents of one data centre:
// https://developer.hashicorp.com/consul/api-docs.
//
// [Client.Get] sends one query. [Client.Follow] repeats a blocking query. A [Loop] runs
// other loops of queries. [Client.Register] and related methods change the registrations
// of one agent. [API] is hashicorp's own client of one agent.
//
// # Blocking queries
//
// The rules are in https://developer.hashicorp.com/consul/api-docs/features/blocking: the index is
// reset when it goes backwards, and is at least 1; a new index with the same content is no change.
// After an early answer with an unchanged index, the query is sent again without an index:
// see [Loop.Get]. The wait of a query is shortened by a random time of up to a tenth. A query fails
// 10 s after the latest time at which Consul answers. A token bucket limits the queries of a loop:
// ten at once, five a second. After an error, which a cut connection always is, the next query does
// not block; [Loop.Run] states its delay.
//
// # Agents
//
// While a Loop runs, the client probes the agent in use: it queries the leader's address.
// When a probe or a query fails, it probes all agents and uses the first healthy one, which
// answers with a leader. Queries in flight are canceled and sent again there, without an error.
// A preferred agent is used again when it has been healthy for a while.
//
// If no agent is healthy, queries fail. Queries to an agent that has been unreachable for 3 s are
// canceled, and again when it answers, since its connections may be half-open. Those that wait to
// be sent fail, too. Meanwhile at most 8 queries that do not block are in flight. For 70 s after an
// outage blocking queries bypass the agent's views, which may be out of date. Their waits are a few
// seconds, because Consul continues a canceled query and counts its connection.
//
// # Connections
//
// A client opens at most Options.MaxWatches connections to an agent. A stock agent accepts 200 from
// one address (limits.http_max_conns_per_client). After an answer 429 the limit is a quarter lower
// for a while, and further queries wait. One that has a last place blocks for at most 1 s, and
// while the limit is lower, one that no view answers for at most 10 s: so every loop gets its turn.
//
// # Token and certificates
//
// The client reads the certificate files for each connection, and the token file for
// each query. It repeats a refused query (403) once if the token has changed since.
package consul
