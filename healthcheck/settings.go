package healthcheck

import (
	"net"
	"strconv"
	"time"

	"sluice/balancer"
)

// Settings say how the peers of a pool are judged. They, and what they point
// to, must not change while they are in use.
type Settings struct {
	Active  *Active // nil: no active checks
	Passive Passive
}

// Active are the settings of active checks. All must be set, except those that
// say otherwise.
type Active struct {
	Probe    Probe         // closed when it is no longer used
	Interval time.Duration // from the end of a check to the start of the next
	// FailingInterval is what stands for Interval while the latest check has
	// failed, or the peer has not passed enough checks yet, if it is shorter.
	FailingInterval time.Duration
	Jitter          float64       // each interval is longer or shorter by up to this share of it, at random; 0 to 1
	Timeout         time.Duration // for one check
	// UnhealthyThreshold is how many checks in a row must fail for a peer to get
	// no more requests, HealthyThreshold how many must pass for it to get them
	// again. The very first check of a peer that waits for one is enough.
	UnhealthyThreshold, HealthyThreshold int
	Port                                 int // to check instead of the peer's; 0: the peer's
	// MustPassFirst keeps requests from a new peer until a check has passed.
	MustPassFirst bool
	// OverridesConsul makes checks decide about peers that Consul calls critical.
	// It implies MustPassFirst.
	OverridesConsul bool
}

// Passive are the settings of outlier detection, which judges a peer by what
// became of the requests that it was sent. The zero value detects nothing.
type Passive struct {
	// A peer is ejected after so many failures in a row; 0 is never. See
	// balancer.Streak for what counts: its fields Connect, Gateway and Any.
	ConsecutiveConnectFailures int
	ConsecutiveFailures        int
	Consecutive5xx             int

	SuccessRate *SuccessRate  // nil: not looked at
	Latency     *Latency      // nil: not looked at
	Interval    time.Duration // over which success rates and latencies are taken

	// A peer is ejected for Ejection the first time, and that much longer each
	// further time, up to MaxEjection. Each Interval without an ejection takes
	// one of these times back.
	Ejection, MaxEjection time.Duration
	// MaxEjected is the share of the peers that may be ejected at a time, of
	// those that would get requests otherwise: 0 to 1. Whatever it is, unless 0,
	// one peer may, and the last one is never.
	MaxEjected float64
}

// SuccessRate ejects peers that succeed less often than the others: less than
// the mean of all peers minus StdevFactor standard deviations.
type SuccessRate struct {
	StdevFactor float64
	Below       float64 // a success rate that is not below this is good enough, whatever that of others is; 0 to 1
	MinRequests int     // a peer with fewer in the interval is left out
	MinPeers    int     // with fewer peers to compare nothing is done
}

// Latency ejects peers that answer more slowly than the others: whose median
// is more than Factor times the median of all peers' medians.
type Latency struct {
	Factor      float64
	Above       time.Duration // a median that is not above this is good enough, whatever that of others is
	MinRequests int           // a peer with fewer in the interval is left out
	MinPeers    int           // with fewer peers to compare nothing is done
}

// Adapt returns the options that a pool needs to be judged by c with the
// settings s.
func (c *Checker) Adapt(o balancer.Options, s Settings) balancer.Options {
	o.OnFailure = c.failed
	o.MeasureLatencies = s.Passive.Latency != nil
	o.MustPassFirst = s.Active != nil && s.Active.MustPassFirst
	o.ActiveOverridesConsul = s.Active != nil && s.Active.OverridesConsul
	return o
}

// interval returns when to check again a peer that has passed its latest
// checks, or not. random, from 0 to 1, is for the jitter.
func (a *Active) interval(passing bool, random float64) time.Duration {
	d := a.Interval
	if !passing {
		d = min(d, a.FailingInterval)
	}
	return time.Duration(float64(d) * (1 + a.Jitter*(2*random-1)))
}

// trial is what a peer's streak begins with when it returns from an ejection:
// its next failure ejects it again, its next success ends the trial.
func (p *Passive) trial() balancer.Streak {
	return balancer.Streak{
		Connect: max(p.ConsecutiveConnectFailures-1, 0),
		Gateway: max(p.ConsecutiveFailures-1, 0),
		Any:     max(p.Consecutive5xx-1, 0),
	}
}

// exceeded returns which limit a streak has reached, if any, and its length.
func (p *Passive) exceeded(s balancer.Streak) (cause Cause, length int, ok bool) {
	switch {
	case p.ConsecutiveConnectFailures > 0 && s.Connect >= p.ConsecutiveConnectFailures:
		return CauseConnectFailures, s.Connect, true
	case p.ConsecutiveFailures > 0 && s.Gateway >= p.ConsecutiveFailures:
		return CauseFailures, s.Gateway, true
	case p.Consecutive5xx > 0 && s.Any >= p.Consecutive5xx:
		return Cause5xx, s.Any, true
	}
	return 0, 0, false
}

// ejection returns how long the ejection with this number lasts, which counts
// from 1.
func (p *Passive) ejection(times int) time.Duration {
	if int64(times) >= int64(p.MaxEjection)/max(int64(p.Ejection), 1) {
		return max(p.MaxEjection, p.Ejection)
	}
	return p.Ejection * time.Duration(times)
}

// enabled reports whether any peer may ever be ejected.
func (p *Passive) enabled() bool {
	return p.MaxEjected > 0 && (p.ConsecutiveConnectFailures > 0 || p.ConsecutiveFailures > 0 || p.Consecutive5xx > 0 || p.detects())
}

// detects reports whether anything is detected at intervals.
func (p *Passive) detects() bool { return p.SuccessRate != nil || p.Latency != nil }

// Cause is why a peer was ejected.
type Cause uint8

const (
	CauseConnectFailures Cause = iota // ConsecutiveConnectFailures
	CauseFailures                     // ConsecutiveFailures
	Cause5xx                          // Consecutive5xx
	CauseSuccessRate
	CauseLatency

	// NumCauses is the number of causes; they count from 0.
	NumCauses = int(CauseLatency) + 1
)

var causeNames = [NumCauses]string{
	"consecutive_connect_failures", "consecutive_failures", "consecutive_5xx", "success_rate", "latency",
}

// String returns the name of the setting behind the cause.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "unknown"
}

// address returns where to check a peer.
func (a *Active) address(p *balancer.Peer) string {
	if a.Port == 0 {
		return p.Address()
	}
	host, _, err := net.SplitHostPort(p.Address())
	if err != nil {
		return p.Address() // a peer always has a port
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}
