// Package discovery provides the full, sorted set of instances of each service.
//
// A [Source] watches one service in one registry (Consul, a static list, …) and reports full sets
// of instances, or errors. A [Watcher] continues where an earlier run has ended, and its [Guard]
// decides which instances an answer may take out of service. The [Manager] runs the sources, drops
// unchanged sets, coalesces bursts and passes each set to one function, Sink, from one goroutine:
//
//	source (answer, Watcher) ── Report ──► Manager (normalise, compare, coalesce) ──► Sink(Set)
//
// # Debounce
//
// Requests to a removed instance fail, whereas a delayed addition costs nothing. So Sink gets
// the first set of a service, and every set that removes an instance or takes one out of service
// (critical, maintenance, weight 0), at once. Additions and updates wait until nothing has changed
// for [Debounce].Quiet, at most for Debounce.MaxWait; the first one after a quiet period does
// not wait. Removals do not end a quiet period: a rolling deploy removes an instance with each
// addition. If a set returns to the one that Sink has, the pending change is canceled.
//
// Sink always gets the latest set, so that no burst and no slow Sink can lose or reorder a change.
//
// # Errors
//
// A source reports an error as [Report].Err. The set does not change; the watch
// becomes stale, which [Manager.Statuses] shows.
package discovery
