package consul

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	// turnTime is how long a query blocks while other watches need the
	// connection and there is no overview.
	turnTime = time.Second

	// dueEach, times the number of watches, is how long a watch on an overview
	// waits for news before it asks without: one query in ten seconds for all of
	// them, since nothing is known to be missed.
	dueEach = 10 * time.Second

	// viewsLag is how long after some trouble the views of an agent may show what
	// was before it. An agent answers queries that block from a view, which follows
	// a stream from a server. When that breaks, the agent opens another one after
	// delays that grow up to a minute, and answers from the old view meanwhile
	// (submatview.defaultWaiter in Consul's source).
	viewsLag = 70 * time.Second

	// troubledEach, times the number of watches, but at least troubledLeast, is
	// how long a query blocks at a server within viewsLag of some trouble: fifty a
	// second for all watches. Consul goes on with such a query when its client is
	// gone, and counts its connection until the wait is over; one that is answered
	// from a view ends with its client. If there is more trouble, few are left.
	troubledEach  = 20 * time.Millisecond
	troubledLeast = 2 * time.Second
)

var (
	errTurned = errors.New("there are too many watches now, or no longer")
	errDue    = errors.New("it is time to ask without news")
)

// ask sends the next query and waits for its answer. It blocks in Consul if
// there are few watches, else it waits here for news from an overview.
func (w *watch) ask(ctx context.Context) (Answer, error) {
	for {
		crowded, lasting := w.client.gate.crowd()
		limited, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(lasting, func() { cancel(errTurned) })
		answer, err := w.askWhile(ctx, limited, crowded)
		stop()
		cancel(nil)
		if !errors.Is(err, errTurned) {
			return answer, err
		}
	}
}

// askWhile is ask for as long as crowded is right. What takes long ends with
// limited, and the rest with ctx.
func (w *watch) askWhile(ctx, limited context.Context, crowded bool) (Answer, error) {
	if !crowded {
		w.alone()
		if w.index == 0 {
			return w.send(ctx, 0)
		}
		return w.send(limited, w.wait(time.Now()))
	}
	limit, _ := w.client.gate.size()
	// There is no list of the services of a peer.
	if w.options.Peer == "" && limit >= leastConnections {
		err := w.news(limited)
		if err == nil {
			return w.sendShared(ctx)
		}
		if !errors.Is(err, errLost) {
			return Answer{}, err
		}
		w.excuse(err)
	}
	return w.send(ctx, min(turnTime, w.wait(time.Now())))
}

// sendShared asks without blocking, a few watches at a time.
func (w *watch) sendShared(ctx context.Context) (Answer, error) {
	select {
	case w.client.shared <- struct{}{}:
		defer func() { <-w.client.shared }()
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
	if err := w.client.gate.enter(ctx, false); err != nil {
		return Answer{}, err
	}
	defer w.client.gate.leave(false)
	// The overview knows more than a server that lags behind, or the cache.
	o := w.options
	o.Cached = false
	if o.Consistency == ConsistencyStale {
		o.Consistency = ConsistencyDefault
	}
	answer, err := w.queryAs(ctx, &o, api.QueryOptions{})
	if err == nil {
		w.rider.saw(answer)
	}
	return answer, err
}

// send asks when the gate lets it. With a wait, and an index to wait beyond, the
// query blocks.
func (w *watch) send(ctx context.Context, wait time.Duration) (Answer, error) {
	blocks := w.index > 0 && wait > 0
	if err := w.client.gate.enter(ctx, blocks); err != nil {
		return Answer{}, err
	}
	defer w.client.gate.leave(blocks)
	if !blocks {
		return w.query(ctx, api.QueryOptions{})
	}
	o := w.options
	if w.mayLag(time.Now()) {
		o.bypassViews()
		wait = w.client.afterTrouble(wait)
	}
	return w.queryAs(ctx, &o, api.QueryOptions{WaitIndex: w.index, WaitTime: wait})
}

// mayLag reports whether there was trouble so lately that views may lag.
func (w *watch) mayLag(now time.Time) bool {
	return now.Sub(w.trouble) <= viewsLag || now.Sub(w.client.agents.trouble()) <= viewsLag
}

// afterTrouble shortens the wait of a query that blocks at a server.
func (c *Client) afterTrouble(wait time.Duration) time.Duration {
	_, watches := c.gate.size()
	return min(wait, max(troubledLeast, time.Duration(watches)*troubledEach))
}

// bypassViews has a server answer, which wakes a query that blocks as soon as
// there is news.
func (o *ServiceOptions) bypassViews() {
	o.Cached = false
	o.Near = cmp.Or(o.Near, "_agent") // views know no distances
}

// wait returns how long a query may block: up to a tenth less than the option
// says, so that watches do not renew in step, and not beyond the end of a probation.
func (w *watch) wait(now time.Time) time.Duration {
	return w.untilExpiry(now, w.options.Wait-w.agents.upTo(w.options.Wait/10))
}

// untilExpiry shortens a wait so that it ends with the first probation.
func (w *watch) untilExpiry(now time.Time, wait time.Duration) time.Duration {
	if expiry, ok := w.guard.Expiry(); ok {
		return min(wait, max(expiry.Sub(now), 10*time.Millisecond))
	}
	return wait
}

// news waits until there is a reason to ask: the first answer, a change, or a
// long time without.
func (w *watch) news(ctx context.Context) error {
	if w.rider == nil {
		w.rider = w.client.join(&w.options)
		w.index = 0 // what changed before is not news
	}
	if w.index == 0 {
		return w.rider.ready(ctx)
	}
	_, watches := w.client.gate.size()
	due := max(w.options.Wait, time.Duration(watches)*dueEach)
	due = w.untilExpiry(time.Now(), due-w.agents.upTo(due/4))
	limited, cancel := context.WithTimeoutCause(ctx, due, errDue)
	defer cancel()
	if err := w.rider.wait(limited); !errors.Is(err, errDue) {
		return err
	}
	return nil
}

// alone gives up the rider: the watch can block in Consul.
func (w *watch) alone() {
	if w.rider != nil {
		w.rider.leave()
		w.rider = nil
	}
	w.excused = false
}

// excuse logs, once, why there is no overview.
func (w *watch) excuse(err error) {
	if !w.excused {
		w.client.log.Warn().Str("consul_service", w.options.Service).Err(err).
			Msgf("more services than connections: without an overview a change may be seen %v late, or later", turnTime)
	}
	w.excused = true
}
