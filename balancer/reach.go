package balancer

import (
	"context"
	"errors"
	"net/netip"
	"syscall"

	"sluice/discovery"
)

// refusalError is an error of Options.MayConnect.
type refusalError struct{ error }

func (e refusalError) Unwrap() error { return e.error }

// Control is the net.Dialer.ControlContext of every connection to the peer: it fails if
// Options.MayConnect refuses the resolved address.
func (p *Peer) Control(_ context.Context, network, address string, _ syscall.RawConn) error {
	var err error
	switch {
	case network == discovery.NetworkUnix && p.pool.mayUseSocket != nil:
		err = p.pool.mayUseSocket(address)
	case network != discovery.NetworkUnix && p.pool.mayConnect != nil:
		var to netip.AddrPort
		if to, err = netip.ParseAddrPort(address); err == nil {
			err = p.pool.mayConnect(p.Instance(), to)
		}
	}
	if err != nil {
		return refusalError{err}
	}
	return nil
}

// NoteRefusal records the result of connecting for a request, so that Reasons show a
// refusal by Control. It is cheap if that does not change.
func (p *Peer) NoteRefusal(result error) {
	why := ""
	if refused := (refusalError{}); errors.As(result, &refused) {
		why = refused.Error()
	}
	if c := p.condition.Load(); c.refused == why || c.reasons&ReasonAddress != 0 {
		return
	}
	p.pool.mu.Lock()
	defer p.pool.mu.Unlock()
	p.pool.changeLocked(p, func(c *condition) { c.refused = why })
	p.pool.notices.flush()
}

// RecheckAddresses calls Options.MayConnect again for each peer, whose results may have
// changed.
func (p *Pool) RecheckAddresses() {
	p.mu.Lock()
	defer p.mu.Unlock()
	differ := make(map[discovery.Key]*Peer)
	for id, peer := range p.peers {
		is := *peer.condition.Load()
		was := is.refused
		if is.checkAddress(&p.options); is.refused != was {
			differ[id] = peer
		}
	}
	if len(differ) == 0 {
		return
	}
	for _, peer := range sorted(differ) {
		was, is := p.changeLocked(peer, func(c *condition) { c.checkAddress(&p.options) })
		p.notices.queueState(peer, was, is)
	}
	p.publishLocked()
}

// checkAddress sets ReasonAddress by Options.MayConnect. A host name is checked when it
// is resolved.
func (c *condition) checkAddress(o *Options) {
	ip, err := netip.ParseAddr(c.instance.Address)
	switch path := c.instance.Socket; {
	case path != "" && o.MayUseSocket != nil:
		err = o.MayUseSocket(path)
	case err != nil || o.MayConnect == nil:
		return
	default:
		err = o.MayConnect(c.instance, netip.AddrPortFrom(ip, uint16(c.instance.Port)))
	}
	c.refused = ""
	if err != nil {
		c.refused = err.Error()
	}
	c.setReason(ReasonAddress, c.refused != "", c.refused)
}
