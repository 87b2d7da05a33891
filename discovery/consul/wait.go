package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/discovery/consul/overview"
)

const (
	// recheckEach, times the number of loops, is the time after which a watch on an
	// overview queries without a change: one query in ten seconds for all watches
	// together.
	recheckEach = 10 * time.Second

	// repeatAfter is the time after which a watch on an overview repeats the query that
	// has shown a change. If that change was undone before the overview was read again,
	// the overview shows nothing.
	repeatAfter = 5 * time.Second
)

// next returns the next answer. The query blocks in Consul or, if the loops are
// oversubscribed and the service has not just changed, follows a change in an overview.
func (w *watch) next(ctx context.Context) (answer Answer, err error) {
	err = w.client.InMode(ctx, func(mode context.Context, oversubscribed bool) (err error) {
		answer, err = w.nextWhile(ctx, mode, oversubscribed)
		return err
	})
	return answer, err
}

// nextWhile is next while oversubscribed is valid. Long waits end with limited, others
// with ctx.
func (w *watch) nextWhile(ctx, limited context.Context, oversubscribed bool) (Answer, error) {
	if oversubscribed {
		if w.loop.Index > 0 && w.subscriber != nil && w.subscriber.Direct() {
			return w.send(limited, min(overview.DirectWait, w.wait(time.Now())))
		}
		if err := w.await(limited); err != nil {
			return Answer{}, err
		}
		return w.queryShared(ctx)
	}
	w.unsubscribe()
	if w.loop.Index == 0 {
		return w.send(ctx, 0)
	}
	return w.send(limited, w.wait(time.Now()))
}

// queryShared queries without blocking, a few watches at a time.
func (w *watch) queryShared(ctx context.Context) (Answer, error) {
	select {
	case w.shared <- struct{}{}:
		defer func() { <-w.shared }()
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
	// A stale server or the cache may not have the change that the overview has seen.
	o := w.options
	o.Cached = false
	if o.Consistency == ConsistencyStale {
		o.Consistency = ConsistencyDefault
	}
	return w.query(ctx, &o, api.QueryOptions{})
}

// send queries. With a wait, and an index, the query blocks.
func (w *watch) send(ctx context.Context, wait time.Duration) (Answer, error) {
	q := api.QueryOptions{}
	w.loop.Block(&q, wait)
	return w.query(ctx, &w.options, q)
}

// wait returns how long a query may block: up to a tenth less than the option, so that
// watches do not renew at the same time, and not longer than until the end of the first probation.
func (w *watch) wait(now time.Time) time.Duration {
	return w.Guard.Within(now, w.options.Wait-w.client.Jitter(w.options.Wait/10))
}

// await waits for a reason to query: the first answer, a change, or the end of a long
// time.
func (w *watch) await(ctx context.Context) error {
	limit, watches := w.client.Capacity()
	first := w.loop.Index == 0
	if w.options.Peer != "" || limit < overview.Needed {
		// A peer has no list of its services, or there are no connections for an overview.
		w.unsubscribe()
		if first {
			return nil
		}
		if consul.Sleep(ctx, w.Guard.Within(time.Now(), overview.PollInterval(w.client))) != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	if w.subscriber == nil {
		scope := overview.Scope{
			Datacenter: w.options.Datacenter, Namespace: w.options.Namespace, Partition: w.options.Partition, Stale: w.options.Consistency == ConsistencyStale,
		}
		w.subscriber = w.overviews.Subscribe(scope, w.options.Service, w.options.Wait)
		first = true
	}
	due := max(w.options.Wait, time.Duration(watches)*recheckEach)
	due -= w.client.Jitter(due / 4)
	if left := repeatAfter - time.Since(w.changed); left > 0 {
		due = left
	}
	return w.subscriber.Wait(ctx, first, w.Guard.Within(time.Now(), due))
}

// unsubscribe leaves the overview.
func (w *watch) unsubscribe() {
	if w.subscriber != nil {
		w.subscriber.Leave()
		w.subscriber = nil
	}
}
