package overview

import (
	"context"
	"io"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// indexTimeout bounds the query of a node's index. After it, reading the list shows what is wrong.
const indexTimeout = time.Second

// node follows the instances on a node. Its query blocks if it has a slot: if there are fewer slots
// than nodes, those that changed last have one. When the index of all services changes, each other
// node is asked for its index, and is read if that has changed.
type node struct {
	overview *overview
	path     string
	end      context.CancelFunc
	wake     wake.One // the node should be read

	// Only the node's goroutine uses these fields.

	due     bool // the node should be read
	reading bool // it has an element in the overview's reads
	blocks  bool // it has had the slot since its last query

	// The mu of overview guards the fields below.

	index    uint64 // of the list that was read last; 0: unknown
	filtered bool   // ACLs filtered it

	changed uint64 // the overview's clock at its last change
	slot    bool   // its query may block
	waiting bool   // for a slot
}

// placesLocked returns how many queries for nodes and direct services may block, by default 119:
// all but those of other lists, and the last places. While the limit is reduced, as after an
// outage, half as many nodes have a slot: Consul continues and counts a canceled query.
func (v *overview) placesLocked() int {
	limit := v.limit()
	if v.client.Reduced() {
		return (limit-4)/2 + limit/8
	}
	return limit - 4 - max(1, limit/32)
}

// limit returns how many queries of the overview may be in flight.
func (v *overview) limit() int {
	limit, _ := v.client.Capacity()
	return limit / int(max(1, v.overviews.count.Load()))
}

// slotsLocked returns the number of slots. If they are fewer than the nodes, or the limit is
// reduced, direct services have the other places.
func (v *overview) slotsLocked() int {
	places := v.placesLocked()
	switch {
	case v.client.Reduced():
		places -= v.limit() / 8
	// The others are read: a hanging agent keeps each of these queries for long.
	case len(v.nodes) > places:
		places -= max(v.limit()/8, min(Queries, places/2))
	}
	return max(1, places)
}

// followNodes starts the queries of added nodes and ends the queries of removed ones. It
// reports whether there are more nodes than slots.
func (v *overview) followNodes(ctx context.Context) (crowded bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	state := error(nil) // the first answer of an added node notifies its services
	if len(v.nodes) == 0 {
		state = errPending
	}
	for name := range v.addresses {
		if v.nodes[name] == nil {
			v.nodes[name] = v.startNode(ctx, name)
			v.lists[v.nodes[name].path] = state
		}
	}
	for name, n := range v.nodes {
		if _, ok := v.addresses[name]; !ok {
			n.end()
			v.setSlotLocked(n, false)
			delete(v.nodes, name)
			delete(v.lists, n.path)
			v.nodeChangedLocked(name)
		}
	}
	v.grantSlotsLocked()
	v.updateCompleteLocked(false)
	return len(v.nodes) > v.slotsLocked()
}

func (v *overview) startNode(ctx context.Context, name string) *node {
	ctx, end := context.WithCancel(ctx)
	n := &node{overview: v, path: "catalog/node-services/" + discovery.PathSegment(name), end: end, wake: wake.NewOne(), due: true}
	instances := newEntries(&v.total)
	instances.proxied = v.recordProxy
	read := func(a consul.Answer, body []byte) error {
		n.due = false
		err := instances.compareInstances(body, n.recordChange)
		if err == nil {
			v.mu.Lock()
			n.index, n.filtered = a.Index, a.FilteredByACL
			v.mu.Unlock()
		}
		return err
	}
	v.running.Go(func() {
		defer panics.Contain(panics.Watch, nil)
		defer end()
		panics.Repeat(ctx.Done(), panics.Watch, time.Second, func() { v.follow(ctx, n.path, read, n.begin) })
		n.endRead()
		instances.hold(nil) // makes room for other lists
	})
	return n
}

// recordChange records a change of an entry of n.
func (n *node) recordChange(o owner) {
	v := n.overview
	v.mu.Lock()
	if v.complete { // the first answer is no change
		v.clock++
		n.changed = v.clock
	}
	v.mu.Unlock()
	v.changed(o)
}

// begin waits until the next query should be sent, and returns how long it may block.
func (n *node) begin(ctx context.Context) (wait time.Duration, err error) {
	n.endRead()
	for {
		if n.requestSlot() {
			n.due = true // in case it loses the slot before the answer
			if !n.blocks {
				// Block from the next query on: the index may be from before a loss of state.
				n.blocks = true
				return 0, nil
			}
			return n.overview.wait, nil
		}
		n.blocks = false
		if n.due {
			err := n.beginRead(ctx)
			if err != nil || !n.isUnchanged(ctx) {
				return 0, err
			}
			n.endRead()
			n.due = false
		}
		if err := wake.Await(ctx, n.wake); err != nil {
			return 0, err
		}
		n.due = true
	}
}

// lastRead returns the index of the last list, and whether ACLs filtered it; 0: none, or an error.
func (n *node) lastRead() (index uint64, filtered bool) {
	n.overview.mu.Lock()
	defer n.overview.mu.Unlock()
	if n.overview.lists[n.path] != nil {
		return 0, false
	}
	return n.index, n.filtered
}

// isUnchanged reports whether the list is the one read last, by the index of the node.
// Before Consul 1.13 any instance changes that (https://github.com/hashicorp/consul/pull/12399),
// so it does not show it.
func (n *node) isUnchanged(ctx context.Context) bool {
	index, filtered := n.lastRead()
	if index == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, indexTimeout)
	defer cancel()
	v := n.overview
	q := v.query(n.path)
	q.Filter = `Service == ""` // no instance, so the answer is short
	a, err := v.client.Get(ctx, q, func(io.Reader) error { return nil })
	return err == nil && v.client.Doubt(a) == nil && a.Index == index && a.FilteredByACL == filtered
}

// beginRead waits until n may be read without blocking. endRead is called before the
// next query, which after an error has a delay.
func (n *node) beginRead(ctx context.Context) error {
	select {
	case n.overview.reads <- struct{}{}:
		n.reading = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) endRead() {
	if n.reading {
		<-n.overview.reads
		n.reading = false
	}
}

// requestSlot reports whether n has a slot. A node without one gets one when it is free
// and no waiting node has changed later. A node with a slot loses it if a waiting node
// has changed later, or if there are fewer slots now.
func (n *node) requestSlot() bool {
	v := n.overview
	v.mu.Lock()
	defer v.mu.Unlock()
	if n.slot {
		next := v.nextLocked()
		v.setSlotLocked(n, v.taken <= v.slotsLocked() && (next == nil || next.changed <= n.changed))
	}
	n.waiting = !n.slot
	v.grantSlotsLocked()
	return n.slot
}

// grantSlotsLocked gives free slots to waiting nodes.
func (v *overview) grantSlotsLocked() {
	for v.taken < v.slotsLocked() {
		next := v.nextLocked()
		if next == nil {
			return
		}
		v.setSlotLocked(next, true)
		next.waiting = false
		next.wake.Send()
	}
}

func (v *overview) setSlotLocked(n *node, slot bool) {
	switch {
	case slot && !n.slot:
		v.taken++
	case n.slot && !slot:
		v.taken--
	}
	n.slot = slot
}

// nextLocked returns the waiting node that changed last; nil: none waits. It looks at all nodes.
func (v *overview) nextLocked() (next *node) {
	for _, n := range v.nodes {
		if n.waiting && (next == nil || n.changed > next.changed) {
			next = n
		}
	}
	return next
}
