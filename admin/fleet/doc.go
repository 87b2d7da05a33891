// Package fleet reports whether the replicas of sluice agree. It finds the replicas by
// their registrations in Consul and queries their admin APIs.
//
// Two replicas agree when the hashes of their parts are equal: the configuration, services,
// instances in pools, routes, orders and shares. Consul's indexes are not in them: a blocking
// query may return a larger index with the same answer.
//
// [Survey.Take] does the queries; the comparison is a pure function.
package fleet
