// Package balancer chooses the peer for a request.
//
// A [Pool] is the peers of one service. Discovery applies full sets of instances
// ([Pool.Apply]), health checks and operators set reasons against peers
// ([Pool.SetReasons]), and the proxy picks a peer per attempt and reports the outcome:
//
//	token, err := pool.Pick(&query)
//	if err != nil {
//		return err // no peers, none eligible, all tried, or a limit
//	}
//	outcome := exchange(token.Peer.Transport)
//	token.Done(outcome)
//
// # Writers and readers
//
// Writers lock a mutex, build a new immutable [Snapshot] and publish it with one atomic
// store. Picks load it, take no lock and allocate nothing: health, weights, tiers,
// subsets, slow start and panic are applied when the snapshot is built. A pool has no
// goroutine.
//
// # What outlives a snapshot
//
// A [Peer] is an instance while the pool knows it. Its requests in flight, latency,
// counters, connections and reasons survive every other change of the set, and a change
// of its own weight, tags or health. The same id at a new address is another peer.
//
// # Groups
//
// A [Group] is a view of a pool: a part of its peers, from which a [Query] may pick. A
// peer has one state, one transport and one set of counters, whichever view it was
// picked from.
//
// # Policies
//
// A [Policy] chooses among the eligible peers of a snapshot. Each is one file behind
// the picker interface and knows nothing of health. docs/balancing.md compares them;
// TestFigures makes its table.
//
// # Limits
//
// [Limits] and [RetryBudget] bound what a pool takes on, with atomic counters. A pick
// above a limit fails at once with the error of the limit.
//
// # Drain
//
// A peer that leaves the set is out of the next snapshot. Its requests in flight go on;
// its transport is closed when the last one is done, or after Options.DrainTimeout. A
// peer that returns earlier keeps its state. A pool that is out of use is retired first: all of
// its peers drain, and requests that were for it, and have no peer yet, still get one.
package balancer
