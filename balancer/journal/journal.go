// Package journal tells people what happens to peers: it logs the events of pools, and adds them to
// the feed.
package journal

import (
	"context"
	"sync/atomic"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/observe/events"
	"sluice/observe/panics"
)

// Journal adds the events of peers to the feed, and logs them, one line each. Pools call Note
// with their mutex held, so Note does not block: a slow log must not delay requests. Its methods
// may be called concurrently.
type Journal struct {
	feed  *events.Feed
	log   zerolog.Logger
	queue chan *balancer.Event // for the log; pointers, as room for 4096 values is 3 MB
	lost  atomic.Uint64        // events that were dropped because the channel was full
	stop  func()               // ends run, and waits for that
}

// queueSize is the number of events that wait for the log.
const queueSize = 4096

// New starts a journal. It must be closed.
func New(feed *events.Feed, log zerolog.Logger) *Journal {
	j := &Journal{
		feed:  feed,
		log:   log,
		queue: make(chan *balancer.Event, queueSize),
	}
	j.stop = panics.Start(context.Background(), panics.Task, j.run)
	return j
}

// Note adds e to the feed, and queues it for the log: if 4096 events wait there, it is lost, and
// the log counts it. After Close nothing is logged.
func (j *Journal) Note(e balancer.Event) {
	if f, ok := feedEvent(e); ok {
		j.feed.Add(f)
	}
	select {
	case j.queue <- &e:
	default:
		j.lost.Add(1)
	}
}

// Close writes the queued events, and ends the journal. It must be called once.
func (j *Journal) Close() { j.stop() }

func (j *Journal) run(ctx context.Context) {
	for {
		select {
		case e := <-j.queue:
			j.write(*e)
		case <-ctx.Done():
			for range len(j.queue) {
				j.write(*<-j.queue)
			}
			return
		}
	}
}

func (j *Journal) write(e balancer.Event) {
	if lost := j.lost.Swap(0); lost > 0 {
		j.log.Warn().Uint64("events", lost).Msg("the log is too slow: events of peers are lost")
	}
	line := j.log.WithLevel(levelOf(e)).Stringer("event", e.Kind).Str("service", e.Pool)
	if e.Peer != nil {
		line = line.Str("peer", e.Peer.ID.ID).Str("address", e.Peer.Address())
		if node := e.Peer.Instance().Node; node != "" {
			line = line.Str("node", node)
		}
		line = line.Stringer("state", e.State)
	}
	if e.Detail != "" {
		line = line.Str("detail", e.Detail)
	}
	line.Msg(eventMessages[e.Kind])
}

// levelOf returns the log level of e: a warning if it costs requests or capacity. An update
// is only for debugging, because a change of state has its own event.
func levelOf(e balancer.Event) zerolog.Level {
	switch {
	case e.Kind == balancer.EventUpdated:
		return zerolog.DebugLevel
	case e.Kind == balancer.EventCut, e.Kind == balancer.EventPanic, e.Kind == balancer.EventRefused,
		e.Kind == balancer.EventState && (e.State == balancer.StateUnhealthy || e.State == balancer.StateEjected || e.State == balancer.StateWarming && e.Was == balancer.StateUp):
		return zerolog.WarnLevel
	}
	return zerolog.InfoLevel
}

var eventMessages = map[balancer.EventKind]string{
	balancer.EventAdded:     "peer added",
	balancer.EventRemoved:   "peer removed",
	balancer.EventUpdated:   "peer updated",
	balancer.EventState:     "peer changed state",
	balancer.EventDrained:   "peer drained",
	balancer.EventCut:       "peer cut: its requests in flight were ended",
	balancer.EventPanic:     "panic: too few eligible peers, failing ones get requests too",
	balancer.EventPanicOver: "panic is over",
	balancer.EventRefused:   "peer refused: no request may go to its address",
}
