package events

import (
	"slices"
	"strings"
)

// Kind is what happened: the group of what it happened to, a dot, and a word.
type Kind string

// Kinds of events of a peer.
const (
	KindJoined    Kind = "peer.joined"    // it is in the set of its service
	KindLeft      Kind = "peer.left"      // it is not any more, and drains
	KindUnhealthy Kind = "peer.unhealthy" // the registry's checks or active checks fail
	KindEjected   Kind = "peer.ejected"   // requests fail
	KindRecovered Kind = "peer.recovered" // it gets requests again
	KindWarm      Kind = "peer.warm"      // it has its full share: its slow start is over, or its lost weight is back
	KindDraining  Kind = "peer.draining"  // an operator drains it
	KindEnabled   Kind = "peer.enabled"   // an operator has ended the drain
	KindDrained   Kind = "peer.drained"   // it drains, and has no request in flight any more
	KindCut       Kind = "peer.cut"       // its requests in flight were ended: its drain took too long, or it no longer leads
	KindWeight    Kind = "peer.weight"    // the registry has changed its weight, or it has lost some for doing worse than the others
	KindChanged   Kind = "peer.changed"   // the registry has changed its tags, meta or status
	KindProbation Kind = "peer.probation" // the registry has lost it: it is used until it fails
	KindListed    Kind = "peer.listed"    // the registry lists it again
	KindForbidden Kind = "peer.forbidden" // no request may go to its address
)

// Kinds of events of a service.
const (
	KindAdded     Kind = "service.added"      // found in the catalog
	KindRemoved   Kind = "service.removed"    // no longer in the catalog
	KindPanic     Kind = "service.panic"      // failing peers get requests too
	KindPanicOver Kind = "service.panic_over" // the panic has ended
	KindFailing   Kind = "service.failing"    // its registry cannot be read: the set does not change
	KindRefused   Kind = "service.refused"    // its registry refuses the query
	KindReadable  Kind = "service.readable"   // its registry can be read again
	KindSaved     Kind = "service.saved"      // its set is from the snapshot
	KindReset     Kind = "service.reset"      // the registry has lost its state
	KindDenied    Kind = "service.denied"     // the mesh's intentions deny connections to it
	KindPermitted Kind = "service.permitted"  // they do not any more
)

// Kinds of events of a service's discovery chain.
const (
	KindChainChanged Kind = "service.chain"         // another one is in use
	KindChainProblem Kind = "service.chain_problem" // parts of it are not carried out
	KindChainRefused Kind = "service.chain_refused" // it cannot be used: the former one stays
)

// Kinds of events of Consul's agents.
const (
	KindAgentFails     Kind = "consul.agent_fails"     // no answer, or an error
	KindNoLeader       Kind = "consul.no_leader"       // the agent's servers have no leader
	KindAgentRecovered Kind = "consul.agent_recovered" // it answers again, with a leader
	KindAgentChanged   Kind = "consul.agent_changed"   // another agent is used
	KindCatalogFails   Kind = "consul.catalog_fails"   // no service is added or removed
	KindCatalogWorks   Kind = "consul.catalog_works"   // the catalog can be read again
	KindMeshFails      Kind = "consul.mesh_fails"      // sluice has no certificate of the mesh, or it is not renewed
	KindMeshWorks      Kind = "consul.mesh_works"      // it is renewed again
)

// Kinds of events of the configuration.
const (
	KindApplied      Kind = "config.applied"
	KindRejected     Kind = "config.refused"      // the configuration in use stays
	KindRolledBack   Kind = "config.rolled_back"  // an operator has returned to an earlier revision
	KindSourceFails  Kind = "config.source_fails" // what the source said last stays in use
	KindSourceWorks  Kind = "config.source_works"
	KindShareGiven   Kind = "split.given"    // an operator or a judge has set the share of a group
	KindShareEnded   Kind = "split.released" // the share of the configuration counts again
	KindShareVerdict Kind = "split.verdict"  // what a judge has found
)

// Kinds of events of operators' orders about peers and nodes.
const (
	KindOrderGiven   Kind = "order.given"
	KindOrderEnded   Kind = "order.ended"
	KindOrderExpired Kind = "order.expired"
)

// Kinds of events of sluice itself.
const (
	KindStarted  Kind = "sluice.started"
	KindReady    Kind = "sluice.ready"
	KindNotReady Kind = "sluice.not_ready" // an operator has ordered it
	KindLogLevel Kind = "sluice.log_level" // an operator has set the level of the log
	KindPanicked Kind = "sluice.panicked"  // a part of it has failed by a fault of its own
	KindReplaced Kind = "sluice.replaced"  // a new process serves
	KindStopping Kind = "sluice.stopping"
	KindSkipped  Kind = "feed.skipped" // the reader lacks events
)

var kinds = []Kind{
	KindJoined, KindLeft, KindUnhealthy, KindEjected, KindRecovered, KindWarm, KindDraining, KindEnabled,
	KindDrained, KindCut, KindWeight, KindChanged, KindProbation, KindListed, KindForbidden,
	KindAdded, KindRemoved, KindPanic, KindPanicOver, KindFailing, KindRefused, KindReadable, KindSaved, KindReset, KindDenied, KindPermitted,
	KindChainChanged, KindChainProblem, KindChainRefused,
	KindAgentFails, KindNoLeader, KindAgentRecovered, KindAgentChanged, KindCatalogFails, KindCatalogWorks, KindMeshFails, KindMeshWorks,
	KindApplied, KindRejected, KindRolledBack, KindSourceFails, KindSourceWorks,
	KindShareGiven, KindShareEnded, KindShareVerdict,
	KindOrderGiven, KindOrderEnded, KindOrderExpired,
	KindStarted, KindReady, KindNotReady, KindLogLevel, KindPanicked, KindReplaced, KindStopping, KindSkipped,
}

// Kinds returns all kinds.
func Kinds() []Kind { return slices.Clone(kinds) }

// Group returns the part of k before the dot.
func (k Kind) Group() string {
	group, _, _ := strings.Cut(string(k), ".")
	return group
}

// Filter selects events. Empty lists select all.
type Filter struct {
	Services []string
	Kinds    []string // kinds, or groups of kinds
}

// UnknownKind returns the first of f.Kinds that is neither a kind nor a group; "" if all are known.
func (f Filter) UnknownKind() string {
	for _, wanted := range f.Kinds {
		if !slices.ContainsFunc(kinds, func(k Kind) bool { return wanted == string(k) || wanted == k.Group() }) {
			return wanted
		}
	}
	return ""
}

// matches reports whether f selects e. KindSkipped concerns every reader.
func (f Filter) matches(e *Event) bool {
	return e.Kind == KindSkipped ||
		(len(f.Services) == 0 || slices.Contains(f.Services, e.Service)) &&
			(len(f.Kinds) == 0 || slices.Contains(f.Kinds, string(e.Kind)) || slices.Contains(f.Kinds, e.Kind.Group()))
}
