package admin

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"sluice/admin/series"
	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/discovery"
	"sluice/observe/metrics"
	"sluice/operator"
)

// Service is an element of /api/services.
type Service struct {
	Service string `json:"service"`
	Policy  string `json:"policy"`
	Watch   *Watch `json:"watch"` // null for a service without a watch

	Peers    map[string]int  `json:"peers"`    // number in each state, with draining ones
	Eligible int             `json:"eligible"` // peers that get requests
	Panic    bool            `json:"panic"`    // failing peers get requests too
	Tiers    []balancer.Tier `json:"tiers"`    // one if none are configured
	Groups   []Group         `json:"groups,omitempty"`
	Inflight int             `json:"inflight"`
	Requests uint64          `json:"requests"` // that ended, since the start
	Errors   uint64          `json:"errors"`   // of Requests, those with a status of 5xx
	P50MS    float64         `json:"p50_ms"`   // estimates over all of them
	P99MS    float64         `json:"p99_ms"`
	Recent   series.Recent   `json:"recent"`

	Retries          uint64            `json:"retries"`            // attempts after the first
	RetriesLeft      int               `json:"retries_left"`       // in the retry budget now
	Refusals         map[string]uint64 `json:"refusals"`           // of attempts, by limit
	Overload         *Overload         `json:"overload,omitempty"` // of an adaptive limit
	Ejections        uint64            `json:"ejections"`
	EjectionsRefused uint64            `json:"ejections_refused"` // too many peers were ejected

	StandingDrains []operator.Order `json:"standing_drains"`       // of absent instances
	Maintenance    *operator.Order  `json:"maintenance,omitempty"` // absent: requests are forwarded
}

// Overload is what the adaptive limit of a service does.
type Overload struct {
	Tiers []balancer.TierLoad `json:"tiers"` // as Service.Tiers, at most 8
	Shed  map[string]uint64   `json:"shed"`  // refused requests since the start, by criticality
}

func describeOverload(o *balancer.Overload) *Overload {
	if o == nil {
		return nil
	}
	described := Overload{list(o.Tiers), map[string]uint64{}}
	for c, n := range o.Shed {
		described.Shed[balancer.Criticality(c).String()] = n
	}
	return &described
}

// Group is a group of a service's peers. Attempts are the ended attempts, of all routes.
type Group struct {
	Group     string  `json:"group"`
	Peers     int     `json:"peers"`
	Eligible  int     `json:"eligible"`
	Attempts  uint64  `json:"attempts"`
	Errors    uint64  `json:"errors"` // attempts with a status of 5xx or without an answer
	P50MS     float64 `json:"p50_ms"` // estimates over all attempts
	P99MS     float64 `json:"p99_ms"`
	Fallbacks uint64  `json:"fallbacks"` // attempts that found no peer and left for the fallback
}

func describeGroup(g *reading.Group) Group {
	return Group{
		Group: g.Name, Peers: g.Peers, Eligible: g.Eligible,
		Attempts: g.Attempts.Total(), Errors: g.Attempts.Class(metrics.Class5xx),
		P50MS: millis(g.Attempts.Quantile(0.5)), P99MS: millis(g.Attempts.Quantile(0.99)),
		Fallbacks: g.Fallbacks,
	}
}

// Watch is the state of a service's discovery.
type Watch struct {
	Source      string              `json:"source"`
	Endpoint    string              `json:"endpoint"` // the last to answer, such as an agent, or ""
	State       string              `json:"state"`    // pending, fresh, stale
	Since       time.Time           `json:"since"`    // start of State
	Index       uint64              `json:"index"`
	Instances   int                 `json:"instances"`
	Probation   int                 `json:"probation"`    // of Instances
	Restored    *time.Time          `json:"restored"`     // time of the snapshot; null: not used
	LastSuccess *time.Time          `json:"last_success"` // null: never
	LastChange  *time.Time          `json:"last_change"`  // null: never
	LastError   string              `json:"last_error"`   // of the last query; empty: none
	Queries     uint64              `json:"queries"`
	Errors      uint64              `json:"errors"`
	Changes     uint64              `json:"changes"`
	Invalid     []discovery.Invalid `json:"invalid"` // entries of the registry that cannot be used
}

// Pending reports whether nothing is known about the instances yet. A service without a watch has
// its peers from its configuration.
func (w *Watch) Pending() bool { return w != nil && w.State == discovery.WatchPending.String() }

