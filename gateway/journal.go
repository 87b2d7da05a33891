package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/observe/panics"
)

// journal adds the events of peers to the feed, and logs them, one line each. Pools call note
// with their mutex held, so note does not block: a slow log must not delay requests.
type journal struct {
	feed  *events.Feed
	log   zerolog.Logger
	queue chan balancer.Event // for the log
	lost  atomic.Uint64       // events that were dropped because the channel was full
	stop  chan struct{}       // closed to end run
	done  chan struct{}       // closed when run has ended

	mu        sync.Mutex             // guards the field below
	inherited map[discovery.Key]bool // instances whose peers the old process had
}

// journalSize is the number of events that wait for the log.
const journalSize = 4096

// newJournal starts a journal. It must be closed.
func newJournal(feed *events.Feed, log zerolog.Logger) *journal {
	j := &journal{
		feed:  feed,
		log:   log,
		queue: make(chan balancer.Event, journalSize),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),

		inherited: make(map[discovery.Key]bool),
	}
	go func() {
		defer close(j.done)
		panics.Repeat(j.stop, panics.Task, time.Second, j.run)
	}()
	return j
}

// note adds e to the feed, and queues it for the log. It may be called concurrently. After close
// nothing is logged.
func (j *journal) note(e balancer.Event) {
	if f, ok := feedEvent(e); ok && !(e.Kind == balancer.EventAdded && j.hadBefore(e.Peer.ID)) {
		j.feed.Add(f)
	}
	select {
	case j.queue <- e:
	default:
		j.lost.Add(1)
	}
}

// inherit says that the old process had these instances: their peers do not join.
func (j *journal) inherit(set []discovery.Instance) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, i := range set {
		j.inherited[i.Key()] = true
	}
}

// hadBefore reports whether the old process had an instance, once.
func (j *journal) hadBefore(id discovery.Key) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	had := j.inherited[id]
	delete(j.inherited, id)
	return had
}

// close writes the queued events, and ends the journal.
func (j *journal) close() {
	close(j.stop)
	<-j.done
}

func (j *journal) run() {
	for {
		select {
		case e := <-j.queue:
			j.write(e)
		case <-j.stop:
			for {
				select {
				case e := <-j.queue:
					j.write(e)
				default:
					return
				}
			}
		}
	}
}

func (j *journal) write(e balancer.Event) {
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
		e.Kind == balancer.EventState && (e.State == balancer.StateUnhealthy || e.State == balancer.StateEjected):
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
	balancer.EventCut:       "peer cut: its requests in flight did not end in time",
	balancer.EventPanic:     "panic: too few eligible peers, failing ones get requests too",
	balancer.EventPanicOver: "panic is over",
	balancer.EventRefused:   "peer refused: no request may go to its address",
}
