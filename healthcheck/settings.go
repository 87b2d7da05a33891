package healthcheck

import (
	"cmp"
	"net"
	"strconv"
	"time"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/discovery"
)

// Settings configure the checks of a pool. They, and what they point to, must not
// change while in use.
type Settings struct {
	Active  *Active // nil: no active checks
	Passive Passive
}

// Active configures active checks.
type Active struct {
	Schedule
	Probe Probe // closed after its last use
	// Foreign says that others than the operator have configured the checks: all of them share half
	// of Options.MaxChecks.
	Foreign bool
	// Denied reports whether the mesh does not let sluice connect to an instance: see saysNothing.
	// nil: there is no mesh.
	Denied func(discovery.Instance) bool
}

// Schedule says when peers are checked, and what their checks decide.
type Schedule struct {
	// Interval is from the end of a check to the start of the next.
	Interval time.Duration `key:"interval" default:"2s" min:"10ms" max:"1h"`
	// FailingInterval replaces Interval, if it is shorter, while the peer is down or
	// its latest check failed.
	FailingInterval time.Duration `key:"failing_interval" default:"1s" min:"10ms" max:"1h"`
	// Jitter is the random variation of each interval, as a share of it.
	Jitter  units.Ratio   `key:"jitter" default:"10%" min:"0" max:"1"`
	Timeout time.Duration `key:"timeout" default:"1s" min:"1ms" max:"5m"` // for one check
	// UnhealthyThreshold consecutive failures take a peer out of use,
	// HealthyThreshold consecutive passes put it back. For a new peer the first
	// check decides.
	UnhealthyThreshold int `key:"unhealthy_threshold" default:"3" min:"1" max:"100"`
	HealthyThreshold   int `key:"healthy_threshold" default:"2" min:"1" max:"100"`
	// MustPassFirst gives a new peer no requests before a check has passed.
	MustPassFirst bool `key:"must_pass_first" default:"false"`
	// OverridesRegistry lets checks decide about instances that are critical in
	// the registry. It implies MustPassFirst.
	OverridesRegistry bool `key:"overrides_consul" default:"false"`
	Port              int  `key:"port" default:"0" min:"0" max:"65535"` // 0: the peer's
}

// Passive configures outlier detection. The zero value detects nothing.
type Passive struct {
	// Consecutive failures that eject a peer, by the fields Connect, Gateway and Any
	// of balancer.Streak; 0: never.
	ConsecutiveFailures        int `key:"consecutive_failures" default:"5" min:"0" max:"65535"`
	ConsecutiveConnectFailures int `key:"consecutive_connect_failures" default:"0" min:"0" max:"65535"`
	Consecutive5xx             int `key:"consecutive_5xx" default:"0" min:"0" max:"65535"`

	// Flaps is how often within 5 minutes checks of a peer fail and pass again until it is
	// ejected as they pass: each further time for longer, and not if the others do the same.
	// 0: never.
	Flaps int `key:"flaps" default:"5" min:"0" max:"1000"`

	SuccessRate *SuccessRate `key:"success_rate"` // nil: off
	Latency     *Latency     `key:"latency"`      // nil: off
	// Interval is that of success rates and latencies, and of the steps of weights.
	Interval time.Duration `key:"interval" default:"10s" min:"100ms" max:"1h"`

	// The n-th ejection of a peer lasts n × Ejection, up to MaxEjection. Each
	// Interval without an ejection lowers n by one.
	Ejection    time.Duration `key:"ejection" default:"10s" min:"10ms" max:"24h"`
	MaxEjection time.Duration `key:"max_ejection" default:"5m" min:"10ms" max:"24h"`
	// MaxEjected bounds the ejected share of the otherwise healthy peers. Above 0, one peer may
	// always be ejected, and the last one never.
	MaxEjected units.Ratio `key:"max_ejected" default:"50%" min:"0" max:"1"`
}

// SuccessRate takes weight from peers that fail more often than the others.
type SuccessRate struct {
	Below units.Ratio `key:"below" default:"99%" min:"0" max:"1"` // only from peers with a lower success rate
}

// Latency takes weight from peers with more slow answers than the others. An answer is slow above
// Factor times the median of the others' answers, and above Above.
type Latency struct {
	Factor float64       `key:"factor" default:"3" min:"1" max:"1000"`
	Above  time.Duration `key:"above" default:"50ms" min:"0s" max:"1h"`
}

// Adapt sets the options of a pool that c checks with the settings s.
func (c *Checker) Adapt(o balancer.Options, s Settings) balancer.Options {
	o.OnFailure = c.failed
	o.MeasureLatencies = s.Passive.Latency != nil
	o.MustPassFirst = s.Active != nil && s.Active.MustPassFirst
	o.ActiveOverridesRegistry = s.Active != nil && s.Active.OverridesRegistry
	return o
}

// interval returns the time until the next check. random in [0, 1) is for the jitter.
func (a *Active) interval(passing bool, random float64) time.Duration {
	d := a.Interval
	if !passing {
		d = min(d, a.FailingInterval)
	}
	return time.Duration(float64(d) * (1 + float64(a.Jitter)*(2*random-1)))
}

// streakAfterEjection is the streak of a peer after an ejection: its next failure ejects it again.
func (p *Passive) streakAfterEjection() balancer.Streak {
	return balancer.Streak{
		Connect: max(p.ConsecutiveConnectFailures-1, 0),
		Gateway: max(p.ConsecutiveFailures-1, 0),
		Any:     max(p.Consecutive5xx-1, 0),
	}
}

// exceeded returns the limit that a streak has reached, and its length.
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

// ejection returns the length of ejection number times, from 1.
func (p *Passive) ejection(times int) time.Duration {
	if int64(times) >= int64(p.MaxEjection)/max(int64(p.Ejection), 1) {
		return max(p.MaxEjection, p.Ejection)
	}
	return p.Ejection * time.Duration(times)
}

func (p *Passive) enabled() bool {
	return p.MaxEjected > 0 && (p.ConsecutiveConnectFailures > 0 || p.ConsecutiveFailures > 0 || p.Consecutive5xx > 0 || p.Flaps > 0 || p.comparesPeers())
}

// comparesPeers reports whether peers are compared with each other, at intervals.
func (p *Passive) comparesPeers() bool { return p.SuccessRate != nil || p.Latency != nil }

// Cause is the limit that ejected a peer.
type Cause uint8

const (
	CauseConnectFailures Cause = iota // ConsecutiveConnectFailures
	CauseFailures                     // ConsecutiveFailures
	Cause5xx                          // Consecutive5xx
	CauseSuccessRate
	CauseLatency
	CauseFlaps // Flaps

	// NumCauses is the number of causes; they count from 0.
	NumCauses = int(CauseFlaps) + 1
)

var causeNames = [NumCauses]string{
	"consecutive_connect_failures", "consecutive_failures", "consecutive_5xx", "success_rate", "latency", "flaps",
}

// String returns the configuration key.
func (c Cause) String() string { return causeNames[c] }

// address returns the address to check.
func (a *Active) address(p *balancer.Peer) string {
	port := cmp.Or(p.Instance().CheckPort, a.Port)
	if port == 0 {
		return p.Address()
	}
	host, _, err := net.SplitHostPort(p.Address())
	if err != nil {
		return p.Address() // a unix socket
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}