func describeWatch(s discovery.WatchStatus) *Watch {
	return &Watch{
		Source:      s.Source,
		Endpoint:    s.Endpoint,
		State:       s.State.String(),
		Since:       moment(s.Since),
		Index:       s.Index,
		Instances:   s.Instances,
		Probation:   s.Probation,
		Restored:    optionalMoment(s.Restored),
		LastSuccess: optionalMoment(s.LastSuccess),
		LastChange:  optionalMoment(s.LastChange),
		LastError:   s.LastError,
		Queries:     s.Queries,
		Errors:      s.Errors,
		Changes:     s.Changes,
		Invalid:     list(s.Invalid),
	}
}

// moment returns t in UTC, truncated to milliseconds.
func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func optionalMoment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(moment(t))
}

// serviceHandler answers about services and their peers.
type serviceHandler struct{ Options }

// namesOf returns the names of the services that have the sorted pools.
func namesOf(pools []*balancer.Pool) []string {
	return slices.Compact(each(pools, func(p *balancer.Pool) string { return p.Name }))
}

// nameInRegistry returns the name that the instances of a service have, also while there are none:
// Consul's if the configuration has it, else the service's.
func (o Options) nameInRegistry(service string) string {
	if c := o.Effective(); c != nil {
		if selection := c.Services[service].Consul; selection != nil {
			return cmp.Or(selection.Service, service) // a prepared query has no name
		}
	}
	return service
}

// poolsOf returns the pools of services, or all if there are none.
func (h serviceHandler) poolsOf(services []string) ([]*balancer.Pool, error) {
	pools := reading.Sorted(h.Pools())
	if len(services) == 0 {
		return pools, nil
	}
	for _, name := range services {
		if !slices.ContainsFunc(pools, func(p *balancer.Pool) bool { return p.Name == name }) {
			return nil, refuse(http.StatusNotFound, "no service %q", name)
		}
	}
	return slices.DeleteFunc(pools, func(p *balancer.Pool) bool { return !slices.Contains(services, p.Name) }), nil
}

// services answers /api/services. ?service= selects, and may be repeated.
func (h serviceHandler) services(r *http.Request) (any, error) {
	pools, err := h.poolsOf(r.URL.Query()["service"])
	if err != nil {
		return nil, err
	}
	watches := make(map[string]*Watch)
	for _, w := range h.Watches() {
		watches[w.Service] = describeWatch(w)
	}
	services, set := []Service{}, h.Orders.Set()
	all := set.All()
	health, recent := h.Health(), h.Series.Recent()
	for _, counters := range reading.Of(pools) {
		s := describeService(counters)
		s.Recent, s.Watch, s.Maintenance = recent[s.Service], watches[s.Service], set.OfService(s.Service)
		inRegistry := h.nameInRegistry(s.Service)
		for _, o := range all {
			if o.Kind == operator.Drain && (o.Service == inRegistry || counters.Named(o.Service)) && !counters.Has(o.Peer()) {
				s.StandingDrains = append(s.StandingDrains, o)
			}
		}
		s.EjectionsRefused = health[s.Service].Refused
		for _, n := range health[s.Service].Ejections {
			s.Ejections += n
		}
		services = append(services, s)
	}
	return services, nil
}

func describeService(r *reading.Service) Service {
	s := Service{
		Service:  r.Name,
		Policy:   string(r.Policy),
		Peers:    map[string]int{},
		Eligible: r.Eligible,
		Panic:    r.Panic,
		Inflight: r.Inflight(),
		Requests: r.Requests.Total(),
		Errors:   r.Requests.Class(metrics.Class5xx),
		P50MS:    millis(r.Requests.Quantile(0.5)),
		P99MS:    millis(r.Requests.Quantile(0.99)),

		Retries:     r.Requests.Retries,
		RetriesLeft: r.Retries,
		Refusals:    map[string]uint64{},

		Tiers:          list(r.Tiers),
		Overload:       describeOverload(r.Overload),
		StandingDrains: []operator.Order{},
	}
	for limit, n := range r.Refusals {
		if n > 0 {
			s.Refusals[metrics.Label(balancer.Limit(limit))] = n
		}
	}
	for i := range r.Groups {
		s.Groups = append(s.Groups, describeGroup(&r.Groups[i]))
	}
	count := r.States()
	for _, state := range reading.States {
		s.Peers[state.String()] = count[state]
	}
	return s
}
