package balancer

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// closedPort refuses connections to one port of all hosts.
func closedPort(port *atomic.Uint32) func(discovery.Instance, netip.AddrPort) error {
	return func(_ discovery.Instance, to netip.AddrPort) error {
		if uint32(to.Port()) == port.Load() {
			return errors.New("closed")
		}
		return nil
	}
}

func TestAnAddressThatMayNotBeConnectedTo(t *testing.T) {
	var closed atomic.Uint32
	var refused []string
	closed.Store(10001)
	p := newTestPool(t, Options{
		PanicThreshold: 1, MayConnect: closedPort(&closed),
		Notify: func(e Event) {
			if e.Kind == EventRefused {
				refused = append(refused, e.Peer.ID.ID+": "+e.Detail)
			}
		},
	})
	p.Apply(instances(2))
	good, bad := peerOf(t, p, instance(0, 1)), peerOf(t, p, instance(1, 1))
	expect := func(what string, state State, used bool, reasons ...string) {
		t.Helper()
		right := bad.State() == state && bad.Used() == used && slices.Equal(bad.Reasons(), reasons)
		verify.That(t, right, "%s: %v, used %v, %q", what, bad.State(), bad.Used(), bad.Reasons())
	}
	expect("from the start", StateUnhealthy, false, "address: closed")

	// It is not used in panic either.
	setReason(p, good.ID, ReasonActive, true, "")
	verify.That(t, p.Snapshot().Panic, "no panic")
	expect("in panic", StateUnhealthy, false, "address: closed")
	setReason(p, good.ID, ReasonActive, false, "")

	p.Reconfigure(complete(Options{Policy: PolicyRandom}))
	expect("with other options", StateUnhealthy, false, "address: closed")

	closed.Store(0)
	expect("before the recheck", StateUnhealthy, false, "address: closed")
	p.RecheckAddresses()
	expect("once it is open", StateUp, true)
	closed.Store(10001)
	p.RecheckAddresses()
	p.RecheckAddresses()
	expect("closed again", StateUnhealthy, false, "address: closed")
	verify.Slices(t, refused, []string{"star-0001: closed"}, "refused")
}

// The address of a host name is known only after it is resolved.
func TestANameThatMayNotBeConnectedTo(t *testing.T) {
	var closed atomic.Uint32
	notified := 0
	closed.Store(80)
	p := newTestPool(t, Options{MayConnect: closedPort(&closed), Notify: func(e Event) {
		if e.Kind == EventRefused {
			notified++
		}
	}})
	p.Apply([]discovery.Instance{{Service: "star", ID: "star-1", Address: "evil.example", Port: 80, Weight: 1}})
	peer := p.Snapshot().All[0]
	verify.That(t, peer.State() == StateUp && peer.Reasons() == nil, "before it is resolved: %v %q", peer.State(), peer.Reasons())
	err := peer.Control(t.Context(), "tcp4", "127.0.0.1:80", nil)
	verify.Require(t, err != nil, "it may be connected to")
	peer.NoteRefusal(&net.OpError{Op: "dial", Err: err})
	peer.NoteRefusal(&net.OpError{Op: "dial", Err: err})
	verify.Slices(t, peer.Reasons(), []string{"address: closed"}, "refused")
	p.RecheckAddresses()
	verify.Equal(t, len(peer.Reasons()), 1, "after a recheck without an address: %q", peer.Reasons())
	peer.NoteRefusal(peer.Control(t.Context(), "tcp6", "[2001:db8::1%eth0]:81", nil))
	verify.That(t, peer.Reasons() == nil, "resolved to another one: %q", peer.Reasons())
	verify.Equal(t, notified, 1, "times notified")
}
