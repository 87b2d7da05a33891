package balancer

import (
	"context"
	"errors"
	"net/netip"
	"syscall"

	"sluice/discovery"
)

// refusalError is why Options.MayConnect refuses an address.
type refusalError struct{ error }

func (e refusalError) Unwrap() error { return e.error }

// Control is the net.Dialer.ControlContext of every connection to the peer: it fails
// if Options.MayConnect refuses what the peer's host has been resolved to.
func (p *Peer) Control(_ context.Context, _, address string, _ syscall.RawConn) error {
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

// NoteRefusal tells how connecting for a request ended: the peer's Reasons show
// whether Control was against it the last time. It is cheap as long as that is so.
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
	p.pool.change(p, func(c *condition) { c.refused = why })
	p.pool.flush()
}

// Readmit asks Options.MayConnect again for each peer, since its answers may have
// changed.
func (p *Pool) Readmit() {
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
		was, is := p.change(peer, func(c *condition) { c.checkAddress(&p.options) })
		p.noteState(peer, was, is)
	}
	p.publish()
}

// checkAddress sets ReasonAddress by what Options.MayConnect says of the instance's
// address. What a name stands for only shows when it has been resolved.
func (c *condition) checkAddress(o *Options) {
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
