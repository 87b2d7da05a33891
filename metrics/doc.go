// Package metrics counts requests on the hot path.
//
// [Requests] holds what one service has answered: how many requests of each
// class, how long they took, how many bytes went either way, how many were
// tried again. A counter that every core writes is one cache line that travels
// between all of them, so the counters exist once per shard, each shard on
// cache lines of its own, and are summed when somebody reads them. A caller
// passes any number that differs between things that run at the same time and
// costs nothing to know, such as the connection's number.
//
// Nothing here knows Prometheus, names or labels: whoever exports the counters
// reads a [RequestsSnapshot] when it is scraped.
package metrics
