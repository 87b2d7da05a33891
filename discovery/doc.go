// Package discovery turns what registries know into full sets of instances,
// one set per service, in one total order.
//
// A [Source] watches one service in one registry (Consul, a static list, …)
// and reports to its [Watch]: full sets of instances, and how its queries
// fare. The [Manager] runs the sources, drops what did not change, coalesces
// bursts and hands each set that remains to one function, Sink, from one
// goroutine:
//
//	source ── Emit(set) ──► Watch ──► Manager (normalise, compare, coalesce) ──► Sink(service, set)
//
// # What acts at once, and what waits
//
// Traffic to an instance that is gone fails, traffic that a new instance does
// not get yet costs nothing. So the first set of a service, and every set that
// lacks an instance or takes one out of service (critical, maintenance, weight
// 0), is handed on at once. Additions and updates wait until nothing has
// changed for [Debounce].Quiet, and at most for Debounce.MaxWait; the first one
// after a calm of Quiet does not wait at all. Removals do not disturb the calm:
// in a rolling deploy one instance comes as another goes. A set that returns to
// what Sink has already seen cancels what waited.
//
// The trigger carries no data: Sink always gets the latest set, so that no
// burst and no slow Sink can lose or reorder a change.
//
// # Errors are not sets
//
// A source reports an error with [Watch.Failed]. The instances stay as they
// were; the watch becomes stale, which [Manager.Statuses] shows.
package discovery
