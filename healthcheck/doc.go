// Package healthcheck judges the peers of pools.
//
// It does so in two ways. Active checks ask each peer from time to time whether
// it works: a [Probe] over HTTP, TCP or gRPC, with connections of its own.
// Passive checks, outlier detection in Envoy's words, ask nobody: they look at
// what became of the requests that a peer was sent anyway, and eject it for a
// while if that is bad, or worse than with the others.
//
// # Verdicts
//
// A verdict is a reason against a peer in its pool, and each reason has one
// owner: [balancer.ReasonActive] and [balancer.ReasonEjected] are this
// package's, Consul's and the operator's are not. A peer gets requests if no
// reason speaks against it. So none can put to use what another has taken out,
// with one exception that a user may ask for: Active.OverridesConsul.
//
// A verdict belongs to a peer, not to a name: what was found about a peer that
// has left says nothing about its successor.
//
// # What it costs
//
// A request that succeeds costs a comparison with a counter of failures that is
// 0 (see [balancer.Streak]); only failures are reported here, and most of them
// end after a few comparisons. Whether a peer is an outlier in success rate or
// latency is seen from counters that the pool has anyway, once in an interval.
//
// Active checks have no goroutine and no timer for each peer: a [Monitor] has
// one agenda of what is to be checked when, over all pools, one goroutine that
// watches the clock, and a bounded number of workers, which are started as they
// are needed. When all of them are busy, checks come late, and never twice.
//
// Each pool has one goroutine that waits for its peers to change, and tells it
// the verdicts. Those that come up while it does, as when a whole data centre
// fails, are told together, since a pool makes a new snapshot each time.
package healthcheck
