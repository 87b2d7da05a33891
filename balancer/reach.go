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
	if network == discovery.NetworkUnix {
		if p.pool.mayUseSocket == nil {
			return nil
		}
		if err := p.pool.mayUseSocket(address); err != nil {
			return refusalError{err}
		}
		return nil
	}
	if p.pool.mayConnect == nil {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err == nil {
		err = p.pool.mayConnect(p.Instance(), to)
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
	p.pool.flushLocked()
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
		p.noteStateLocked(peer, was, is)
	}
	p.publishLocked()
}

// checkAddress sets ReasonAddress by Options.MayConnect. A host name is checked when it
// is resolved.
func (c *condition) checkAddress(o *Options) {
	if path := c.instance.Socket; path != "" && o.MayUseSocket != nil {
		c.refused = ""
		if err := o.MayUseSocket(path); err != nil {
			c.refused = err.Error()
		}
		c.setReason(ReasonAddress, c.refused != "", c.refused)
		return
	}
	ip, err := netip.ParseAddr(c.instance.Address)
	if err != nil || o.MayConnect == nil {
		return
	}
	c.refused = ""
	if err := o.MayConnect(c.instance, netip.AddrPortFrom(ip, uint16(c.instance.Port))); err != nil {
		c.refused = err.Error()
	}
	c.setReason(ReasonAddress, c.refused != "", c.refused)
}
