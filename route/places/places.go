// Package places gives few places to many clients. A client is a block of addresses, has a
// share of the places at most, and takes its turn with the others that wait. So one client,
// whatever it does, takes neither all places nor the time of the others.
//
// Who has a place gives it back before it waits for anybody else.
package places

import (
	"context"
	"slices"
	"sync"
)

// Places are a number of places. They are safe for concurrent use.
type Places struct {
	all, share int

	mu sync.Mutex
	// mu guards the fields below.
	taken, waiting int
	clients        map[Block]*client
	next           []*client // in turn: clients that wait and have less than their share
	spare          []*client // for later clients
}

// client is a block that has a place or waits for one.
type client struct {
	block   Block
	share   int
	taken   int
	waiting []chan struct{} // in order of arrival; closed when the place is given
	inTurn  bool            // it is in Places.next
}

// maxSpare bounds the memory of Places without clients.
const maxSpare = 64

// New returns that number of places, of which each block may have share.
func New(all, share int) *Places {
	return &Places{all: all, share: min(share, all), clients: make(map[Block]*client)}
}

// Take takes a place for a client. If there is none, it waits until the context that waiting
// returns ends, and returns its error. Places that become free are given to the blocks in
// turn, and within a block in order of arrival. After nil the caller must call Give.
func (p *Places) Take(b Block, waiting func() (context.Context, context.CancelFunc)) error {
	p.mu.Lock()
	c := p.clientLocked(b)
	if p.taken < p.all && c.taken < c.share { // then no other one waits that could have it
		p.taken++
		c.taken++
		p.mu.Unlock()
		return nil
	}
	given := make(chan struct{})
	c.waiting = append(c.waiting, given)
	p.waiting++
	p.lineUpLocked(c)
	p.mu.Unlock()

	ctx, end := waiting()
	defer end()
	select {
	case <-given:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(c.waiting, given)
	if i < 0 { // given meanwhile
		return nil
	}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	p.waiting--
	p.forgetLocked(c)
	return ctx.Err()
}

// TakeNow is Take without a wait. It reports whether there was a place.
func (p *Places) TakeNow(b Block) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clientLocked(b)
	defer p.forgetLocked(c)
	if p.taken >= p.all || c.taken >= c.share {
		return false
	}
	p.taken++
	c.taken++
	return true
}

// Give gives a place of a client back.
func (p *Places) Give(b Block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[b]
	c.taken--
	p.taken--
	p.lineUpLocked(c)
	for p.taken < p.all && len(p.next) > 0 {
		first := p.next[0]
		p.next = slices.Delete(p.next, 0, 1)
		first.inTurn = false
		if len(first.waiting) > 0 {
			close(first.waiting[0])
			first.waiting = slices.Delete(first.waiting, 0, 1)
			p.waiting--
			first.taken++
			p.taken++
			p.lineUpLocked(first)
		}
		p.forgetLocked(first)
	}
	p.forgetLocked(c)
}

// clientLocked returns the client of a block.
func (p *Places) clientLocked(b Block) *client {
	c := p.clients[b]
	if c != nil {
		return c
	}
	if n := len(p.spare); n > 0 {
		c, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		c = new(client)
	}
	c.block, c.share = b, p.share
	if b == Many {
		c.share = p.all
	}
	p.clients[b] = c
	return c
}

// lineUpLocked puts a client that waits and may have a place behind the others.
func (p *Places) lineUpLocked(c *client) {
	if !c.inTurn && len(c.waiting) > 0 && c.taken < c.share {
		c.inTurn = true
		p.next = append(p.next, c)
	}
}

// forgetLocked forgets a client that neither has a place nor waits.
func (p *Places) forgetLocked(c *client) {
	if c.taken > 0 || len(c.waiting) > 0 || c.inTurn || p.clients[c.block] != c {
		return
	}
	delete(p.clients, c.block)
	if len(p.spare) < maxSpare {
		p.spare = append(p.spare, c)
	}
}

// Taken returns the number of places that are taken.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Waiting returns the number of calls of Take that wait.
func (p *Places) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}
