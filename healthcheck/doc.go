// Package healthcheck decides by checks which peers of a pool may get requests.
//
// Active checks probe each peer at intervals with a [Probe] over HTTP, TCP or gRPC, on
// connections of their own. Passive checks, Envoy's outlier detection, look at the
// outcomes of requests and eject a peer for a while if it fails too often. A peer that does
// worse than the others loses weight first, see [balancer.Pool.SetFactors].
//
// # Verdicts
//
// A verdict sets or clears a reason of a peer in its pool. This package owns
// [balancer.ReasonActive] and [balancer.ReasonEjected] and no other reason, so it never
// puts a peer to use that the registry or the operator has taken out, except with
// Active.OverridesRegistry.
//
// A verdict belongs to a peer, not to a name: it does not apply to a successor.
//
// # Cost
//
// A request that succeeds costs one comparison (see [balancer.Streak]). Outliers in
// success rate and latency are computed once per interval from the pool's counters.
//
// Active checks have no goroutine or timer per peer: a [Monitor] has one schedule over
// all pools, one goroutine that waits for its next entry, and a bounded number of
// workers. When all workers are busy, checks start late.
//
// Each pool has one goroutine that waits for its peers to change and applies verdicts
// in batches, since each call makes a new snapshot of the pool.
package healthcheck
