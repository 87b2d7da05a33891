// Package fleet tells whether the replicas of sluice agree: who they are, by
// what they have registered in Consul, and what each of them has found, by asking
// its admin API.
//
// Two replicas agree about a service when the sets of instances in their pools
// are the same, which a [Digest] of each shows. Consul's indexes do not show
// that: a blocking query also returns with a larger index and the same answer, and
// when it does so depends on the agent and on the kind of query. An index tells
// who is behind when the sets differ.
//
// [Survey.Take] reads and asks; comparing is a pure function of what came of it.
package fleet
