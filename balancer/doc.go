// Package balancer decides which peer gets a request.
//
// A [Pool] stands for one service. Discovery hands it the full set of
// instances whenever it changes ([Pool.Apply]), health checks and operators
// add what they know ([Pool.SetReason]), and the proxy asks for a peer per
// attempt and reports how it went:
//
//	token, err := pool.Pick(&query)
//	if err != nil {
//		return err // nobody to ask: no peers, none eligible, all tried
//	}
//	outcome := exchange(token.Peer.Transport)
//	token.Done(outcome)
//
// # Writers and readers
//
// Writers take turns on a mutex. Each builds a new [Snapshot], which is never
// changed afterwards, and publishes it with one atomic store. Readers load it
// and take neither lock nor memory: everything that a pick needs is behind
// that one pointer, and health is applied when the snapshot is built, not when
// a peer is picked. A pool has no goroutine.
//
// # What outlives a snapshot
//
// A [Peer] is an instance as long as the pool knows it. Its requests in
// flight, its latency average, its counters, its connections and the reasons
// against it survive every other change of the set, and a change of its own
// weight, tags or health. The same id at a new address is another peer.
//
// # Policies
//
// A [Policy] makes the choice among the eligible peers when a snapshot is
// built; each is a file of its own behind the picker interface, and knows
// nothing of health. [PolicyEWMA], the default, is for requests whose peers
// differ or may become slow. [PolicyLeastConn] is for long exchanges such as
// TCP connections, where the time to the first byte says little.
// [PolicyRoundRobin] and [PolicyRandom] take no notice of load. [PolicyHash] and
// [PolicySticky] keep requests together that Query.Hash says belong together.
//
// Options.Tiers has peers that get requests only as far as others have no room
// for them, Options.Subset leaves out some, Options.SlowStart lets the weights
// of new peers grow. All of that is decided when a snapshot is built, too, and
// so is panic: when too few peers are eligible, see Options.PanicThreshold.
// docs/balancing.md compares the policies; TestFigures makes what it shows.
//
// # Limits
//
// [Limits] and [RetryBudget] bound what a pool takes on. They are counted while
// requests run, in atomics of the pool, and only as far as they are set. A pick
// that they stop fails at once, with an error that says which.
//
// # How a peer leaves
//
// A peer that is no longer in the set is out of the next snapshot at once, so
// nobody picks it any more. Its requests in flight run on: when the last of
// them is done its transport is closed, and after Options.DrainTimeout it is
// closed in any case. A peer that returns before is taken back with
// everything it had.
package balancer
