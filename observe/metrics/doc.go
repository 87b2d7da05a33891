// Package metrics counts requests without locks or allocations.
//
// The counters of a service ([Requests]) exist once per shard, each on cache lines of
// its own, so that cores do not write the same cache line. A caller passes any number
// that differs between concurrent requests, such as the connection's number. Exporters
// read a [RequestsSnapshot], the sum of the shards.
package metrics
