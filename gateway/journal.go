package gateway

import (
	"sync/atomic"

	"github.com/rs/zerolog"

	"sluice/balancer"
)

// journal logs what happens to peers: one line for each change of state. A
// pool tells it while it holds its lock, so note never waits: a log that
// accepts nothing must not hold up requests.
type journal struct {
	log    zerolog.Logger
	events chan balancer.Event
	lost   atomic.Uint64 // events that found the channel full
	stop   chan struct{} // closed to end run
	done   chan struct{} // closed when run has ended
}

// journalSize is how many events may wait to be logged.
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

// note logs e soon. It may be called by many goroutines at once, also after
// close: then it does nothing.
func (j *journal) note(e balancer.Event) {
	select {
	case j.events <- e:
	default:
		j.lost.Add(1)
	}
}

// close logs what was noted before, and ends the journal.
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
		j.log.Warn().Uint64("events", lost).Msg("the log is too slow: changes of peers were not logged")
	}
	line := j.log.WithLevel(levelOf(e)).Str("service", e.Pool)
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

// levelOf makes warnings of what costs requests or capacity. An update is for
// debugging: where it matters, the change of state has a line of its own.
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
	balancer.EventAdded:   "peer added",
	balancer.EventRemoved: "peer removed",
	balancer.EventUpdated: "peer updated",
	balancer.EventState:   "peer changed state",
	balancer.EventDrained: "peer drained",
	balancer.EventCut:     "peer cut: its requests in flight did not end in time",
	balancer.EventPanic:   "panic: too few peers are eligible, others get requests too",
	balancer.EventCalm:    "panic is over",
	balancer.EventRefused: "peer refused: no request may go to its address",
}
