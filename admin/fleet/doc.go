// Package fleet reports whether the replicas of sluice agree. It finds the replicas by
// their registrations in Consul and queries their admin APIs.
//
// Two replicas agree about a service when their pools have the same instances, compared
// by [Digest]. Consul's indexes are not compared: a blocking query may return a larger
// index with the same answer. When digests differ, the index shows which replica is
// behind.
//
// [Survey.Take] does the queries; the comparison is a pure function.
package fleet
