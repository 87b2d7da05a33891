package consul

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// overviews are those of a client. It is safe for concurrent use.
type overviews struct {
	mu  sync.Mutex // guards the field below
	all map[scope]*overview
}

// rider is a watch's part of an overview. It belongs to the watch's goroutine.
type rider struct {
	overview *overview
	service  string        // in lower case: Consul takes names as equal that differ in case only
	news     chan struct{} // capacity 1: the service may have changed
	told     bool          // the watch knows of the present failure

	nodes []string // that have instances by the latest answer, sorted; the mu of overview guards it
}

// join returns a rider for o.Service. The caller calls its leave.
func (c *Client) join(o *ServiceOptions) *rider {
	s := scope{o.Datacenter, o.Namespace, o.Partition}
	c.overviews.mu.Lock()
	defer c.overviews.mu.Unlock()
	v := c.overviews.all[s]
	if v == nil {
		v = c.newOverview(s, o.Wait)
		if c.overviews.all == nil {
			c.overviews.all = make(map[scope]*overview)
		}
		c.overviews.all[s] = v
	}
	r := &rider{overview: v, service: strings.ToLower(o.Service), news: make(chan struct{}, 1)}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.riders[r.service] == nil {
		v.riders[r.service] = make(map[*rider]bool)
	}
	v.riders[r.service][r] = true
	v.count++
	return r
}

// leave ends r and, with the last rider, the overview.
func (r *rider) leave() {
	v, all := r.overview, &r.overview.client.overviews
	all.mu.Lock()
	v.mu.Lock()
	delete(v.riders[r.service], r)
	if len(v.riders[r.service]) == 0 {
		delete(v.riders, r.service)
	}
	v.count--
	last := v.count == 0
	v.mu.Unlock()
	if last {
		delete(all.all, v.scope)
	}
	all.mu.Unlock()
	if last {
		v.end()
		v.ended.Wait()
	}
}

// riders returns how many watches share overviews.
func (o *overviews) riders() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, v := range o.all {
		v.mu.Lock()
		n += v.count
		v.mu.Unlock()
	}
	return n
}

// ready waits until the overview sees every change. If it cannot, it returns
// why, once; then it waits for the end of that, unless the overview is lost.
func (r *rider) ready(ctx context.Context) error {
	for {
		complete, moved, err := r.overview.state()
		switch {
		case complete:
			r.told = false
			select {
			case <-r.news: // no news to a watch that asks now
			default:
			}
			return nil
		case err != nil && (!r.told || errors.Is(err, errLost)):
			r.told = true
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wait waits until the service may have changed since the last call of ready or
// wait. It returns an error once the overview can no longer tell.
func (r *rider) wait(ctx context.Context) error {
	for {
		complete, moved, err := r.overview.state()
		switch {
		case complete:
			r.told = false
		case err != nil:
			r.told = true
			return err
		}
		select {
		case <-r.news:
			return nil
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// saw takes note of the latest answer.
func (r *rider) saw(a Answer) {
	r.overview.mu.Lock()
	defer r.overview.mu.Unlock()
	r.nodes = a.nodes
}

func tell(riders map[*rider]bool) {
	for r := range riders {
		r.tell()
	}
}

func (r *rider) tell() { poke(r.news) }
