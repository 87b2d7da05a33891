package balancer

import (
	"net/netip"
	"time"

	"sluice/config/units"
	"sluice/discovery"
)

// Options are the settings of a [Pool]. Package config has checked what users set of them: nothing
// is refused here.
type Options struct {
	// Policy chooses among the eligible peers.
	Policy Policy
	// DrainTimeout bounds the requests in flight of a peer that left the set; then
	// they are cut.
	DrainTimeout time.Duration
	// OneLeader says that the set has the leader of the service, or nobody.
	OneLeader bool
	// CutRemoved, with OneLeader, cuts the requests in flight of a peer at once when it leaves the
	// set. Those of a closed pool go on.
	CutRemoved bool
	// Limits bound what the pool takes on. Default: no limits.
	Limits Limits
	// RetryBudget bounds the retries.
	RetryBudget *RetryBudget
	// SlowStart ramps the share of new peers. Default: off.
	SlowStart SlowStart
	// PanicThreshold is the share of peers, 0 to 1, that must be eligible. While
	// fewer are, the pool is in panic and uses failing peers too. Default: 0, never.
	//
	// It counts and uses only peers whose reasons are a failing active check or an
	// ejection. Peers that the registry or an operator has taken out, and peers that
	// have not passed their first check, stay out. With Tiers there is no panic while
	// other tiers have room.
	PanicThreshold float64
	// HashBound bounds the requests in flight of a peer with PolicyHash, as a
	// multiple of its share: 1 or more. Three standard deviations above the share are
	// always allowed, which is more below 144 requests with a bound of 1.25.
	// Default: 0, no bound.
	HashBound float64
	// StickyKey is the secret from which Peer.StickyID is derived. Replicas need
	// the same one. Default: the pool's name, which is no secret.
	StickyKey units.Secret
	// Tiers divide the peers by priority: the first tier gets all requests while
	// enough of it is eligible, the surplus goes to the second, and so on. A peer
	// belongs to the first tier that selects it, else to a last one. A tier is divided
	// further by discovery.Instance.Priority. Default: one.
	Tiers []Selector
	// Groups divide the peers for Query.Group. They are views of one pool: [Group] says
	// what each has of its own. Within a group, policy, tiers and Subset work as in the
	// whole pool, so a replica may use Subset.Size peers of each group, and others of
	// the whole. Panic is decided for the whole pool. Default: none.
	Groups []GroupSelector
	// Overprovisioning is the load that a tier can take, as a multiple of its load with all
	// peers eligible: 1 or more. With 1.4, as in Envoy, requests overflow when less than 71 %
	// of a tier's capacity is eligible.
	Overprovisioning float64
	// Subset limits the peers of each tier that this replica uses. With it,
	// replicas do not agree on hashes ([PolicyHash], [PolicySticky]).
	Subset Subset
	// NewTransport makes the transport of a new peer, with the pool's mutex held: it
	// must not block and not call the pool. If it is nil, so is Peer.Transport.
	NewTransport func(*Peer) Transport
	// MayConnect returns an error if no connection may be opened to this address of
	// an instance. An instance with a refused address has [ReasonAddress]; a host
	// name is checked when it is resolved, see [Peer.Control]. It must not block or
	// call the pool, and be safe for concurrent use. Default: any address.
	MayConnect func(discovery.Instance, netip.AddrPort) error
	// MayUseSocket is MayConnect for the path of a unix socket. Default: any.
	MayUseSocket func(path string) error
	// Notify gets every event in order, with the pool's mutex held: it must not
	// block, and may call no method of the pool but Snapshot. May be nil.
	Notify func(Event)
	// OnFailure gets each failed outcome with the consecutive failures. It runs in
	// Token.Done, concurrently and without a lock, and may call the pool. May be nil.
	OnFailure func(*Peer, Outcome, Streak)
	// MeasureLatencies turns on [Latencies] of peers.
	MeasureLatencies bool
	// MustPassFirst gives new peers [ReasonActive], so that they get no request
	// before an active check has passed.
	MustPassFirst bool
	// FailedBefore returns why active checks of an instance have failed, if that is known before
	// the first check of its peer: then the peer has [ReasonActive], and gets requests in panic
	// only. "": it is not known. It must not block or call the pool. May be nil.
	FailedBefore func(discovery.Instance) (why string)
	// NewWitness returns the witness of a new pool, in tests. Reconfigure ignores it. Default: nil,
	// none.
	NewWitness func(*Pool) Witness
	// Random returns uniform random numbers and is safe for concurrent use. Default:
	// rand.Uint64 of math/rand/v2; simulations set a seeded one.
	Random func() uint64
	// ActiveOverridesRegistry ignores a critical status in the registry in favour of
	// active checks. It implies MustPassFirst. Maintenance and a weight of 0 count.
	ActiveOverridesRegistry bool

	adaptive *adaptive // the pool's; nil if Limits.Adaptive was never on
}

// Transport is the connections to one peer. The pool calls it with its mutex held: no
// method may block or call the pool.
//
// The pool closes the transport of a drained peer when no token of the peer is out, and
// hands out none afterwards. The exception is a peer that is cut at
// Options.DrainTimeout, or because of Options.CutRemoved: its attempts fail. One that has not sent
// anything must then fail as [OutcomeLocal], so that the request is tried on another peer.
type Transport interface {
	// Drain closes idle connections now and the others when their request ends.
	// The transport stays usable, and may keep connections that it opens later: the
	// peer may return. Drain may be called many times.
	Drain()
	// Suspect reports that the peer fails its checks and gets no new requests: the ones
	// in flight may move to other peers. It may be called many times.
	Suspect()
	// Close closes every connection, in use or not. It is called once.
	Close()
}
