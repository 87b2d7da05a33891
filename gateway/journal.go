package gateway

import (
	"sync/atomic"

	"github.com/rs/zerolog"

	"sluice/balancer"
)

// journal logs the events of peers, one line each. Pools call note with their mutex held, so
// note does not block: a slow log must not delay requests.
type journal struct {
	log    zerolog.Logger
	events chan balancer.Event
	lost   atomic.Uint64 // events that were dropped because the channel was full
	stop   chan struct{} // closed to end run
	done   chan struct{} // closed when run has ended
}

// journalSize is the number of events that wait for the log.
const journalSize = 4096

// newJournal starts a journal. It must be closed.
func newJournal(log zerolog.Logger) *journal {
	j := &journal{
		log:    log,
		events: make(chan balancer.Event, journalSize),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go j.run()
	return j
}

// note queues e for the log. It may be called concurrently, and has no effect after close.
func (j *journal) note(e balancer.Event) {
	select {
	case j.events <- e:
	default:
		j.lost.Add(1)
	}
}

// close writes the queued events, and ends the journal.
func (j *journal) close() {
	close(j.stop)
	<-j.done
}

func (j *journal) run() {
	defer close(j.done)
	for {
		select {
		case e := <-j.events:
			j.write(e)
		case <-j.stop:
			for {
				select {
				case e := <-j.events:
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
