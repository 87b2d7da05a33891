package route

import (
	"math"
	"sync/atomic"
	"time"

	"sluice/observe/metrics"
	"sluice/route/places"
)

// Dropped is why a request that was selected was not copied, or its copy not sent.
type Dropped uint8

const (
	// DroppedProtocol: an upgrade, or a call of gRPC that is not sent as a whole.
	DroppedProtocol Dropped = iota
	// DroppedBodyTooLong: the body is longer than Mirror.BodyBytes.
	DroppedBodyTooLong
	// DroppedBodyIncomplete: no peer of the route's service got the whole body.
	DroppedBodyIncomplete
	// DroppedInFlight: Mirror.InFlight copies are in flight, or an eighth of that waits for
	// bodies of the client.
	DroppedInFlight
	// DroppedNoPeer: the mirror has no peer that may get requests, or its limits are
	// reached.
	DroppedNoPeer
	// DroppedMirrored: the request is a copy itself.
	DroppedMirrored

	// NumDropped is the number of reasons; they count from 0.
	NumDropped = int(DroppedMirrored) + 1
)

var droppedNames = [NumDropped]string{"protocol", "body_too_long", "body_incomplete", "in_flight", "no_peer", "mirrored"}

func (d Dropped) String() string { return droppedNames[d] }

// Copies selects and counts the copies of the requests to one service that go to one
// service or group, by all routes. It is safe for concurrent use.
type Copies struct {
	From, To, Group string // names; Group is empty for all peers of To

	// Incomplete are those that wait for the rest of their body, by who sends it: one client's
	// slow uploads have an eighth of Mirror.InFlight.
	Incomplete *places.Shares

	point    atomic.Uint64
	inflight atomic.Int64
	answers  *metrics.Requests
	failed   atomic.Uint64
	dropped  [NumDropped]atomic.Uint64
}

// NewCopies returns zero counters for the copies of requests to the service from.
func NewCopies(from, to, group string) *Copies {
	return &Copies{From: from, To: to, Group: group, Incomplete: places.NewShares(), answers: metrics.NewRequests()}
}

// golden is the golden ratio as a fraction of 2⁶⁴.
const golden = 0x9E3779B97F4A7C15

// Select reports whether the next request is selected for a share, 0 to 1. The points of
// requests are the multiples of the golden ratio: of any number of requests in a row, the
// share is selected within a few, and so it is of every second or every tenth request.
func (c *Copies) Select(share float64) bool {
	switch {
	case share <= 0:
		return false
	case share >= 1:
		return true
	}
	return c.point.Add(golden) < uint64(math.Ldexp(share, 64))
}

// Begin counts a copy in flight, or drops it if there are most of them already. After true,
// Drop or End is called once.
func (c *Copies) Begin(most int64) bool {
	if c.inflight.Add(1) <= most {
		return true
	}
	c.Drop(DroppedInFlight)
	return false
}

// Skip counts a request that was selected and is not copied.
func (c *Copies) Skip(why Dropped) { c.dropped[why].Add(1) }

// Drop ends a copy that no peer got.
func (c *Copies) Drop(why Dropped) {
	c.Skip(why)
	c.inflight.Add(-1)
}

// End ends a copy that was sent, with the status of the answer, as of [metrics.ClassOf], and
// the time to its head. answered is false if there was none.
func (c *Copies) End(shard uint32, status int, latency time.Duration, answered bool) {
	if !answered {
		c.failed.Add(1)
	}
	c.answers.Observe(shard, status, latency, 0, 0)
	c.inflight.Add(-1)
}

// InFlight returns the number of copies in flight. Those that wait for the rest of a body
// count.
func (c *Copies) InFlight() int { return int(c.inflight.Load()) }

// Answers returns the counters of the copies that were sent, and that have ended. One
// without an answer has the status that its client would have got.
func (c *Copies) Answers() *metrics.Requests { return c.answers }

// Failed returns how many of Answers had no answer.
func (c *Copies) Failed() uint64 { return c.failed.Load() }

// Dropped returns the number of requests that were selected and not sent, by reason.
func (c *Copies) Dropped() [NumDropped]uint64 {
	var n [NumDropped]uint64
	for why := range n {
		n[why] = c.dropped[why].Load()
	}
	return n
}
