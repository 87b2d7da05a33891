package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sluice/discovery"
)

// DefaultDrainTimeout is Options.DrainTimeout when it is 0.
const DefaultDrainTimeout = 30 * time.Second

// DefaultHashBound is Options.HashBound when it is 0: 25 % above average, which
// moves few requests and costs little, as the paper finds and others have
// found in use (see hashed).
const DefaultHashBound = 1.25

// Options are the settings of a [Pool].
type Options struct {
	// Policy says how peers are chosen. Default: [PolicyEWMA].
	Policy Policy
	// DrainTimeout is what the requests in flight of a peer that left the set
	// get before they are cut. Default: [DefaultDrainTimeout].
	DrainTimeout time.Duration
	// Limits bound what the pool takes on. Default: no limits.
	Limits Limits
	// RetryBudget bounds the retries. Default: [DefaultRetryBudget].
	RetryBudget *RetryBudget
	// SlowStart says how the share of new peers grows. Default: off.
	SlowStart SlowStart
	// PanicThreshold is the share of peers, 0 to 1, that must be eligible. While
	// fewer are, the pool panics: it takes the verdicts against the others for
	// wrong, or at least for the lesser evil, and uses them too. Default: 0, never.
	//
	// It counts and uses only peers that nothing speaks against but an active
	// check that fails or an ejection, which are conclusions of our own. Those
	// that the registry does not want used or an operator has taken out stay
	// out, and so do those that no active check has passed yet. With Tiers there is
	// no panic as long as other tiers have room.
	PanicThreshold float64
	// HashBound is how many times its share of the requests in flight a peer may
	// have at most with PolicyHash: 1 or more. Three standard deviations above its
	// share are allowed in any case, which is more where a share is below 144
	// requests (with the default). math.Inf(1) is no bound. Default:
	// [DefaultHashBound].
	HashBound float64
	// StickyKey is the secret that Peer.StickyID is made with. Replicas need the
	// same one to know each other's names of peers. Default: the pool's name, which
	// is no secret.
	StickyKey string
	// Tiers divide the peers: the first tier gets all requests as long as enough
	// of it is eligible, what it has no room for goes to the second, and so on.
	// A peer belongs to the first tier that selects it, and to a last one if none
	// does. Default: one tier.
	Tiers []Selector
	// Overprovisioning is how many times the load that it has with all peers
	// eligible a tier has room for. With the default, [DefaultOverprovisioning],
	// requests overflow when less than 71 % of a tier's capacity is left.
	Overprovisioning float64
	// Subset says which peers of each tier this replica uses. With [PolicyHash]
	// and [PolicySticky] replicas no longer agree.
	Subset Subset
	// NewTransport makes the connections of a peer. It is called once per peer,
	// before the peer is picked for the first time, with the pool's mutex held:
	// it must not block and not call the pool. If it is nil, Peer.Transport is.
	NewTransport func(*Peer) Transport
	// MayConnect says whether connections may be opened to an address that stands
	// for an instance. An instance whose address it refuses gets no requests and
	// has [ReasonAddress]; a name is asked about once it has been resolved, by
	// whoever connects, see [Peer.Control]. It must not block or call the pool, and
	// be safe for concurrent use. Default: to any.
	MayConnect func(discovery.Instance, netip.AddrPort) error
	// Notify hears of each change of a peer, in the order in which they happen.
	// It is called with the pool's mutex held: it must not block, and of
	// the pool's methods may call Snapshot only. May be nil.
	Notify func(Event)
	// OnFailure hears of each outcome that speaks against a peer, with the
	// failures in a row that it makes. It is called by whoever reports the
	// outcome, on many goroutines at once and without a lock, so it should be
	// quick; it may call the pool. May be nil.
	OnFailure func(*Peer, Outcome, Streak)
	// MeasureLatencies says whether peers keep [Latencies].
	MeasureLatencies bool
	// MustPassFirst makes new peers join with [ReasonActive] against them, so
	// that they get no request before an active check has passed.
	MustPassFirst bool
	// Random is where the pool's random choices come from: numbers that are
	// uniform over all of uint64. It is called by every pick that draws, and must
	// be safe for concurrent use. Default: the generator of math/rand/v2; another
	// one is for simulations that are to be repeatable.
	Random func() uint64
	// ActiveOverridesConsul says that a critical status in the registry does not
	// speak against a peer, since active checks say better whether it works. It
	// implies MustPassFirst. Maintenance and a weight of 0 count all the same.
	ActiveOverridesConsul bool
}

// Transport holds the connections to one peer. The pool calls it with its
// mutex held: neither method may block or call the pool.
//
// The pool closes the transport of a peer that has drained only when no token
// of that peer is out, and none is handed out afterwards, so no request ever
// meets a transport that was closed behind its back. The one exception is a
// peer that is cut: attempts that still run when Options.DrainTimeout ends
// fail. One that has not sent anything yet must then fail as [OutcomeLocal],
// so that the request is tried on another peer.
type Transport interface {
	// Drain says that no new requests are coming for now: idle connections are
	// closed, and those in use as soon as their request ends. The transport
	// stays usable, since requests in flight may need another connection and
	// the peer may be taken back; what it opens from then on it may keep.
	// Drain may be called many times.
	Drain()
	// Suspect says that checks have found that the peer does not work, and that
	// no new requests are coming: those in flight that can be tried elsewhere may
	// leave it. It may be called many times, and the peer may recover.
	Suspect()
	// Close closes every connection, in use or not. It is called once.
	Close()
}

// withDefaults returns o with defaults filled in, or what is wrong with it.
func (o Options) withDefaults() (Options, error) {
	if o.Policy == "" {
		o.Policy = PolicyEWMA
	}
	if _, ok := pickers[o.Policy]; !ok {
		names := make([]string, 0, len(pickers))
		for _, p := range Policies() {
			names = append(names, string(p))
		}
		return o, fmt.Errorf("unknown policy %q: want %s", o.Policy, strings.Join(names, ", "))
	}
	if o.DrainTimeout < 0 {
		return o, fmt.Errorf("negative drain timeout %s", o.DrainTimeout)
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if !(o.PanicThreshold >= 0 && o.PanicThreshold <= 1) {
		return o, fmt.Errorf("panic threshold %v: want 0 to 1", o.PanicThreshold)
	}
	if o.Overprovisioning == 0 {
		o.Overprovisioning = DefaultOverprovisioning
	}
	if o.HashBound == 0 {
		o.HashBound = DefaultHashBound
	}
	if !(o.HashBound >= 1) {
		return o, fmt.Errorf("hash bound %v: want 1 or more", o.HashBound)
	}
	if o.RetryBudget == nil {
		o.RetryBudget = &DefaultRetryBudget
	}
	var err error
	o.SlowStart, err = o.SlowStart.withDefaults()
	return o, errors.Join(err, checkTiers(o.Tiers, o.Overprovisioning), o.Subset.check(), o.Limits.check(), o.RetryBudget.check())
}
